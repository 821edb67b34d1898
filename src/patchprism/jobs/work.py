"""Jobs of any size: photos or a store in; shards of tokens, a prism or a store out, in bounded memory, resumable.

The list of photos is held, and no more than that grows with it. Work in progress lies in one folder, which is
taken away at the end; the same job, begun again, uses what is committed there.
"""

from __future__ import annotations

import itertools
import json
import os
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any, cast

from patchprism.backbones import find_record, load_backbone
from patchprism.backbones.base import resolve_device, resolve_dtype
from patchprism.backbones.weights import obtain_weights
from patchprism.errors import EngineError, OutputError, PhotoError
from patchprism.features.batching import patches_a_batch, patches_for
from patchprism.jobs.engines import WorkerLost
from patchprism.jobs.settings import describe_origin
from patchprism.jobs.shards import SHARD, Lost, Shards, Table, digest
from patchprism.jobs.tasks import ExtractTask, FoldTask, PhotoRun, ProbeTask
from patchprism.photos.isolated import IsolatedReader, isolated
from patchprism.photos.sources import SourceReader, fetch_source, read_source, stamp_of
from patchprism.support.folders import ENDING, LOCK, MARKER, LocalFolder
from patchprism.support.memory import free_memory
from patchprism.support.version import __version__
from patchprism.support.words import none_could

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone, BackboneRecord, WeightsOrigin
    from patchprism.features.extraction import TokenOptions
    from patchprism.jobs.engines import Engine
    from patchprism.jobs.settings import Settings
    from patchprism.jobs.shards import Source
    from patchprism.photos.framing import Framing
    from patchprism.prism.estimator import Prism
    from patchprism.prism.passes import PassT, Walk
    from patchprism.support.folders import Folder
    from patchprism.support.reading import Note

    Tell = Callable[[str, int, int | None], None]
    Reader = Callable[[str], NDArray[np.uint8]]

# Passes are folded in at most so many runs of shards, whatever the engine: the runs decide the order of
# additions, and with it the last bit. Each gives D x D numbers, which is what travels and is merged.
FOLDS = 256

_JOB_VERSION = 1

# In a work folder: what is locked, and what says that the job has ended and the folder is being taken away.
_LOCK_ATTEMPTS = 100


def nobody(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""


# ---------------------------------------------------------------- the network


@dataclass(frozen=True)
class Network:
    """A backbone that is known, but not loaded yet.

    Attributes
    ----------
    record, weights, framing
        Of the backbone, and of photos for it.
    origin : dict
        What a prism keeps.
    load : callable
        Gives the backbone; can be pickled unless it was loaded here.
    batch_patches : int or None
        Patches a batch on this machine; None where workers find it out for themselves.
    options : TokenOptions
        Which of the backbone's tokens are taken.
    settings : dict
        Every setting that tokens may depend on.
    """

    record: BackboneRecord
    weights: WeightsOrigin
    framing: Framing
    origin: dict[str, Any]
    load: Callable[[], Backbone]
    batch_patches: int | None
    options: TokenOptions
    settings: dict[str, Any]


def open_network(settings: Settings, *, backbone: Backbone | None, engine: Engine, tell: Tell) -> Network:
    """The network that resolved settings name: its weights found or fetched, the rest left to the workers."""
    options = settings.token_options()
    said = settings.for_tokens()
    if engine.local:  # what "auto" means; elsewhere only the workers know
        said["device"] = resolve_device(settings.device).type
    if backbone is not None:
        framing = settings.framing(backbone.record)
        # What the model does not say was given, and is kept with the tokens.
        record = replace(
            backbone.record,
            mean=backbone.record.mean or framing.mean,
            std=backbone.record.std or framing.std,
        )
        origin = describe_origin(backbone, settings, framing)
        patches = patches_a_batch(backbone) if engine.local else None
        return Network(
            record,
            backbone.weights,
            framing,
            origin,
            partial(_same, backbone),
            patches,
            options,
            said,
        )
    load = partial(
        load_backbone,
        str(settings.model),
        weights=settings.weights,
        device=settings.device,
        dtype=settings.dtype or "auto",
    )
    if ":" in str(settings.model) or settings.layer not in (None, -1) or settings.weights is not None:
        # What an adapter brings, how many layers there are, and what a file of the user's holds, only the
        # network itself knows.
        opened = open_network(settings, backbone=load(), engine=engine, tell=tell)
        return opened if engine.local else replace(opened, load=load)
    record = find_record(str(settings.model))
    framing = settings.framing(record)
    dtype = resolve_dtype(settings.dtype or "auto")
    weights = obtain_weights(record, settings.weights, progress=tell)
    origin = describe_origin(cast("Backbone", _Described(record, weights, dtype)), settings, framing)
    if not engine.local:
        return Network(record, weights, framing, origin, load, None, options, said)
    device = resolve_device(settings.device)
    if device.type == "cuda":
        loaded = load()
        return Network(
            record, weights, framing, origin, partial(_same, loaded), patches_a_batch(loaded), options, said
        )
    patches = patches_for(record, kind=device.type, itemsize=dtype.itemsize, free=free_memory())
    return Network(record, weights, framing, origin, load, patches, options, said)


@dataclass(frozen=True)
class _Described:
    """As much of a backbone as ``describe_origin`` asks for where the last layer is wanted."""

    record: BackboneRecord
    weights: WeightsOrigin
    dtype: torch.dtype
    depth: int = 1

    def layer_index(self, layer: int) -> int:
        """The last layer's."""
        assert layer == -1
        return 0


def _same(backbone: Backbone) -> Backbone:
    return backbone


# ---------------------------------------------------------------- work in progress


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
        # What a killed process had half written; whole files are renamed out of here.
        folder.remove("tmp")
        try:
            yield held
        finally:
            if held.ended:
                with suppress(OSError):  # then others are refused rather than made to wait
                    (folder.path / ENDING).touch()
                # The lock goes last: nobody else may begin in this folder while anything is left to take away.
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
                    raise OutputError(name, "another patchprism is at work on it") from error
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
        lock.close()  # of a folder that is gone: another one has been made since, or must be
    raise OutputError(name, "its work folder cannot be made")


def _empty(folder: LocalFolder) -> None:
    """Take away all in a work folder but what others may be waiting for."""
    for path in folder.path.iterdir():
        if path.name not in (LOCK, ENDING, MARKER):
            folder.remove(path.name)


def remembered_batch(work: Folder, network: Network) -> Network:
    """The network with the batch of the run that is taken up: another batch moves the last bit of the tokens."""
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


class Extraction:
    """Runs the network over photos, shard by shard, skipping those that are committed.

    Parameters
    ----------
    names : list of str
    network : Network
    shards : Shards
    engine : Engine
    batch_size : int, optional
    reader : callable
    tell : callable
    """

    def __init__(
        self,
        names: list[str],
        network: Network,
        shards: Shards,
        engine: Engine,
        *,
        batch_size: int | None = None,
        reader: Reader = read_source,
        tell: Tell = nobody,
    ) -> None:
        self.names, self.network, self.shards, self.engine = names, network, shards, engine
        self.batch_size, self.reader, self.tell = batch_size, reader, tell
        self._photos = self._ahead = 0
        self._keys: dict[int, str] = {}

    @property
    def basis(self) -> str:
        """Digest of all that tokens depend on, but for the photos."""
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
        """Digest of all that a shard's tokens depend on; a photo counts as another one when its file has changed.

        It stays the same through a run, whatever happens to the photos.
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
        """Do all shards that are not done.

        Parameters
        ----------
        committed : callable, optional
            A shard and its key -> its table, if there is no need to do it again.
        done : callable, optional
            Told of every shard as it is found or done.

        Raises
        ------
        EngineError
            If workers die over a shard whose photos are all harmless.
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
        # A cluster's workers may die of a photo; this process must not.
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
                    f"workers died again and again over photos {run.shard * SHARD + 1} to "
                    f"{run.shard * SHARD + len(run.names)}: {result.reason}"
                )
            self._done(run.shard, result, done)

    def _reading(self) -> AbstractContextManager[Reader]:
        if not self.engine.local:
            return nullcontext(self.reader)
        if isinstance(self.reader, SourceReader):
            return IsolatedReader(self.reader.decode, fetch=fetch_source)
        return isolated(self.reader)

    def _without_killers(self, lost: list[PhotoRun]) -> list[PhotoRun]:
        """The shards again, without the photos that kill a worker that does no more than read them."""
        probe = ProbeTask(self.network.framing, self.reader)
        # Twice, or a photo would be blamed whose machine is lost in this moment.
        photos = [name for run in lost for name in run.names]
        killers = {
            name: f"killed the process that read it ({result.reason})"
            for name, result in self.engine.map(probe, photos, attempts=2, alone=True)
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
        """Told of each photo of the shards under way: a shard may take minutes."""
        self._ahead += 1
        self.tell("photos", self._photos + self._ahead, len(self.names))

    def _committed(self, shard: int, key: str) -> Table | None:
        table = self.shards.load(shard, key)
        return table if table is not None and self.shards.has_tokens(shard, table) else None

    def _names(self, shard: int) -> list[str]:
        return self.names[shard * SHARD : (shard + 1) * SHARD]


def n_shards(photos: int) -> int:
    """Shards of so many photos."""
    return -(-photos // SHARD)


def failures_of(shards: Shards) -> list[Lost]:
    """Photos of all shards that failed, in their order.

    Raises
    ------
    PhotoError
        If none is left.
    """
    failures, any_photo = [], False
    for shard in range(shards.n_shards):
        table = shards.table(shard)
        failures += table.failures
        any_photo = any_photo or bool(table.photos)
    if not any_photo:
        raise PhotoError(
            failures[0].name,
            none_could(failures[0].reason, len(failures)),
        )
    return failures


def notes_of(shards: Shards) -> list[Note]:
    """What is to be said of the photos of all shards, in their order."""
    return [note for shard in range(shards.n_shards) for note in shards.table(shard).notes]


# ---------------------------------------------------------------- passes


def walk_over(
    source: Source, engine: Engine, *, only: Mapping[str, int] | None = None, tell: Tell = nobody
) -> Walk:
    """A walk for :meth:`Prism.fit_by <patchprism.Prism.fit_by>`: workers fold runs of shards, merged in order.

    Parameters
    ----------
    source : Source
    engine : Engine
    only : mapping of str to int, optional
        Names of the photos to fit on, and their places among them; all by default.
    tell : callable
        Called with the stages ``fit, pass 1`` and so on, and shards.
    """
    step = max(1, -(-source.n_shards // FOLDS))
    runs = [(start, min(start + step, source.n_shards)) for start in range(0, source.n_shards, step)]

    passes = itertools.count(1)

    def walk(make: Callable[[], PassT]) -> PassT:
        stage = f"fit, pass {next(passes)}"
        tell(stage, 0, source.n_shards)
        done = 0
        merged = make()
        waiting: dict[int, PassT] = {}
        following = iter(runs)
        expected = next(following, None)
        for (start, stop), result in engine.map(FoldTask(make, source, only), runs):
            if isinstance(result, WorkerLost):
                raise EngineError(f"workers died again and again over a pass: {result.reason}")
            waiting[start] = result
            done += stop - start
            tell(stage, done, source.n_shards)
            # In the runs' order, whatever the order of their ends: sums are the same to the last bit.
            while expected is not None and expected[0] in waiting:
                merged.merge(waiting.pop(expected[0]))
                expected = next(following, None)
        return merged

    return walk


def fit(
    prism: Prism,
    source: Source,
    engine: Engine,
    origin: dict[str, Any],
    *,
    only: frozenset[str] | None = None,
    tell: Tell = nobody,
) -> Prism:
    """Fit a prism on all photos of a source, or on some."""
    ranks = None if only is None else {name: rank for rank, name in enumerate(sorted(only))}
    n_photos = source.n_shards * SHARD if ranks is None else len(ranks)
    prism.fit_by(walk_over(source, engine, only=ranks, tell=tell), n_photos=n_photos)
    if ranks is not None:
        prism.agreements = {}  # by places in the sample, which are not those in the source
    prism.origin = origin
    return prism
