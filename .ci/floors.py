"""Print the lowest versions that pyproject.toml allows, as constraints for pip; `make lowest` installs them.

Torch keeps the version pinned in constraints.txt, because older builds take gigabytes.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The extras that `make lowest` installs. hf is left out because transformers brings another Typer, ray because it is
# large.
EXTRAS = ("efficientnet", "examples", "explore", "tables", "video")
TOOLS = ("hypothesis", "pytest", "pytest-timeout")

described = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
project, groups = described["project"], described["dependency-groups"]
optional = project["optional-dependencies"]
wanted = [*project["dependencies"], *(each for extra in EXTRAS for each in optional[extra])]
wanted += [each for each in groups["test"] if re.split(r"[\[>=]", each)[0] in TOOLS]
for requirement in wanted:
    name, _, version = requirement.partition(">=")
    if name != "torch":
        print(f"{name}=={version}")
for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
    if line.startswith("torch=="):
        print(line)
