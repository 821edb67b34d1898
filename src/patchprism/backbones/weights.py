"""Find weights, download them, and check at every load that they have not changed. Loads no torch.

They are looked for in this order: what the user names, torch.hub's cache, our cache, the official address.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.backbones import packaged
from patchprism.backbones.catalog import DINOV2_URL
from patchprism.backbones.pins import cache_dir, foreign_pin, pinned, sha256_of, user_cache, write_pin
from patchprism.backbones.record import WeightsOrigin
from patchprism.errors import ExtraError, WeightsError
from patchprism.support.folders import address_text, is_remote, local_path, system_reason

if TYPE_CHECKING:
    from patchprism.backbones.record import BackboneRecord, Progress


def _torch_hub_dir() -> Path:
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else user_cache() / "torch") / "hub" / "checkpoints"


def official_url(record: BackboneRecord) -> str:
    """Address of a model's weights; ``$PATCHPRISM_DINOV2_URL`` replaces the official base, for a mirror."""
    mirror = os.environ.get("PATCHPRISM_DINOV2_URL")
    return record.source.replace(DINOV2_URL, mirror.rstrip("/"), 1) if mirror else record.source


def locate_weights(record: BackboneRecord) -> Path | None:
    """The file of a model's weights if it is on this machine already. Uses no network, and does not check the file.

    Parameters
    ----------
    record : BackboneRecord

    Returns
    -------
    Path or None
    """
    if record.family in packaged.FAMILIES:
        try:
            return packaged.packaged_file(record)
        except ExtraError:
            return None
    file = record.source.rsplit("/", 1)[1]
    candidates = (_torch_hub_dir() / file, cache_dir() / "weights" / file)
    here = next((path for path in candidates if path.is_file()), None)
    if here is None and record.open_repo:
        from patchprism.backbones.hub_weights import cached_copy

        here = cached_copy(record)
    return here


def obtain_weights(
    record: BackboneRecord,
    weights: str | os.PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
    download: bool = True,
) -> WeightsOrigin:
    """Find a model's weights, download them if necessary, and check their SHA-256.

    Parameters
    ----------
    record : BackboneRecord
    weights : str or os.PathLike, optional
        A file, an ``http(s)://`` address or ``hf:REPO[@REVISION]``.
    progress : callable, optional
        As in ``load_backbone``.
    download : bool
        Whether the network may be used.

    Returns
    -------
    WeightsOrigin
        Its ``path`` is a file that exists.

    Raises
    ------
    WeightsError, ExtraError
        If they cannot be found, fetched or trusted, or come in a package that is not installed.
    """
    if weights is not None:
        weights = address_text(weights)
        if weights.startswith("hf:"):
            from patchprism.backbones.hub_weights import from_repo

            return from_repo(weights, download=download)
        if weights.startswith(("http://", "https://")):
            return _from_url(record, weights, _name_for(weights), progress=progress, download=download)
        if is_remote(weights):
            raise WeightsError(
                f"weights {weights!r}: must be a file, an http or https address, or hf:REPO; copy the file to "
                "this machine"
            )
        is_repo = re.fullmatch(r"[\w.-]+/[\w.-]+", weights) and not Path(weights).parent.exists()
        hint = f"a repository on the Hugging Face hub is hf:{weights}" if is_repo else ""
        return origin_of_file(weights, hint)
    if record.family in packaged.FAMILIES:
        return packaged.packaged_weights(record)
    url = official_url(record)
    file = record.source.rsplit("/", 1)[1]
    path = _torch_hub_dir() / file
    if path.is_file():
        return WeightsOrigin(source=url, path=str(path), sha256=pinned(path, foreign_pin(path)))
    if record.open_repo and not (cache_dir() / "weights" / file).is_file():
        from patchprism.backbones.hub_weights import from_copies

        return from_copies(record, progress=progress, download=download)
    return _from_url(record, url, file, progress=progress, download=download)


def origin_of_file(weights: str, hint: str) -> WeightsOrigin:
    """The origin of weights in a file of the user; the hint is for the error if the file is missing."""
    path = local_path(weights).expanduser()
    try:
        path.stat()
    except FileNotFoundError:
        pass  # the hint is for it
    except OSError as error:  # a name that is too long, for example
        reason = system_reason(error)
        raise WeightsError(f"weights {weights!r}: cannot be read ({reason})") from error
    if path.is_dir():
        from patchprism.backbones.checkpoint import folder_of_weights

        raise WeightsError(f"weights {weights!r}: {folder_of_weights(path)}")
    if not path.is_file():
        raise WeightsError(f"weights {weights!r}: no such file{hint and f'; {hint}'}")
    return WeightsOrigin(source=str(path), path=str(path), sha256=sha256_of(path))


def _from_url(
    record: BackboneRecord, url: str, file: str, *, progress: Progress | None, download: bool
) -> WeightsOrigin:
    path = cache_dir() / "weights" / file
    pin = path.with_name(path.name + ".sha256")
    if not os.path.isfile(path):
        from patchprism.backbones.download import OfflineError, fetch

        def on_complete(part: Path) -> None:
            write_pin(pin, sha256_of(part), path.name)

        try:
            if not download:
                raise OfflineError("downloads are switched off")
            fetch(url, path, on_complete=on_complete, progress=progress)
        except OfflineError as error:
            raise WeightsError(
                f"the weights of {record.name} are not on this machine, and {url} cannot be reached "
                f"({error}). Download that file elsewhere and give it with weights='FILE'; or run `patchprism "
                f"download {record.name}` when there is a network; or use model='focus_vits14' or "
                "model='efficientnet_lite2', which need no download"
            ) from error
    return WeightsOrigin(source=url, path=str(path), sha256=pinned(path, pin))


def _name_for(url: str) -> str:
    # The hash is needed because two addresses may end in the same file name.
    base = url.split("?", 1)[0].split("#", 1)[0].rsplit("/", 1)[1]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{base[:100] or 'weights'}"
