"""Photos or a store -> pictures."""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism import __version__
from patchprism.batching import give_back_memory
from patchprism.engines import WorkerLost
from patchprism.errors import EngineError, OptionError, OutputError, PatchPrismError
from patchprism.figures import MAX_PHOTOS, fg_mask_figure, results_figure, sheet_sizes
from patchprism.files import refuse_to_replace
from patchprism.folders import WORK, LocalFolder, is_remote, local_path, open_folder
from patchprism.histogram import counted_histogram
from patchprism.inputs import open_input
from patchprism.jobs import fit, nobody, working
from patchprism.paths import unique_stems
from patchprism.pipeline import Settings, Stopwatch, check_origin, with_mask
from patchprism.prism import Prism
from patchprism.render import write_picture
from patchprism.shards import digest
from patchprism.sources import elsewhere, places_for, read_source
from patchprism.store import StoredFeatures
from patchprism.streaming.opened import Opened, Outcome, open_tokens, resolved_for, tidied
from patchprism.tasks import DrawTask, drawn_key
from patchprism.visualization import FIGURES, PICTURES, REPORT_VERSION, check_output_options, hints_about

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.engines import Engine
    from patchprism.folders import Folder
    from patchprism.jobs import Reader, Tell
    from patchprism.picture import PictureOptions


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
    upsample: str = "nearest",
    background: str = "black",
    basis: str = "object",
    sample: int | None = None,
    seed: int = 0,
    fetch_from: Sequence[str] = (),
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
    prism, force, fetch_from
        As in :func:`~patchprism.visualize`.
    overlay_alpha, arrays, format, upsample, background, basis
        As in :meth:`Visualization.save <patchprism.visualization.Visualization.save>`.
    wrote : callable
        Told of each file at the end.

    Raises
    ------
    PatchPrismError
        One of its children.
    """
    options = check_output_options(
        Path() if is_remote(out) else local_path(out),
        overlay_alpha,
        format,
        upsample,
        background,
        basis,
        arrays,
    )
    given = open_input(photos, exclude=out)
    places = None
    if isinstance(given, StoredFeatures):
        places = places_for(given.path, fetch_from)
    elif fetch_from:
        raise OptionError("fetch_from is for a feature store; photos that are named are read anyway")
    settings = resolved_for(settings, given, prism)
    if prism is not None:
        prism = with_mask(prism, settings.mask_options())
    fitted = prism
    to_fit = None if prism else settings.prism()
    if prism is not None and sample is not None:
        raise OptionError("sample is for fitting; the prism is fitted already")
    folder = open_folder(out)
    work = folder.below(WORK)
    watch = Stopwatch()

    def check(origin: dict[str, Any]) -> None:
        if prism is not None and not force:
            check_origin(prism, origin)

    before = not is_remote(out) and local_path(out).exists()
    try:
        with working(work, folder.name), tidied(work):
            opened = open_tokens(
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
                    fitted = _fitted(to_fit, opened, work, engine, tell)
            assert fitted is not None
            job = Pictures(fitted, opened, folder, work, options, engine, reader, tell, places)
            with watch("colour and write"):
                job.draw()
                give_back_memory()
                written = job.overview()
            with folder.staged("prism.safetensors") as part:
                fitted.save(part)
            head = _report_head(settings, opened, fitted, to_fit is not None, watch, engine)
            job.report(head | {"hints": job.hints()})
    except PatchPrismError:
        if not before and isinstance(folder, LocalFolder) and folder.path.is_dir():
            with suppress(OSError):  # not empty
                folder.path.rmdir()
        raise
    for name in (*written, *job.files(), "prism.safetensors", "report.json"):
        wrote(os.path.join(folder.name, name))
    outcome = job.outcome(watch, opened, to_fit is not None)
    work.remove("")
    return outcome


def _fitted(to_fit: Prism, opened: Opened, work: Folder, engine: Engine, tell: Tell) -> Prism:
    """The prism, fitted, or loaded if the run that is taken up had come that far."""
    options = (to_fit.threshold, to_fit.foreground, to_fit.scaling, to_fit.components, to_fit.space)
    key = digest(opened.key, options, opened.origin, engine.name)
    name = f"prism-{key}.safetensors"
    if isinstance(work, LocalFolder) and work.size(name) is not None:
        return Prism.load(work.path / name)
    fit(to_fit, opened.source, engine, opened.origin, only=opened.only, tell=tell)
    with work.staged(name) as part:
        to_fit.save(part)
    return to_fit


class Pictures:
    """Writes the pictures of a job, and what is said of them together."""

    def __init__(
        self,
        prism: Prism,
        opened: Opened,
        out: Folder,
        work: Folder,
        options: PictureOptions,
        engine: Engine,
        reader: Reader,
        tell: Tell,
        places: frozenset[str] | None,
    ) -> None:
        self.prism, self.opened, self.out, self.work = prism, opened, out, work
        self.engine, self.tell = engine, tell
        self.source = opened.source
        with work.staged("prism-used.safetensors") as path:
            prism.save(path)
            content = path.read_bytes()
        self.places = places or frozenset()
        key = digest(opened.key, hashlib.sha256(content).hexdigest(), asdict(options), sorted(self.places))
        self.task = DrawTask(prism, opened.source, out, work, options, key, places=places, reader=reader)
        self.n_photos = 0
        self.gone: set[str] = set()  # of the photos that the figures show

    def draw(self) -> None:
        """Write the pictures of all shards that have none yet."""
        names = [row.name for shard in range(self.source.n_shards) for row in self.source.rows(shard)]
        stems = unique_stems([Path(name).name for name in names])
        self.n_photos = len(stems)
        if isinstance(self.out, LocalFolder):
            end = self.task.options.format
            written = [f"{stem}.{kind}.{end}" for stem in stems for kind in PICTURES]
            refuse_to_replace(self.out.path, [*written, *(f"{figure}.{end}" for figure in FIGURES)], names)

        done = ahead = 0

        def todo() -> Iterator[tuple[int, list[str]]]:
            nonlocal done
            start = 0
            for shard in range(self.source.n_shards):
                stop = start + len(self.source.rows(shard))
                if self._drawn(shard):
                    done += stop - start
                else:
                    yield shard, stems[start:stop]
                start = stop

        def seen() -> None:
            nonlocal ahead
            ahead += 1
            self.tell("pictures", done + ahead, self.n_photos)

        self.tell("pictures", 0, self.n_photos)
        self.task.seen = seen if self.engine.local else None
        for (shard, its), result in self.engine.map(self.task, todo()):
            if isinstance(result, WorkerLost):
                raise EngineError(
                    f"workers died again and again over pictures of shard {shard}: {result.reason}"
                )
            done, ahead = done + len(its), 0
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
            give_back_memory()  # a figure of 200 photos takes 100 MB while it is drawn
        return written

    def _first(self) -> Iterator[tuple[Any, NDArray[np.uint8], Any]]:
        """The first photos: what is known, the crop as small as a figure needs it, the colours."""
        box, _ = sheet_sizes(self.n_photos)
        for shard in range(self.source.n_shards):
            for row, tokens in self.source.read(shard):
                photo = self.task.photo(row)
                if photo is None:
                    self.gone.add(row.name)
                    shown = np.full((row.grid[0] * 8, row.grid[1] * 8, 3), 128, np.uint8)
                else:
                    shown = _small(self.opened.framing.show(photo, name=row.name), box * 5 // 4)
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

    def outcome(self, watch: Stopwatch, opened: Opened, fitted_here: bool) -> Outcome:
        """What to tell the user."""
        rows: list[dict[str, Any]] = []
        missing = n_patches = 0
        unasked = set(elsewhere(self.gone, self.places))
        shown = set(self.gone)  # in figures alone: their pictures need no photo
        for drawn in self._all():
            rows += drawn["photos"][: max(0, 20 - len(rows))]
            gone = [row["photo"] for row in drawn["photos"] if "photo_missing" in row]
            missing += len(gone)
            unasked.update(elsewhere(gone, self.places))
            shown.difference_update(gone)
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
            missing=missing + len(shown),
            unasked=sorted(unasked),
            rows=rows,
            hints=self.hints(),
        )


def _report_head(
    settings: Settings, opened: Opened, prism: Prism, fitted_here: bool, watch: Stopwatch, engine: Engine
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
