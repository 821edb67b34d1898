"""Work folders: held by one job at a time, kept for the next run, taken away at the end."""

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
from patchprism.support.folders import ENDING, LOCK, MARKER, LocalFolder

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
    """A work folder that this job alone works in.

    Attributes
    ----------
    ended : bool
        Whether the folder is taken away when the job lets go of it.
    """

    def __init__(self) -> None:
        self.ended = False

    def end(self) -> None:
        """Have the folder taken away: there is nothing in it that another run could use."""
        self.ended = True


@contextmanager
def working(folder: Folder, name: str) -> Iterator[Held]:
    """Hold the work folder of an output of that name: a second job on it is refused, on this machine at least.

    A job that has ended takes its folder away before it lets go of it. One that begins in the meantime waits.
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
        # Temporary files, also those of killed processes; complete files are moved out of here.
        folder.remove("tmp")
        try:
            yield held
        finally:
            if held.ended:
                with suppress(OSError):  # then others are refused rather than made to wait
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
            continue  # the job that has just ended took the folder away
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(name, (error.strerror or str(error)).lower()) from error
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
            raise OutputError(
                name, f"its work folder cannot be locked: {(error.strerror or str(error)).lower()}"
            ) from error
        except BaseException:
            lock.close()
            raise
        lock.close()  # the folder was removed; another one has been created since, or must be
    raise OutputError(name, "its work folder cannot be made")


def _empty(folder: LocalFolder) -> None:
    """Take away all in a work folder but what others may be waiting for."""
    for path in folder.path.iterdir():
        if path.name not in (LOCK, ENDING, MARKER):
            folder.remove(path.name)


@contextmanager
def tidied(work: Folder, held: Held) -> Iterator[None]:
    """Take the work away after a failure that leaves nothing to take up: tokens are kept for another threshold, say.

    For use within ``working``: the work of a run that is still at it is not ours to take away. What is there
    decides, and not what has failed.
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
