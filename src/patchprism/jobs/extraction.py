"""Extract the tokens of any number of photos, shard by shard, in bounded memory; an interrupted run can be resumed.

Only the list of photos is held in memory and grows with their number. Work in progress is kept in one folder, which
is removed at the end. If the same job is started again, it uses the completed shards in this folder.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING

from patchprism.errors import EngineError, PhotoError
from patchprism.jobs.engines import WorkerLost
from patchprism.jobs.run import no_progress
from patchprism.jobs.source import SHARD, Failure, digest
from patchprism.jobs.tasks import ExtractTask, PhotoRun, ProbeTask
from patchprism.photos.isolated import IsolatedReader, isolated
from patchprism.photos.sources import SourceReader, fetch_source, stamp_of
from patchprism.support.version import __version__
from patchprism.support.words import none_could

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patchprism.jobs.engines import Engine
    from patchprism.jobs.network import Network
    from patchprism.jobs.run import Reader, Tell
    from patchprism.jobs.shards import Shards, Table
    from patchprism.support.reading import Note


_JOB_VERSION = 1


@dataclass(eq=False)
class Extraction:
    """Runs the network over photos, shard by shard, and skips the shards that are committed."""

    names: list[str]
    network: Network
    shards: Shards
    engine: Engine
    _: KW_ONLY
    batch_size: int | None = None
    tell: Tell = no_progress
    _photos: int = field(default=0, init=False)
    _ahead: int = field(default=0, init=False)
    _keys: dict[int, str] = field(default_factory=dict, init=False)

    @property
    def basis(self) -> str:
        """Digest of everything that tokens depend on, except the photos."""
        network = self.network
        batch = self.batch_size or network.batch_patches
        return digest(_JOB_VERSION, network.origin, network.settings, self.shards.dtype, batch)

    @property
    def identity(self) -> str:
        """Digest of all that the tokens of all photos depend on; it stays the same when photos are copied."""
        return digest(
            self.basis, [self._photos_key(shard, exact=False) for shard in range(self.shards.n_shards)]
        )

    def key(self, shard: int) -> str:
        """Digest of all that a shard's tokens depend on; it differs if the file of a photo has changed.

        It does not change during a run, even if photos change.
        """
        if shard not in self._keys:
            self._keys[shard] = digest(__version__, self.basis, self._photos_key(shard, exact=True))
        return self._keys[shard]

    def _photos_key(self, shard: int, *, exact: bool) -> str:
        return digest([(name, stamp_of(name, exact=exact)) for name in self._names(shard)])

    def run(
        self,
        *,
        committed: Callable[[int, str], Table | None] | None = None,
        done: Callable[[int, Table], None] = lambda shard, table: None,
    ) -> None:
        """Process all shards that are not done.

        Parameters
        ----------
        committed : callable, optional
            Takes a shard and its key, and returns its table if the shard need not be done again.
        done : callable, optional
            Called with every shard and its table when it is found or done.

        Raises
        ------
        EngineError
            If workers die repeatedly, although none of the photos crashes a worker that only reads it.
        """
        lost: list[PhotoRun] = []

        def todo() -> Iterator[PhotoRun]:
            for shard in range(self.shards.n_shards):
                key = self.key(shard)
                table = (committed or self._committed)(shard, key)
                if table is not None:
                    self._done(shard, table, done)
                else:
                    yield PhotoRun(shard, key, self._names(shard))

        self._photos = self._ahead = 0
        self.tell("photos", 0, len(self.names))
        # A photo may crash a worker of a cluster, but must not crash this process.
        with self._reading() as reader:
            task = ExtractTask(
                self.network.load,
                self.network.framing,
                self.shards,
                batch_size=self.batch_size,
                batch_patches=self.network.batch_patches,
                reader=reader,
                options=self.network.options,
                seen=self._seen if self.engine.local else None,
            )
            for run, result in self.engine.map(task, todo()):
                if isinstance(result, WorkerLost):
                    lost.append(run)
                else:
                    self._done(run.shard, result, done)
        for run, result in self.engine.map(task, self._without_killers(lost)) if lost else ():
            if isinstance(result, WorkerLost):
                raise EngineError(
                    f"workers died repeatedly while working on photos {run.shard * SHARD + 1} to "
                    f"{run.shard * SHARD + len(run.names)}: {result.reason}"
                )
            self._done(run.shard, result, done)

    def _reading(self) -> AbstractContextManager[Reader]:
        if not self.engine.local:
            return nullcontext(self.shards.reader)
        if isinstance(self.shards.reader, SourceReader):
            return IsolatedReader(self.shards.reader.decode, fetch=fetch_source)
        return isolated(self.shards.reader)

    def _without_killers(self, lost: list[PhotoRun]) -> list[PhotoRun]:
        """The shards again, without the photos that crash a worker that only reads them."""
        probe = ProbeTask(self.network.framing, self.shards.reader)
        # Twice, because the first worker may have been lost for another reason.
        photos = [name for run in lost for name in run.names]
        killers = {
            name: f"crashed the process that was reading it ({result.reason})"
            for name, result in self.engine.map(probe, photos, attempts=2)
            if isinstance(result, WorkerLost)
        }
        return [
            replace(run, excluded={i: killers[n] for i, n in enumerate(run.names) if n in killers})
            for run in lost
        ]

    def _done(self, shard: int, table: Table, done: Callable[[int, Table], None]) -> None:
        count = len(table.photos) + len(table.failures)
        self._photos += count
        self._ahead = max(0, self._ahead - count)
        self.tell("photos", self._photos + self._ahead, len(self.names))
        done(shard, table)

    def _seen(self) -> None:
        """Report the progress of each photo, because a shard may take minutes."""
        self._ahead += 1
        self.tell("photos", self._photos + self._ahead, len(self.names))

    def _committed(self, shard: int, key: str) -> Table | None:
        table = self.shards.load(shard, key)
        return table if table is not None and self.shards.has_tokens(shard, table) else None

    def _names(self, shard: int) -> list[str]:
        return self.names[shard * SHARD : (shard + 1) * SHARD]


def n_shards(photos: int) -> int:
    """Number of shards for this many photos."""
    return -(-photos // SHARD)


def failures_of(shards: Shards) -> list[Failure]:
    """Photos of all shards that failed, in their order.

    Raises
    ------
    PhotoError
        If all of them failed.
    """
    failures, any_photo = [], False
    for shard in range(shards.n_shards):
        table = shards.table(shard)
        failures += table.failures
        any_photo = any_photo or bool(table.photos)
    if not any_photo:
        raise PhotoError(failures[0].photo, none_could(failures[0].reason, len(failures)))
    return failures


def notes_of(shards: Shards) -> list[Note]:
    """Notes about the photos of all shards, in their order."""
    return [note for shard in range(shards.n_shards) for note in shards.table(shard).notes]
