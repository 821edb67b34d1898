"""Photos or a store -> pictures."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import EngineError, OptionError, OutputError, PatchPrismError, PrismError
from patchprism.features.store import StoredFeatures
from patchprism.jobs.engines import WorkerLost
from patchprism.jobs.hints import hints_about
from patchprism.jobs.inputs import listed_input
from patchprism.jobs.settings import Settings, Stopwatch, check_origin, with_mask
from patchprism.jobs.shards import Lost, digest
from patchprism.jobs.streaming.opened import Opened, Outcome, open_tokens, resolved_for, tidied, weights_of
from patchprism.jobs.tasks import DrawTask, drawn_key
from patchprism.jobs.view import REPORT_VERSION
from patchprism.jobs.work import fit, nobody, working
from patchprism.jobs.writers import check_output_options
from patchprism.photos.paths import unique_stems
from patchprism.photos.sources import elsewhere, in_range, places_for, read_source, stored_paths
from patchprism.pictures.figures import MAX_PHOTOS, fg_mask_figure, results_figure, sheet_sizes
from patchprism.pictures.histogram import counted_histogram
from patchprism.pictures.outputs import FIGURES
from patchprism.pictures.render import write_picture
from patchprism.prism.estimator import Prism
from patchprism.support.files import refuse_what_is_read
from patchprism.support.folders import WORK, LocalFolder, is_remote, local_path
from patchprism.support.json_values import to_json
from patchprism.support.memory import give_back_memory
from patchprism.support.version import __version__
from patchprism.support.written import Output, Record, Stamp, as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.jobs.engines import Engine
    from patchprism.jobs.work import Reader, Tell
    from patchprism.pictures.picture import PictureOptions
    from patchprism.support.folders import Folder


# In the work folder: the figures that this job writes.
_FIGURES = "figures.json"
# The names of files that are written for photos, and of figures.


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
        As in :meth:`Visualization.save <patchprism.Visualization.save>`.
    wrote : callable
        Told of each file at the end.

    Raises
    ------
    PatchPrismError
        One of its children.
    """
    options = check_output_options(out, overlay_alpha, format, upsample, background, basis, arrays)
    given, said = listed_input(photos)
    places = None
    if isinstance(given, StoredFeatures):
        places = places_for(given.path, fetch_from)
    elif fetch_from:
        raise OptionError("fetch_from is for a feature store; photos that are named are read anyway")
    settings = resolved_for(settings, given, prism)
    reader = in_range(reader, settings.range)
    if prism is not None:
        prism = with_mask(prism, settings.mask_options())
    fitted = prism
    to_fit = None if prism else settings.prism()
    if prism is not None and sample is not None:
        raise OptionError("sample is for fitting; the prism is fitted already")
    output = Output(out, prism=prism.loaded_from if prism else "")
    if isinstance(given, StoredFeatures):
        refuse_what_is_read(out, [given.path])
    folder = output.folder
    work = folder.below(WORK)
    watch = Stopwatch()

    def check(origin: dict[str, Any]) -> None:
        if prism is not None and not force:
            check_origin(prism, origin)

    if not isinstance(given, StoredFeatures):
        # Once more when it is known which photos can be read: they alone have files.
        output.check(options.names(unique_stems([Path(name).name for name in given])), given)
    before = not is_remote(out) and local_path(out).exists()
    try:
        with working(work, folder.name) as held, tidied(work, held):
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
            opened.notes = [*said, *opened.notes]
            if to_fit is not None:
                with watch("fit prism"):
                    fitted = _fitted(to_fit, opened, work, engine, tell)
            assert fitted is not None
            job = Pictures(
                fitted,
                opened,
                output,
                work,
                options,
                engine,
                reader,
                tell,
                places,
                fitted_here=to_fit is not None,
            )
            with watch("colour and write"):
                job.draw()
                give_back_memory()
                written = job.overview()
            saved = output.save_prism(fitted.save)
            head = _report_head(settings, opened, fitted, to_fit is not None, watch, engine)
            of_job = [each.text for each in opened.notes if not each.name]
            job.report(head | {"hints": job.hints(), "notes": of_job})
            output.finish()
            for name in (*written, *job.files(), *saved, "report.json"):
                wrote(os.path.join(folder.name, name))
            outcome = job.outcome(watch, opened, to_fit is not None)
            held.end()
    except PatchPrismError:
        if not before and isinstance(folder, LocalFolder) and folder.path.is_dir():
            with suppress(OSError):  # not empty
                folder.path.rmdir()
        raise
    return outcome


def _fitted(to_fit: Prism, opened: Opened, work: Folder, engine: Engine, tell: Tell) -> Prism:
    """The prism, fitted, or loaded if the run that is taken up had come that far."""
    source = opened.source
    tokens = [source.key(shard) for shard in range(source.n_shards)]
    # All that the prism is before the fit, which is all that decides it beside the tokens.
    key = digest(__version__, tokens, vars(to_fit), opened.origin, sorted(opened.only or ()), engine.name)
    name = f"prism-{key}.safetensors"
    if isinstance(work, LocalFolder) and work.size(name) is not None:
        with suppress(PrismError):  # damaged: fitted again
            prism = Prism.load(work.path / name)
            said = _read_json(work, f"{name}.json").get("agreements", {})
            prism.agreements = {int(index): float(value) for index, value in said.items()}
            return prism
    fit(to_fit, opened.source, engine, opened.origin, only=opened.only, tell=tell)
    work.write(f"{name}.json", json.dumps({"agreements": to_fit.agreements}).encode())
    with work.staged(name) as part:
        to_fit.save(part)
    return to_fit


class Pictures:
    """Writes the pictures of a job, and what is said of them together."""

    def __init__(
        self,
        prism: Prism,
        opened: Opened,
        output: Output,
        work: Folder,
        options: PictureOptions,
        engine: Engine,
        reader: Reader,
        tell: Tell,
        places: frozenset[str] | None,
        *,
        fitted_here: bool,
    ) -> None:
        self.fitted_here = fitted_here
        self.prism, self.opened, self.output, self.work = prism, opened, output, work
        self.engine, self.tell = engine, tell
        self.source = opened.source
        self.places = places or frozenset()
        # Each of them whole: what a later version adds to them counts by itself.
        key = digest(__version__, vars(prism) | {"loaded_from": ""}, asdict(options), sorted(self.places))
        self.task = DrawTask(
            prism,
            opened.source,
            output.folder,
            work,
            options,
            key,
            places=places,
            reader=reader,
            agreements=prism.agreements if fitted_here else None,
        )
        self.n_photos = 0
        self.stems: list[list[str]] = []  # of each shard
        self.gone: set[str] = set()  # of a store's photos that the figures show
        self.lost: dict[str, str] = {}  # photos that were gone or replaced when they were drawn, and why

    def draw(self) -> None:
        """Write the pictures of all shards that have none yet."""
        names = [row.name for shard in range(self.source.n_shards) for row in self.source.rows(shard)]
        stems = unique_stems([Path(name).name for name in names])
        self.n_photos = len(stems)
        read: Iterable[str | Path] = names
        if self.task.places is not None:
            read = (path for name in names for path in stored_paths(name, self.task.places))
        following = iter(stems)
        self.stems = [
            list(islice(following, len(self.source.rows(shard)))) for shard in range(self.source.n_shards)
        ]
        self._tidy()
        self.output.claim(self.task.options.names(stems), read)
        done = ahead = 0

        def todo() -> Iterator[tuple[int, list[str]]]:
            nonlocal done
            for shard, its in enumerate(self.stems):
                if self._is_drawn(shard):
                    done += len(its)
                else:
                    yield shard, its

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

    def _tidy(self) -> None:
        """Take away what an earlier run with other options or photos wrote, and this one does not."""
        ours = self.work.keys("drawn")
        if not ours and self.work.size(_FIGURES) is None:
            return
        mine = {name for its in self.stems for stem in its for name in self.task.names(stem)}
        mine.update(self._figures())
        markers = {f"drawn/{name}" for name in ours}
        record = Record(self.output.folder)
        for key in (*markers, _FIGURES):
            for name in _read_json(self.work, key).get("files", ()):
                # Somebody else may have made the folder: nothing but what its record lists is taken away.
                if name not in mine and name in record:
                    self.output.folder.remove(name)
        for key in markers - {drawn_key(shard) for shard in range(len(self.stems))}:
            self.work.remove(key)

    def _figures(self) -> list[str]:
        return [f"{name}.{self.task.options.format}" for name in FIGURES]

    def _is_drawn(self, shard: int) -> bool:
        """Whether a shard's pictures are there, all of them as they were written, and none without its photo."""
        drawn = _read_json(self.work, drawn_key(shard))
        if drawn.get("key") != self.task.key_of(shard, self.stems[shard]):
            return False
        made = {name: Stamp(*stamp) for name, stamp in drawn["files"].items()}
        whole = not any("photo_missing" in row for row in drawn["photos"])
        return whole and self.output.folder.unchanged(made)

    def _all(self) -> Iterator[dict[str, Any]]:
        for shard in range(self.source.n_shards):
            drawn = _read_json(self.work, drawn_key(shard))
            if "photos" not in drawn:
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
        written = self._figures()
        self.work.write(_FIGURES, json.dumps({"files": written}).encode())
        for name, each in zip(written, FIGURES, strict=True):
            with self.output.staged(name) as path:
                write_picture(path, figures[each]())
            give_back_memory()  # a figure of 200 photos takes 100 MB while it is drawn
        return written

    def _first(self) -> Iterator[tuple[Any, NDArray[np.uint8], Any]]:
        """The first photos: what is known, the crop as small as a figure needs it, the colours."""
        box, _ = sheet_sizes(self.n_photos)
        for shard in range(self.source.n_shards):
            for row, tokens in self.source.read(shard):
                photo, reason = self.task.photo(row)
                if photo is None:
                    if reason is None:
                        self.gone.add(row.name)
                    else:
                        self.lost[row.name] = reason
                    side = 8 if row.grid[0] * row.grid[1] < 1 << 16 else 1
                    shown = np.full((row.grid[0] * side, row.grid[1] * side, 3), 128, np.uint8)
                else:
                    shown = _small(self.opened.framing.show(photo, name=row.name), box * 5 // 4)
                yield row, shown, self.prism.split(tokens, name=row.name)

    def report(self, head: dict[str, Any]) -> None:
        """Write ``report.json``, photo by photo; as :meth:`Visualization.report` has it."""
        for drawn in self._all():
            self.output.written |= {name: Stamp(*made) for name, made in drawn["files"].items()}
        with (
            self.output.staged("report.json") as path,
            # What is no text in a file's name is there as an escape.
            open(path, "w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write("{\n")
            for key, value in head.items():
                file.write(f"  {to_json(key)}: {_indented(value, 2).lstrip()},\n")
            file.write(f'  "files": {_indented(as_json(self.output.written), 2).lstrip()},\n')
            file.write('  "photos": [')
            comma = "\n"
            notes: dict[str, list[str]] = {}
            for each in self.opened.notes:
                notes.setdefault(each.name, []).append(each.text)
            for drawn in self._all():
                for row in drawn["photos"]:
                    said = {"notes": notes[row["photo"]]} if row["photo"] in notes else {}
                    file.write(comma + _indented(row | said, 4))
                    comma = ",\n"
            lost = [{"photo": each.name, "reason": each.reason} for each in self.failures()]
            file.write(f'\n  ],\n  "failures": {_indented(lost, 2).lstrip()}\n}}\n')

    def failures(self) -> list[Lost]:
        """Photos that could not be done, and those that were gone or replaced when they were drawn."""
        lost = dict(self.lost)
        for drawn in self._all():
            lost |= drawn["lost"]
        return [*self.opened.failures, *(Lost(name, reason) for name, reason in lost.items())]

    def hints(self) -> list[str]:
        """As :meth:`Visualization.hints <patchprism.Visualization.hints>`."""
        shares, plain, photos = [], [], []
        for drawn in self._all():
            for row in drawn["photos"]:
                shares.append(row["foreground"])
                photos.append(row)
                if row.get("plain"):
                    plain.append(row["photo"])
        return hints_about(
            np.array(shares), self.prism, fitted_here=self.fitted_here, plain=plain, photos=photos
        )

    def outcome(self, watch: Stopwatch, opened: Opened, fitted_here: bool) -> Outcome:
        """What to tell the user."""
        rows: list[dict[str, Any]] = []
        missing = n_patches = 0
        unasked = set(elsewhere(self.gone, self.places))
        shown = set(self.gone)  # in figures alone: their pictures need no photo
        for drawn in self._all():
            rows += drawn["photos"][: max(0, 20 - len(rows))]
            gone = [
                row["photo"]
                for row in drawn["photos"]
                if "photo_missing" in row and row["photo"] not in drawn["lost"]
            ]
            missing += len(gone)
            unasked.update(elsewhere(gone, self.places))
            shown.difference_update(gone)
            n_patches += sum(drawn["counts"])
        return Outcome(
            n_photos=self.n_photos,
            n_patches=n_patches,
            failures=self.failures(),
            model=str(opened.origin.get("model")),
            weights_source=str(weights_of(opened.origin)),
            seconds=watch.seconds,
            prism=self.prism,
            fitted_here=fitted_here,
            missing=missing + len(shown),
            unasked=sorted(unasked),
            rows=rows,
            hints=self.hints(),
            notes=opened.notes,
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


def _read_json(folder: Folder, key: str) -> dict[str, Any]:
    """What a file of the work folder says; nothing where there is none, or a broken one."""
    try:
        found = json.loads(folder.read(key))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _small(shown: NDArray[np.uint8], box: int) -> NDArray[np.uint8]:
    """A crop no larger than about box² pixels: of two hundred of them, whole ones would fill the memory."""
    from PIL import Image

    scale = (box * box / (shown.shape[0] * shown.shape[1])) ** 0.5
    if scale >= 1:
        return shown
    size = max(1, round(shown.shape[1] * scale)), max(1, round(shown.shape[0] * scale))
    return np.asarray(Image.fromarray(shown).resize(size, Image.Resampling.LANCZOS))


def _indented(value: Any, spaces: int) -> str:
    # Not textwrap.indent: it takes U+2028 and its kin in a photo's name for ends of lines.
    space = " " * spaces
    return space + to_json(value, indent=2, ensure_ascii=False).replace("\n", f"\n{space}")
