"""requirements.lock has the pins of constraints.txt with hashes, and no traces of the machine that made it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_lock_is_made_from_the_pins():
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    # The build of torch differs between kinds of machines, so no list of hashes fits all.
    wanted = {_plain(line) for line in pins if line and not line.startswith(("#", "torch=="))}
    text = (ROOT / "requirements.lock").read_text("utf-8")
    entries = re.findall(
        r"^(\S+==\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    assert {_plain(pin) for pin, _ in entries} == wanted, "run `make lock`"
    rest = re.sub(
        r"^\S+==\S+ \\\n|^    --hash=sha256:[0-9a-f]{64}(?: \\)?\n|^#.*\n", "", text, flags=re.MULTILINE
    )
    assert rest == ""
    assert "://" not in text


def _plain(pin: str) -> str:
    """A pin with its normalised name."""
    name, version = pin.split("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"
