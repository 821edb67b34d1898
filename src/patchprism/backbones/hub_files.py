"""The files of a model on the Hugging Face hub, or in a folder of the same layout. Loads no torch.

All files of a model are of one commit: the first file determines it, and the others are requested at that commit.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchprism.backbones.pins import sha256_of
from patchprism.backbones.record import WeightsOrigin
from patchprism.errors import ModelError, WeightsError

if TYPE_CHECKING:
    from patchprism.backbones.record import Progress

PREFIX = "hf:"
# Timeout of a request to the hub, and the longest wait for it. A DNS resolver, or a server with many addresses, may
# take half a minute to give up, because the timeout of the request does not limit it.
_TIMEOUT_S, _PATIENCE_S = 4.0, 5.0
_ANSWER_HOLDS_S = 60
# Files that state how photos are normalised; newer versions of transformers write the second.
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# In order of preference: safetensors contain only tensors, and the others are read with weights_only.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@dataclass(frozen=True)
class HubModel:
    """A model's files.

    Attributes
    ----------
    name : str
        As the user gave it, with ``hf:``.
    folder : Path
        Folder of its files; in the hub's cache, the folder of one commit.
    source : str
        Folder, or ``hf:REPO@COMMIT``.
    repo : str
        Repository on the hub; empty for a user's folder.
    download : bool
        Whether files may be downloaded.
    """

    name: str
    folder: Path
    source: str
    repo: str = ""
    download: bool = True

    def file(self, file: str) -> Path | None:
        """Path of one of its files, downloaded if necessary; None if the model has no such file."""
        if not self.repo:
            path = self.folder / file
            return path if path.is_file() else None
        return fetch_file(self.name, self.repo, self.folder.name, file, download=self.download)

    def json(self, file: str) -> dict[str, Any] | None:
        """Contents of a JSON file; None if it is missing.

        Raises
        ------
        ModelError
            If it is not a JSON object.
        """
        path = self.file(file)
        if path is None:
            return None
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{self.name}: {file} cannot be read as JSON ({error})") from error
        if not isinstance(content, dict):
            raise ModelError(f"{self.name}: {file} must hold a JSON object, got {type(content).__name__}")
        return content

    def weights(self, progress: Progress | None = None) -> WeightsOrigin:
        """Its weights, downloaded if necessary.

        If the model is in several files, the SHA-256 is that of their SHA-256s in the order of their names.

        Raises
        ------
        WeightsError
            If a file is missing, cannot be fetched, or is not what the hub says it is.
        """
        if progress:
            progress(f"fetching {self.name}", 0, None)
        first = next((path for file in WEIGHT_FILES if (path := self.file(file))), None)
        if first is None:
            if self.repo and is_offline(self.download and hub_answers()):
                raise WeightsError(unreachable(self.name))
            raise WeightsError(f"{self.name}: it has no {' or '.join(WEIGHT_FILES[::2])}")
        paths = [first]
        if first.name.endswith(".index.json"):
            shards = (self.json(first.name) or {}).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise WeightsError(f"{self.name}: {first.name} has no weight_map")
            paths = []
            for file in sorted(set(map(str, shards.values()))):
                # A name with folders in it could lead out of the folder of the model.
                path = self.file(file) if file == Path(file).name else None
                if path is None:
                    raise WeightsError(f"{self.name}: {file}, which {first.name} names, is missing")
                paths.append(path)
        digests = [self.check(path) for path in paths]
        digest = digests[0]
        if len(digests) > 1:
            digest = hashlib.sha256("".join(digests).encode()).hexdigest()
        return WeightsOrigin(source=self.source, path=str(first), sha256=digest)

    def check(self, path: Path) -> str:
        """SHA-256 of one of its files, compared with the one that the hub states.

        Raises
        ------
        WeightsError
            If they differ.
        """
        digest = sha256_of(path)
        if self.repo:
            check_blob(path.resolve(), digest)
        return digest


def check_blob(blob: Path, digest: str) -> None:
    """Refuse a file of the hub's cache whose SHA-256 is not the one that its publisher states.

    Raises
    ------
    WeightsError
        If they differ.
    """
    # The cache names large files by that SHA-256, and small ones by a shorter hash.
    if len(blob.name) == len(digest) and blob.name != digest:
        raise WeightsError(f"{blob}: damaged (SHA-256 {digest}); delete it to fetch it again")


def open_model(name: str, *, download: bool = True) -> HubModel:
    """The model that ``hf:REPO_OR_DIR[@REVISION]`` names, with its ``config.json`` downloaded.

    Raises
    ------
    ModelError
        If there is no such folder or repository, or it has no ``config.json``.
    WeightsError
        If the hub cannot be reached and the model is not in its cache.
    """
    text = name.removeprefix(PREFIX)
    folder = Path(os.path.expanduser(text))
    if not text:
        raise ModelError(f"model {name!r}: must be hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:FOLDER")
    if folder.is_dir():
        model = HubModel(name=name, folder=folder, source=str(folder))
        if model.file("config.json") is None:
            raise ModelError(f"{name}: config.json is missing in that folder")
        return model
    if text.startswith(("/", ".", "~")) or folder.exists():
        what = "is a file; give its folder" if folder.exists() else "no such folder"
        raise ModelError(f"model {name!r}: {what}")
    repo, _, revision = text.partition("@")
    config = fetch_file(name, repo, revision or None, "config.json", download=download)
    if config is None:
        raise ModelError(f"{name}: config.json is missing, so it is not a model that transformers can read")
    commit = config.parent.name
    return HubModel(
        name=name, folder=config.parent, source=f"{PREFIX}{repo}@{commit}", repo=repo, download=download
    )


def fetch_file(name: str, repo: str, revision: str | None, file: str, *, download: bool) -> Path | None:
    """Path of a repository's file in the hub's cache, downloaded if necessary; None if there is no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cached = _cached(repo, revision, file)
    if cached is not None:
        return cached
    download = download and hub_answers()
    try:
        return Path(hf_hub_download(repo, file, revision=revision, local_files_only=not download))
    except HFValidationError as error:
        raise ModelError(
            f"model {name!r}: must be hf:OWNER/NAME, hf:OWNER/NAME@REVISION or hf:FOLDER"
        ) from error
    except GatedRepoError as error:
        raise WeightsError(
            f"{name}: access needs the consent of its owner; accept the terms on its page at "
            "huggingface.co, then run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{name}: no such repository on the Hugging Face hub, or it is private") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name}: no such revision of that repository") from error
    except LocalEntryNotFoundError as error:
        # Neither in the cache nor reachable. Only the first file shows whether the model is on this machine at all.
        if file != "config.json" and is_offline(download):
            return None
        raise WeightsError(unreachable(name)) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise WeightsError(f"{unreachable(name)} ({reason})") from error


def _cached(repo: str, revision: str | None, file: str) -> Path | None:
    """A cached file of a fixed commit. Branches can change, so they are checked again."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if revision is None or len(revision) != 40:
        return None
    try:
        found = try_to_load_from_cache(repo, file, revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def hub_answers() -> bool:
    """Whether the hub can be reached now. Asked at most once a minute; the hub's own client would retry for longer."""
    if is_offline():
        return False
    return _hub_answers(int(time.monotonic()) // _ANSWER_HOLDS_S)


@functools.lru_cache(maxsize=1)
def _hub_answers(period: int) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    answers: list[object] = []

    def ask() -> None:
        # Each major version of the hub's client uses another HTTP library, with other errors. Any answer of the
        # server is enough.
        with suppress(Exception):
            answers.append(get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE_S)
    return bool(answers)


def is_offline(download: bool = True) -> bool:
    """Whether the hub must not be asked: downloads are off, or ``HF_HUB_OFFLINE`` is set."""
    from huggingface_hub import constants

    return not download or bool(constants.HF_HUB_OFFLINE)


def unreachable(name: str) -> str:
    """Advice for a model that is neither on this machine nor reachable."""
    return (
        f"{name} is not in the Hugging Face cache, and the hub cannot be reached; run `patchprism "
        f"download {name}` when there is a network, or give a folder that holds the model's files "
        "(hf:FOLDER)"
    )
