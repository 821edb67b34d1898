"""A folder of photos that contains Python modules: none of them is ever imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import patchprism
from patchprism.photos.isolated import IsolatedReader
from patchprism.support.search_path import leave_working_directory, safe_path

SOURCE = Path(patchprism.__file__).resolve().parents[1]
# Names of modules that our processes import early, and of optional modules that may be missing.
NAMES = [
    "numpy",
    "PIL",
    "torch",
    "pickle",
    "tifffile",
    "imagecodecs",
    "pillow_heif",
    "_pickle",
    "typer",
    "ray",
]
NAMES += [
    "sitecustomize",
    "usercustomize",
    "mkl",
    "cupy",
    "sklearn",
    "signal",
    "subprocess",
    "pathlib",
    "gc",
    "codecs",
]


@pytest.fixture
def trap(tmp_path):
    """A folder with photos and with modules that leave a trace when they are imported."""
    folder = tmp_path / "photos"
    folder.mkdir()
    mark = tmp_path / "executed"
    for name in NAMES:
        (folder / f"{name}.py").write_text(
            f"open({str(mark)!r}, 'a').write({name + ' '!r})\nraise SystemExit(9)\n"
        )
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"p{i}.png")
    return folder, mark


def run(arguments, folder, *, pythonpath=str(SOURCE), **more):
    environment = {**os.environ, "PYTHONPATH": pythonpath, **more}
    environment.pop("PYTHONSAFEPATH", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


JOB = ["features", "p0.png", "p1.png", "--model", "efficientnet_lite2", "--size", "64", "-q"]
# The code of the installed command.
SCRIPT = "import sys; from patchprism.cli import entry; sys.exit(entry())"


@pytest.mark.parametrize("pythonpath", [str(SOURCE), f"{os.pathsep}{SOURCE}", f"{SOURCE}{os.pathsep}"])
def test_the_command_imports_nothing_from_the_photos(trap, tmp_path, pythonpath):
    folder, mark = trap
    for name in (
        "sitecustomize",
        "usercustomize",
    ):  # Python itself imports these before our code runs
        (folder / f"{name}.py").unlink()
    script = tmp_path / "bin" / "patchprism"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    done = run([script, *JOB, "--out", str(tmp_path / "a.zarr")], folder, pythonpath=pythonpath)
    assert done.returncode == 0, done.stderr
    assert not mark.exists(), mark.read_text()


def test_python_m_leaves_the_working_directory(trap, tmp_path):
    folder, mark = trap
    done = run(["-m", "patchprism", *JOB, "--out", str(tmp_path / "a.zarr")], folder)
    assert done.returncode == 0, done.stderr
    assert not mark.exists(), mark.read_text()


READ = """
import sys
from patchprism.photos.isolated import IsolatedReader
from patchprism.photos.sources import read_source
# As in a notebook: what the user's own process imports there is the user's matter, what ours do is not.
sys.path.insert(0, "")
with IsolatedReader(read_source) as reader:
    print(reader("p0.png").shape)
"""


def test_readers_of_a_notebook_import_nothing_from_the_photos(trap):
    folder, mark = trap
    done = run(["-P", "-c", READ], folder)
    assert done.stdout == "(64, 64, 3)\n", done.stderr
    assert not mark.exists(), mark.read_text()


def test_readers_do_not_import_from_the_folder_of_the_script(trap, tmp_path):
    folder, mark = trap
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = folder / "job.py"
    script.write_text(
        "import sys\nsys.path.remove(sys.path[0])\nfrom patchprism.photos.isolated import IsolatedReader\n"
        f"from patchprism.photos.sources import read_source\nsys.path.insert(0, {str(folder)!r})\n"
        f"with IsolatedReader(read_source) as reader:\n    print(reader({str(folder / 'p0.png')!r}).shape)\n"
    )
    done = run([script], elsewhere)
    assert done.stdout == "(64, 64, 3)\n", done.stderr
    assert not mark.exists(), mark.read_text()


def test_a_readers_own_module_is_found_last(tmp_path, monkeypatch):
    (tmp_path / "my_reader.py").write_text(
        "import numpy as np\ndef read(name):\n    return np.full((2, 2, 3), 7, np.uint8)\n"
    )
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    import my_reader

    monkeypatch.chdir(tmp_path)
    assert safe_path(my_reader.read)[-1] == str(tmp_path)
    assert str(tmp_path) not in safe_path()
    with IsolatedReader(my_reader.read) as reader:
        assert reader("x").tolist() == np.full((2, 2, 3), 7).tolist()
    sys.modules.pop("my_reader")


def test_what_pythonpath_names_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "/somewhere/of/mine", ""]))
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/somewhere/of/mine", *sys.path])
    assert "/somewhere/of/mine" in safe_path()
    leave_working_directory()
    assert os.environ["PYTHONPATH"] == "/somewhere/of/mine"
    assert sys.path[0] == "/somewhere/of/mine"
    assert not {"", str(tmp_path)} & set(sys.path)


def test_ray_workers_import_nothing_from_the_photos(trap, tmp_path):
    pytest.importorskip("ray")
    folder, mark = trap
    script = tmp_path / "bin" / "patchprism"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    done = run(
        [script, *JOB, "--engine", "ray", "--workers", "1", "--out", str(tmp_path / "a.zarr")],
        folder,
        RAY_ADDRESS="",
        RAY_USAGE_STATS_ENABLED="0",
    )
    assert done.returncode == 0, done.stderr
    assert not mark.exists(), mark.read_text()
