"""The commands at any size: features into a store, a prism out of photos, pictures of photos.

What :func:`patchprism.visualize` does in memory for a handful of photos, these do in bounded memory for any
number, on an engine, and take up again what was broken off.
"""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism import __version__
from patchprism.batching import give_back_memory
from patchprism.engines import WorkerLost
from patchprism.errors import EngineError, OptionError, OutputError, PatchPrismError, PhotoError, StoreError
from patchprism.figures import MAX_PHOTOS, fg_mask_figure, results_figure, sheet_sizes
from patchprism.files import atomic_write
from patchprism.folders import WORK, LocalFolder, is_remote, local_path, open_folder
from patchprism.histogram import counted_histogram
from patchprism.jobs import (
    Extraction,
    failures_of,
    fit,
    n_shards,
    nobody,
    open_input,
    open_network,
    remembered_batch,
    sampled,
    working,
)
from patchprism.paths import unique_stems
from patchprism.pipeline import TOKEN_DEFAULTS, Settings, Stopwatch, check_origin, with_mask
from patchprism.prism import Prism
from patchprism.render import write_picture
from patchprism.shards import Lost, Shards, StoreShards, digest
from patchprism.store import StoredFeatures, layout
from patchprism.store.writer import StoreWriter
from patchprism.tasks import DrawTask, PictureOptions, drawn_key, read_source
from patchprism.visualization import REPORT_VERSION, check_output_options, hints_about

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.engines import Engine
    from patchprism.folders import Folder
    from patchprism.framing import Framing
    from patchprism.jobs import Network, Reader, Tell
    from patchprism.shards import Source


@dataclass(kw_only=True)
class Outcome:
    """What came of a job.

    Attributes
    ----------
    n_photos, n_patches : int
        Done, without those that failed.
    failures : list of Lost
        Photos that could not be done, and why.
    model, weights_source : str
    seconds : dict
        Time spent in each stage, in this run.
    prism : Prism or None
    fitted_here : bool
    missing : int
        Photos of a store that were not there any more where one was to be drawn.
    already : bool
        Whether the store was there already, whole and of the same photos.
    rows : list of dict
        The first photos, as ``report.json`` has them.
    hints : list of str
        What a person should know before believing the pictures.
    """

    n_photos: int
    n_patches: int
    failures: list[Lost]
    model: str
    weights_source: str
    seconds: dict[str, float]
    prism: Prism | None = None
    fitted_here: bool = False
    missing: int = 0
    already: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


# ---------------------------------------------------------------- features


def extract_features(
    photos: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Settings,
    engine: Engine,
    tokens: str = "float16",
    overwrite: bool = False,
    backbone: Backbone | None = None,
    reader: Reader = read_source,
    tell: Tell = nobody,
) -> Outcome:
    """Photos -> a feature store.

    Parameters
    ----------
    photos : sequence of path
        Files, folders, patterns, and addresses that fsspec opens.
    out : path
        The store to make; a folder or an address.
    settings : Settings
    engine : Engine
    tokens : {"float16", "float32"}
        What tokens are stored in.
    overwrite : bool
        Whether a store of other photos or features may be replaced.
    backbone : Backbone, optional
        One that is loaded already.
    reader, tell : callable
        What reads a photo, and what is told of progress.

    Raises
    ------
    PatchPrismError
        One of its children: an option, all photos, the model, the store.
    """
    if tokens not in layout.DTYPES:
        raise OptionError(f"tokens must be one of {', '.join(layout.DTYPES)}, got {tokens!r}")
    names = open_input(photos)
    if isinstance(names, StoredFeatures):
        raise OptionError(f"{names.path} is a feature store already; features takes photos")
    watch = Stopwatch()
    settings = settings.resolved()
    with watch("load model"):
        network = open_network(settings, backbone=backbone, engine=engine, tell=tell)
    folder = open_folder(out)
    if not is_remote(out):
        _check_free(folder, overwrite)
    work = folder.below(WORK)
    shards = Shards(work, n_shards(len(names)), tokens)
    with working(work):
        network = remembered_batch(work, network)
        job = Extraction(
            names, network, shards, engine, batch_size=settings.batch_size, reader=reader, tell=tell
        )
        key = digest([job.key(shard) for shard in range(shards.n_shards)])
        try:
            there = _finished(folder, key, overwrite)
        except PatchPrismError:
            folder.remove(WORK)
            raise
        if there is not None:
            folder.remove(WORK)
            return there
        _start(folder, work, key)
        writer = StoreWriter(shards, folder, engine)
        with watch("read photos and run network"):
            job.run(committed=writer.committed, done=writer.add)
        try:
            failures = failures_of(shards)
        except PatchPrismError:
            folder.remove("")
            raise
        with watch("write"):
            writer.finish(
                {
                    "version": layout.VERSION,
                    "written_by": __version__,
                    "key": key,
                    "origin": network.origin,
                    "model": asdict(network.record),
                    "failures": [{"photo": each.name, "reason": each.reason} for each in failures],
                }
            )
    folder.remove(WORK)
    made = StoredFeatures(out)
    return Outcome(
        n_photos=len(made),
        n_patches=made.n_patches,
        failures=failures,
        model=network.record.name,
        weights_source=network.weights.source,
        seconds=watch.seconds,
    )


def _check_free(folder: Folder, overwrite: bool) -> None:
    """Refuse to write a store among files that are none of a store's."""
    assert isinstance(folder, LocalFolder)
    path = folder.path
    if path.is_file():
        raise OutputError(str(path), "a file of that name is there already")
    ours = path.is_dir() and ((path / WORK).is_dir() or (path / "zarr.json").is_file())
    if path.is_dir() and any(path.iterdir()) and not ours:
        raise OutputError(str(path), "the folder holds other files; name a new one")


def _finished(folder: Folder, key: str, overwrite: bool) -> Outcome | None:
    """What is known of a store that is there already, if it is the one asked for."""
    if folder.size("zarr.json") is None:
        return None
    try:
        there = StoredFeatures(folder.name)
    except StoreError:
        if overwrite:
            return None
        raise
    if there.key == key:
        return Outcome(
            n_photos=len(there),
            n_patches=there.n_patches,
            failures=[Lost(each["photo"], each["reason"]) for each in there.failures],
            model=str(there.model.get("name")),
            weights_source=str(there.origin.get("weights_source")),
            seconds={},
            already=True,
        )
    if overwrite:
        return None
    raise OutputError(
        folder.name,
        "a feature store of other photos, or with other settings, is there; --overwrite replaces it",
    )


def _start(folder: Folder, work: Folder, key: str) -> None:
    """Take up the work of the same job, or begin anew where another one's lies."""
    job = json.dumps({"key": key}).encode()
    try:
        same = work.read("job.json") == job
    except OSError:
        same = False
    if same:
        return
    folder.remove("zarr.json")  # first: from here on this is no store
    for name in (*layout.TABLES, f"{WORK}/shards"):
        folder.remove(name)
    work.write("job.json", job)


def write_table(features: StoredFeatures, path: str | os.PathLike[str], *, tell: Tell = nobody) -> None:
    """A store as a Parquet table: a row a patch, with ``photo``, ``row``, ``column`` and ``vector`` (float32).

    Raises
    ------
    ExtraError
        If pyarrow is not installed.
    OutputError
        If it cannot be written.
    """
    from patchprism.store.table import write_parquet

    write_parquet(features, path, tell=tell)


# ---------------------------------------------------------------- prisms


def fit_prism(
    photos: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Settings,
    engine: Engine,
    sample: int | None = None,
    seed: int = 0,
    backbone: Backbone | None = None,
    reader: Reader = read_source,
    tell: Tell = nobody,
) -> Outcome:
    """Photos or a store -> a prism in a file.

    Parameters
    ----------
    photos : sequence of path
        As in :func:`extract_features`, or one feature store.
    out : path
        The prism's file.
    settings : Settings
    engine : Engine
    sample : int, optional
        Fit on a sample of so many photos, drawn with ``seed``; the prism says so in ``origin["sample"]``.
    seed : int
    backbone, reader, tell
        As in :func:`extract_features`.

    Raises
    ------
    PatchPrismError
        One of its children.
    """
    given = open_input(photos)
    watch = Stopwatch()
    target = local_path(out)
    if target.is_dir():
        raise OutputError(str(target), "a folder of that name is there already")
    work = LocalFolder(
        target.with_name(f".{target.name}{WORK}"), work=target.with_name(f".{target.name}{WORK}")
    )
    settings = _resolved(settings, given, None)
    prism = settings.prism()
    try:
        with working(work):
            opened = _open(given, settings, work, engine, sample, seed, backbone, reader, tell, watch)
            with watch("fit prism"):
                fit(prism, opened.source, engine, opened.origin, only=opened.only)
            with atomic_write(target) as part:
                prism.save(part)
    except PatchPrismError as error:
        _tidy(work, error)
        raise
    work.remove("")
    return Outcome(
        n_photos=prism.n_photos_,
        n_patches=prism.n_patches_,
        failures=opened.failures,
        model=str(opened.origin.get("model")),
        weights_source=str(opened.origin.get("weights_source")),
        seconds=watch.seconds,
        prism=prism,
        fitted_here=True,
    )


def _tidy(work: Folder, error: PatchPrismError) -> None:
    """Take the work away if there is nothing in it to take up: tokens are kept for another threshold, say."""
    if isinstance(error, PhotoError) or not work.keys("shards"):
        work.remove("")


@dataclass(kw_only=True)
class _Opened:
    """Tokens by shards, from photos or from a store."""

    source: Source
    origin: dict[str, Any]
    failures: list[Lost]
    framing: Framing
    key: str
    model: dict[str, Any]
    weights: dict[str, str]
    only: frozenset[str] | None = None
    from_store: bool = False


def _resolved(settings: Settings, given: StoredFeatures | list[str], prism: Prism | None) -> Settings:
    """Settings with every choice made; a store has made those of the network."""
    if isinstance(given, StoredFeatures):
        made: dict[str, Any] = {
            "model": given.origin.get("model"),
            "preset": given.origin.get("preset"),
            "size": given.framing.size,
            "dtype": given.origin.get("dtype"),
            **{name: given.origin.get(name, default) for name, default in TOKEN_DEFAULTS.items()},
        }
        for name, there in made.items():
            wanted = getattr(settings, name)
            if wanted is not None and wanted != there and (name, wanted) != ("dtype", "auto"):
                raise OptionError(f"{name} is settled by the feature store ({there}), got {wanted}")
        if settings.weights is not None:
            raise OptionError("weights are not needed with a feature store")
        settings = replace(settings, **{name: value for name, value in made.items() if value is not None})
    return settings.resolved(prism)


def _open(
    given: StoredFeatures | list[str],
    settings: Settings,
    work: Folder,
    engine: Engine,
    sample: int | None,
    seed: int,
    backbone: Backbone | None,
    reader: Reader,
    tell: Tell,
    watch: Stopwatch,
    *,
    check: Callable[[dict[str, Any]], None] = lambda origin: None,
    whole: bool = False,
) -> _Opened:
    """Tokens of what was given: at hand in a store, else out of the network.

    ``whole`` says that photos outside of the sample are wanted as well.
    """
    if isinstance(given, StoredFeatures):
        check(given.origin)
        only, origin = _sampled_origin(given.names if sample else [], given.origin, sample, seed, len(given))
        return _Opened(
            source=StoreShards(given),
            origin=origin,
            failures=[Lost(str(each["photo"]), str(each["reason"])) for each in given.failures],
            framing=given.framing,
            key=given.key,
            model=given.model,
            weights={
                "source": str(given.origin.get("weights_source")),
                "file": "",
                "sha256": str(given.origin.get("weights_sha256")),
            },
            only=only,
            from_store=True,
        )
    only, said = _sampled_origin(given, {}, sample, seed, len(given))
    if only is not None and not whole:
        given, only = [name for name in given if name in only], None
    with watch("load model"):
        network: Network = open_network(settings, backbone=backbone, engine=engine, tell=tell)
    check(network.origin)
    network = remembered_batch(work, network)
    # float32: the colours of a hundred photos must not differ from those of ten for the sake of disk space.
    shards = Shards(work, n_shards(len(given)), "float32")
    job = Extraction(given, network, shards, engine, batch_size=settings.batch_size, reader=reader, tell=tell)
    with watch("read photos and run network"):
        job.run()
    give_back_memory()
    return _Opened(
        source=shards,
        origin=network.origin | said,
        failures=failures_of(shards),
        framing=network.framing,
        key=digest([shards.table(shard).key for shard in range(shards.n_shards)]),
        model=asdict(network.record),
        weights={
            "source": network.weights.source,
            "file": network.weights.path,
            "sha256": network.weights.sha256,
        },
        only=only,
    )


def _sampled_origin(
    names: list[str], origin: dict[str, Any], sample: int | None, seed: int, total: int
) -> tuple[frozenset[str] | None, dict[str, Any]]:
    chosen = sampled(names, sample, seed)
    if sample is None or len(chosen) == total:
        return None, origin
    return frozenset(chosen), origin | {"sample": {"photos": len(chosen), "of": total, "seed": seed}}


# ---------------------------------------------------------------- pictures


def render_photos(
    photos: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Settings,
    engine: Engine,
    prism: Prism | None = None,
    force: bool = False,
    overlay_alpha: float | None = None,
    arrays: bool = False,
    format: str = "png",
    sample: int | None = None,
    seed: int = 0,
    backbone: Backbone | None = None,
    reader: Reader = read_source,
    tell: Tell = nobody,
    wrote: Callable[[str], None] = lambda path: None,
) -> Outcome:
    """Photos or a store -> the files that :meth:`Visualization.save` writes, in bounded memory.

    Parameters
    ----------
    photos, settings, engine, sample, seed, backbone, reader, tell
        As in :func:`fit_prism`.
    out : path
        A folder or an address.
    prism, force
        As in :func:`~patchprism.visualize`.
    overlay_alpha, arrays, format
        As in :meth:`Visualization.save <patchprism.visualization.Visualization.save>`.
    wrote : callable
        Told of each file at the end.

    Raises
    ------
    PatchPrismError
        One of its children.
    """
    check_output_options(Path() if is_remote(out) else local_path(out), overlay_alpha, format)
    given = open_input(photos, exclude=out)
    settings = _resolved(settings, given, prism)
    if prism is not None:
        prism = with_mask(prism, settings.mask_options())
    fitted = prism
    to_fit = None if prism else settings.prism()
    if prism is not None and sample is not None:
        raise OptionError("sample is for fitting; the prism is fitted already")
    folder = open_folder(out)
    work = folder.below(WORK)
    watch = Stopwatch()
    options = PictureOptions(overlay_alpha=overlay_alpha, arrays=arrays, format=format)

    def check(origin: dict[str, Any]) -> None:
        if prism is not None and not force:
            check_origin(prism, origin)

    before = not is_remote(out) and local_path(out).exists()
    try:
        with working(work):
            opened = _open(
                given,
                settings,
                work,
                engine,
                sample,
                seed,
                backbone,
                reader,
                tell,
                watch,
                check=check,
                whole=True,
            )
            if to_fit is not None:
                with watch("fit prism"):
                    fitted = _fitted(to_fit, opened, work, engine)
            assert fitted is not None
            job = _Pictures(fitted, opened, folder, work, options, engine, reader, tell)
            with watch("colour and write"):
                job.draw()
                give_back_memory()
                written = job.overview()
            with folder.staged("prism.safetensors") as part:
                fitted.save(part)
            head = _report_head(settings, opened, fitted, to_fit is not None, watch, engine)
            job.report(head | {"hints": job.hints()})
    except PatchPrismError as error:
        _tidy(work, error)
        if not before and isinstance(folder, LocalFolder) and not any(folder.path.iterdir()):
            folder.path.rmdir()
        raise
    for name in (*written, *job.files(), "prism.safetensors", "report.json"):
        wrote(os.path.join(folder.name, name))
    outcome = job.outcome(watch, opened, to_fit is not None)
    work.remove("")
    return outcome


def _fitted(to_fit: Prism, opened: _Opened, work: Folder, engine: Engine) -> Prism:
    """The prism, fitted, or loaded if the run that is taken up had come that far."""
    options = (to_fit.threshold, to_fit.foreground, to_fit.scaling, to_fit.components, to_fit.space)
    key = digest(opened.key, options, opened.origin, engine.name)
    name = f"prism-{key}.safetensors"
    if isinstance(work, LocalFolder) and work.size(name) is not None:
        return Prism.load(work.path / name)
    fit(to_fit, opened.source, engine, opened.origin, only=opened.only)
    with work.staged(name) as part:
        to_fit.save(part)
    return to_fit


class _Pictures:
    """Writes the pictures of a job, and what is said of them together."""

    def __init__(
        self,
        prism: Prism,
        opened: _Opened,
        out: Folder,
        work: Folder,
        options: PictureOptions,
        engine: Engine,
        reader: Reader,
        tell: Tell,
    ) -> None:
        self.prism, self.opened, self.out, self.work = prism, opened, out, work
        self.engine, self.tell = engine, tell
        self.source = opened.source
        with work.staged("prism-used.safetensors") as path:
            prism.save(path)
            content = path.read_bytes()
        key = digest(opened.key, hashlib.sha256(content).hexdigest(), asdict(options))
        self.task = DrawTask(
            prism, opened.source, out, work, options, key, from_store=opened.from_store, reader=reader
        )
        self.n_photos = 0

    def draw(self) -> None:
        """Write the pictures of all shards that have none yet."""
        names = [row.name for shard in range(self.source.n_shards) for row in self.source.rows(shard)]
        stems = unique_stems([Path(name).name for name in names])
        self.n_photos = len(stems)

        def todo() -> Iterator[tuple[int, list[str]]]:
            start = 0
            for shard in range(self.source.n_shards):
                stop = start + len(self.source.rows(shard))
                if not self._drawn(shard):
                    yield shard, stems[start:stop]
                start = stop

        done = 0
        self.tell("pictures", 0, self.n_photos)
        for (shard, its), result in self.engine.map(self.task, todo()):
            if isinstance(result, WorkerLost):
                raise EngineError(
                    f"workers died again and again over pictures of shard {shard}: {result.reason}"
                )
            done += len(its)
            self.tell("pictures", done, self.n_photos)

    def _drawn(self, shard: int) -> dict[str, Any] | None:
        try:
            drawn: dict[str, Any] = json.loads(self.work.read(drawn_key(shard)))
        except (OSError, ValueError):
            return None
        return drawn if drawn.get("key") == self.task.key else None

    def _all(self) -> Iterator[dict[str, Any]]:
        for shard in range(self.source.n_shards):
            drawn = self._drawn(shard)
            if drawn is None:
                raise OutputError(self.work.name, "it was changed while the job ran")
            yield drawn

    def files(self) -> Iterator[str]:
        """Every photo's files."""
        for drawn in self._all():
            for row in drawn["photos"]:
                yield from row["files"]

    def overview(self) -> list[str]:
        """Write the figures; gives their names."""
        side: Any = self.prism.side_
        counts = np.sum([drawn["counts"] for drawn in self._all()], axis=0)
        inside = sum(drawn["n_foreground"] for drawn in self._all())
        total = self.n_photos
        first = list(islice(self._first(), MAX_PHOTOS))
        names = [Path(row.name).name for row, _, _ in first]
        shown = [picture for _, picture, _ in first]
        parts = [part for _, _, part in first]
        figures: dict[str, Callable[[], NDArray[np.uint8]]] = {
            "fg_mask": lambda: fg_mask_figure(
                shown,
                [p.score for p in parts],
                [p.foreground for p in parts],
                names=names,
                side=side,
                total=total,
            ),
            "results": lambda: results_figure(shown, [p.rgb for p in parts], names=names, total=total),
            "results_raw": lambda: results_figure(
                shown, [p.rgb_all for p in parts], names=names, total=total
            ),
            "histogram": lambda: counted_histogram(
                counts, inside, threshold=None if side == "none" else self.prism.threshold_, side=side
            ),
        }
        written = []
        for name, draw in figures.items():
            written.append(f"{name}.{self.task.options.format}")
            with self.out.staged(written[-1]) as path:
                write_picture(path, draw())
        return written

    def _first(self) -> Iterator[tuple[Any, NDArray[np.uint8], Any]]:
        """The first photos: what is known, the crop as small as a figure needs it, the colours."""
        box, _ = sheet_sizes(self.n_photos)
        for shard in range(self.source.n_shards):
            for row, tokens in self.source.read(shard):
                photo = self.task.photo(row)
                if photo is None:
                    shown = np.full((row.grid[0] * 8, row.grid[1] * 8, 3), 128, np.uint8)
                else:
                    shown = _small(self.opened.framing.apply(photo, name=row.name).shown, box * 5 // 4)
                yield row, shown, self.prism.split(tokens, name=row.name)

    def report(self, head: dict[str, Any]) -> None:
        """Write ``report.json``, photo by photo; as :meth:`Visualization.report` has it."""
        with (
            self.out.staged("report.json") as path,
            open(path, "w", encoding="utf-8", errors="replace") as file,
        ):
            file.write("{\n")
            for key, value in head.items():
                file.write(f"  {json.dumps(key)}: {_indented(value, 2).lstrip()},\n")
            file.write('  "photos": [')
            comma = "\n"
            for drawn in self._all():
                for row in drawn["photos"]:
                    file.write(comma + _indented(row, 4))
                    comma = ",\n"
            lost = [{"photo": each.name, "reason": each.reason} for each in self.opened.failures]
            file.write(f'\n  ],\n  "failures": {_indented(lost, 2).lstrip()}\n}}\n')

    def hints(self) -> list[str]:
        """As :meth:`Visualization.hints <patchprism.visualization.Visualization.hints>`."""
        shares = np.array([row["foreground"] for drawn in self._all() for row in drawn["photos"]])
        return hints_about(shares, self.prism.side_)

    def outcome(self, watch: Stopwatch, opened: _Opened, fitted_here: bool) -> Outcome:
        """What to tell the user."""
        rows: list[dict[str, Any]] = []
        missing = n_patches = 0
        for drawn in self._all():
            rows += drawn["photos"][: max(0, 20 - len(rows))]
            missing += sum("photo_missing" in row for row in drawn["photos"])
            n_patches += sum(drawn["counts"])
        return Outcome(
            n_photos=self.n_photos,
            n_patches=n_patches,
            failures=opened.failures,
            model=str(opened.origin.get("model")),
            weights_source=str(opened.origin.get("weights_source")),
            seconds=watch.seconds,
            prism=self.prism,
            fitted_here=fitted_here,
            missing=missing,
            rows=rows,
            hints=self.hints(),
        )


def _report_head(
    settings: Settings, opened: _Opened, prism: Prism, fitted_here: bool, watch: Stopwatch, engine: Engine
) -> dict[str, Any]:
    sample = prism.origin.get("sample")
    return {
        "version": REPORT_VERSION,
        "patchprism": __version__,
        "model": {
            "name": opened.model.get("name"),
            "patch_size": opened.model.get("patch_size"),
            "width": prism.scene_mean_.shape[0],
            "weights": opened.weights,
        },
        "settings": asdict(settings) | {"dtype": opened.origin.get("dtype"), "engine": engine.name},
        "framing": opened.framing.to_dict(),
        "prism": {
            "fitted_here": fitted_here,
            **({"sample": sample} if sample else {}),
            **prism.summary(),
        },
        "seconds": {stage: round(seconds, 4) for stage, seconds in watch.seconds.items()},
    }


def _small(shown: NDArray[np.uint8], box: int) -> NDArray[np.uint8]:
    """A crop no larger than about box² pixels: of two hundred of them, whole ones would fill the memory."""
    from PIL import Image

    scale = (box * box / (shown.shape[0] * shown.shape[1])) ** 0.5
    if scale >= 1:
        return shown
    size = max(1, round(shown.shape[1] * scale)), max(1, round(shown.shape[0] * scale))
    return np.asarray(Image.fromarray(shown).resize(size, Image.Resampling.LANCZOS))


def _indented(value: Any, spaces: int) -> str:
    return textwrap.indent(json.dumps(value, indent=2, ensure_ascii=False), " " * spaces)
