"""Weights in ``model.safetensors`` of a repository on the Hugging Face hub. Loads no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.backbones.catalog import DINOV3_LICENCE
from patchprism.backbones.hub_files import check_blob, hub_answers
from patchprism.backbones.pins import foreign_pin, pinned
from patchprism.backbones.record import WeightsOrigin
from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from patchprism.backbones.record import BackboneRecord, Progress

_FILE = "model.safetensors"


def from_repo(weights: str, *, download: bool) -> WeightsOrigin:
    """The weights that ``hf:REPO[@REVISION]`` names.

    Raises
    ------
    WeightsError
        If the name is malformed, or the file is neither in the hub's cache nor can be fetched.
    """
    repo, _, revision = weights.removeprefix("hf:").partition("@")
    answers = download and hub_answers()
    try:
        return _origin(repo, _fetched(repo, revision or None, download=answers))
    except WeightsError:
        raise
    except ValueError as error:  # the repository's name is malformed
        raise WeightsError(f"weights {weights!r}: must be hf:OWNER/NAME or hf:OWNER/NAME@REVISION") from error
    # The client of the hub also raises the errors of its HTTP library, which differs between major versions, so no
    # narrower class can be named.
    except Exception as error:
        reason = "it cannot be reached, and the file is not in the local cache"
        if answers:
            reason = _first_line(error)
        raise WeightsError(
            f"weights {weights!r}: could not be fetched from the Hugging Face hub ({reason})"
        ) from error


def cached_copy(record: BackboneRecord) -> Path | None:
    """The file of a record's weights in the hub's cache: that of the open copy, or of the gated original."""
    from huggingface_hub import try_to_load_from_cache

    for repo in (record.open_repo, record.hub_repo):
        found = try_to_load_from_cache(repo, _FILE)
        if isinstance(found, str):
            return Path(found)
    return None


def from_copies(record: BackboneRecord, *, progress: Progress | None, download: bool) -> WeightsOrigin:
    """A record's weights from the hub's cache, else from the open copy, else from the gated original.

    Raises
    ------
    WeightsError
        If none of these has them; the message says what to do.
    """
    path = cached_copy(record)
    if path is not None:
        repo = next(each for each in (record.open_repo, record.hub_repo) if _folder(each) in path.parts)
        return _origin(repo, path)
    by_hand = (
        f"get Meta's {record.source.rsplit('/', 1)[1]}, or {_FILE} of "
        f"https://huggingface.co/{record.open_repo}, by other means and give it with weights='FILE'"
    )
    if not (download and hub_answers()):
        raise WeightsError(
            f"the weights of {record.name} are not on this machine, and the Hugging Face hub cannot be "
            f"reached. Either run `patchprism download {record.name}` when there is a network, or "
            f"{by_hand}"
        )
    reasons = {}
    for repo in (record.open_repo, record.hub_repo):
        if progress:
            progress(f"fetching hf:{repo}", 0, None)
        try:
            origin = _origin(repo, _fetched(repo, None, download=True))
        except WeightsError:
            raise
        except Exception as error:  # as above
            reasons[repo] = _reason(error)
            continue
        return replace(
            origin,
            notice=f"the weights of {record.name} are under Meta's {record.licence}, which you accept by using them: "
            f"{DINOV3_LICENCE}",
        )
    tried = " and ".join(f"hf:{repo} ({reason})" for repo, reason in reasons.items())
    raise WeightsError(
        f"the weights of {record.name} are not on this machine, and could not be fetched from "
        f"{tried}. Either accept the licence at https://huggingface.co/{record.hub_repo}, run `hf "
        f"auth login` and repeat the command, or {by_hand}"
    )


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(error, GatedRepoError):
        return "only for people who accepted its licence"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository, or a private one"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def _folder(repo: str) -> str:
    """Name of a repository's folder in the hub's cache."""
    return f"models--{repo.replace('/', '--')}"


def _fetched(repo: str, revision: str | None, *, download: bool) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repo, _FILE, revision=revision, local_files_only=not download))


def _origin(repo: str, path: Path) -> WeightsOrigin:
    """Where a file of the hub's cache came from; its SHA-256 is checked.

    Raises
    ------
    WeightsError
        If the file is damaged.
    """
    blob = path.resolve()
    digest = pinned(blob, foreign_pin(blob))
    check_blob(blob, digest)
    return WeightsOrigin(source=f"hf:{repo}@{path.parent.name}", path=str(path), sha256=digest)
