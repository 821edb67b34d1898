"""Work folders: held by one job at a time, kept if the job is interrupted, removed at its end."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from patchprism.errors import OutputError, PatchPrismError
from patchprism.jobs.network import MODEL_FILE
from patchprism.jobs.shards import Shards
from patchprism.jobs.source import digest
from patchprism.support.folders import ENDING, LOCK, MARKER, LocalFolder, system_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchprism.jobs.network import Network
    from patchprism.support.folders import Folder


fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


_LOCK_ATTEMPTS = 100


class Held:
    """A work folder that only this job uses.

    Attributes
    ----------
    ended : bool
        Whether the folder is removed when the job releases it.
    """

    def __init__(self) -> None:
        self.ended = False

    def end(self) -> None:
        """Let the folder be removed, because it contains nothing that another run could use."""
        self.ended = True


@contextmanager
def working(folder: Folder, name: str) -> Iterator[Held]:
    """Hold the work folder of the output of that name; a second job on this machine is refused.

    A job that has ended removes its folder before it releases it, and a job that starts in the meantime waits.
    """
    held = Held()
    if not isinstance(folder, LocalFolder) or fcntl is None:
        if isinstance(folder, LocalFolder):
            folder.make_work()
            folder.refuse_links()
        try:
            yield held
        finally:
            if held.ended:
                folder.remove("")
        return
    with _locked(folder, name):
        folder.refuse_links()
        if (folder.path / ENDING).exists():  # the job was killed after it had ended
            _empty(folder)
        # These are temporary files of killed processes; complete files are moved out of this folder.
        folder.remove("tmp")
        try:
            yield held
        finally:
            if held.ended:
                with suppress(OSError):  # without this file, other jobs are refused instead of waiting
                    (folder.path / ENDING).touch()
                # The lock is removed last, so that no other job can start in this folder while it is being removed.
                _empty(folder)
                folder.remove("")


def _locked(folder: LocalFolder, name: str) -> IO[bytes]:
    """The lock of a work folder, open and held."""
    path = folder.path / LOCK
    for _ in range(_LOCK_ATTEMPTS):
        try:
            folder.make_work()
            lock = folder.open_lock()
        except FileNotFoundError:
            continue  # the job that has just ended removed the folder
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(name, system_reason(error)) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if not (folder.path / ENDING).exists():
                    raise OutputError(name, "another patchprism process is working on it") from error
                fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(path)):
                return lock
        except FileNotFoundError:
            pass
        except OSError as error:
            lock.close()
            raise OutputError(name, f"its work folder cannot be locked: {system_reason(error)}") from error
        except BaseException:
            lock.close()
            raise
        lock.close()  # it is the lock of a folder that was removed, so the present folder must be locked
    raise OutputError(name, "its work folder cannot be created")


def _empty(folder: LocalFolder) -> None:
    """Remove everything in a work folder except the files that other jobs may be waiting for."""
    for path in folder.path.iterdir():
        if path.name not in (LOCK, ENDING, MARKER):
            folder.remove(path.name)


@contextmanager
def tidied(work: Folder, held: Held) -> Iterator[None]:
    """Remove the work folder after a failure if it contains no tokens that another run could use.

    It must be used within ``working``, so that the work of a running job is never removed. The contents of the folder
    decide, not the kind of failure.
    """
    try:
        yield
    except PatchPrismError:
        shards = Shards(work, 0, "float32")
        tables = (shards.load(shard) for shard in sorted(shards.committed()))
        if not any(table is not None and table.photos for table in tables):
            held.end()
        raise


def remembered_batch(work: Folder, network: Network) -> Network:
    """The network with the batch size of the resumed run, because another one could change the last bit of tokens."""
    work.write(MODEL_FILE, json.dumps({"model": network.record.name}).encode())
    if network.batch_patches is None:
        return network
    key = digest(network.origin, network.settings)
    try:
        found = json.loads(work.read("batch.json"))
        patches = found["patches"]
        if type(patches) is int and patches > 0 and found["key"] == key:
            return replace(network, batch_patches=patches)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    work.write("batch.json", json.dumps({"patches": network.batch_patches, "key": key}).encode())
    return network
