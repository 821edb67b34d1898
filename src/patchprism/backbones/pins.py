"""Our cache, and the recorded SHA-256 of the files in it and in other caches. Loads no torch.

When a file of weights that the user does not name is first loaded, its SHA-256 is recorded, and every later load is
compared with it. The record (pin) is beside the file in our own cache, and under ``pins`` for files in other caches.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from patchprism.errors import OutputError, WeightsError
from patchprism.support.files import atomic_write


def cache_dir() -> Path:
    """Folder of our own downloads: ``$PATCHPRISM_CACHE``, else ``~/.cache/patchprism``."""
    if os.environ.get("PATCHPRISM_CACHE"):
        return Path(os.environ["PATCHPRISM_CACHE"]).expanduser()
    return user_cache() / "patchprism"


def user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; 1.5 to 2 GB/s, so 50 ms for ViT-S and 3 s for ViT-g."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error


def foreign_pin(path: Path) -> Path:
    """Where the SHA-256 of a file in another cache is recorded."""
    key = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    return cache_dir() / "pins" / f"{path.name[:80]}-{key}.sha256"


def pinned(path: Path, pin: Path) -> str:
    """SHA-256 of a file, compared with the recorded one; recorded if there is none."""
    digest = sha256_of(path)
    try:
        recorded = pin.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        recorded = []
    if not recorded:
        # If the home folder cannot be written, the job still runs, but later loads cannot be compared.
        with suppress(OSError, OutputError):
            write_pin(pin, digest, path.name)
    elif recorded[0] != digest:
        raise WeightsError(
            f"{path}: its SHA-256 is {digest[:12]}..., but {recorded[0][:12]}... was recorded for it. "
            f"If it is damaged, delete it to fetch it again; if you replaced it on purpose, delete {pin}"
        )
    return digest


def write_pin(pin: Path, digest: str, name: str) -> None:
    """Write the line that ``sha256sum --check`` reads."""
    pin.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(pin) as part:
        part.write_text(f"{digest}  {name}\n", encoding="utf-8")
