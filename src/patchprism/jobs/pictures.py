"""Write the results of a job: the pictures of each photo, the figures of all photos, the prism and the report."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import EngineError, OutputError
from patchprism.jobs.drawing import DrawTask, drawn_key
from patchprism.jobs.engines import WorkerLost
from patchprism.jobs.figures import first_photos, origin_of, overview, plan, seed_columns
from patchprism.jobs.fitting import state_of
from patchprism.jobs.masks import mask_files
from patchprism.jobs.report import report_head, report_tail, with_notes, write_report
from patchprism.jobs.run import Outcome
from patchprism.jobs.source import Failure, StoreSource, digest, rows_of
from patchprism.jobs.writers import WRITERS
from patchprism.photos.paths import unique_stems
from patchprism.photos.sources import StoredPhoto, elsewhere, stored_paths
from patchprism.pictures.figure_options import FIGURE_OPTIONS
from patchprism.pictures.figures import MAX_PHOTOS
from patchprism.pictures.histogram import count_scores
from patchprism.pictures.outputs import captions, figure_jobs, photo_jobs, write_text
from patchprism.support.memory import give_back_memory
from patchprism.support.version import __version__
from patchprism.support.written import Record, Stamp

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from patchprism.jobs.lens import Looking, PhotoLens
    from patchprism.jobs.report import Colored
    from patchprism.jobs.run import Run
    from patchprism.pictures.drawing import Drawing
    from patchprism.pictures.options import PictureOptions
    from patchprism.pictures.outputs import LensResult
    from patchprism.support.folders import Folder
    from patchprism.support.written import Output

# File in the work folder with the names of the figures that this job writes.
_FIGURES = "figures.json"
# Photos that a summary shows.
SHOWN_ROWS = 20


@dataclass
class _Sums:
    """Combined results of all drawn shards."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros_like(count_scores(np.zeros(0))))
    inside: int = 0
    lost: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)  # photos of a store that were missing or had changed
    lenses: list[dict[str, Any]] = field(default_factory=list)
    photos: list[dict[str, Any]] = field(default_factory=list)  # the entries that hints need
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, drawn: Mapping[str, Any]) -> None:
        self.counts += np.array(drawn["counts"])
        self.inside += drawn["n_foreground"]
        self.lost |= drawn["lost"]
        self.lenses += drawn["lenses"]
        self.rows += drawn["photos"][: SHOWN_ROWS - len(self.rows)]
        for photo in drawn["photos"]:
            if "photo_missing" in photo and photo["photo"] not in drawn["lost"]:
                self.gone.append(photo["photo"])
            self.photos.append({key: photo[key] for key in photo.keys() - {"size", "grid", "crop", "files"}})


class Pictures:
    """Writes the pictures of a job, and combines the results.

    Parameters
    ----------
    work : Folder, optional
        Folder that records what is done, so that an interrupted run can be resumed; none by default.
    lenses : sequence of LensResult
        Results of other lenses, for photos in memory.
    looking : Looking, optional
        Lenses that look at the photos while they are drawn.
    """

    def __init__(
        self,
        colored: Colored,
        output: Output,
        options: PictureOptions,
        run: Run,
        *,
        work: Folder | None = None,
        lenses: Sequence[LensResult] = (),
        looking: Looking | None = None,
    ) -> None:
        self.colored, self.output, self.options, self.run = colored, output, options, run
        self.opened, self.prism, self.source = colored.opened, colored.prism, colored.opened.source
        self.work, self.lenses, self.looking = work, list(lenses), looking
        self.fitted: Sequence[PhotoLens] = ()
        # Not "or": an empty set of places may know the store's folder.
        self.places = frozenset() if self.opened.places is None else self.opened.places
        self.n_photos = 0
        self.stems: list[list[str]] = []  # of each shard
        self.gone: set[str] = set()  # of a store's photos that the figures show
        self.lost: dict[str, str] = {}  # photos that were gone or replaced when they were drawn, and why
        self.sums = _Sums()
        self.hints: list[str] = []
        self._drawn: dict[int, dict[str, Any]] = {}  # without a work folder: the outcome of each shard

    def write(self) -> list[str]:
        """Write everything, and return the names of the files: figures, each photo's, the prism, the report."""
        if self.looking is not None:
            with self.run.watch("fit lenses"):
                self.fitted = self.looking.fit(self.colored, self.run)
        with self.run.watch("colour and write"):
            self._draw()
            self._sum_up()
            self._give_back_memory()
            if self.work is not None:
                names = [*self.options.figure_files(), *self.options.mask_files()]
                self.work.write(_FIGURES, json.dumps({"files": names}).encode())
            figures = self._write_figures()
            figures += self._write_masks()
            figures += self._write_lenses()
        saved = self.output.save_prism(self.prism.save)
        head = report_head(self.colored, self.run.watch.seconds)
        found = {lens.name: lens.report for lens in self.lenses}
        tail = report_tail(self.opened, self.hints, self.failures(), found)
        of_photos: list[str] = []

        def photos() -> Iterator[dict[str, Any]]:
            for photo in with_notes(self._photos(), self.opened):
                of_photos.extend(photo["files"])
                yield photo

        with self.output.staged("report.json") as path:
            write_report(path, head, dict(self.output.written), photos(), tail)
        self.output.finish()
        return [*figures, *of_photos, *saved, "report.json"]

    def _sum_up(self) -> None:
        for drawn in self._all():
            self.sums.add(drawn)
            self.output.written |= {name: Stamp(*made) for name, made in drawn["files"].items()}
        self.hints = self.colored.hints(self.sums.photos)

    # ------------------------------------------------------------ photos

    def _draw(self) -> None:
        """Write the pictures of all shards that have none yet."""
        of_shard = [self.source.rows(shard) for shard in range(self.source.n_shards)]
        rows = list(chain.from_iterable(of_shard))
        stems = unique_stems([Path(row.name).name for row in rows])
        self.n_photos = len(stems)
        following = iter(stems)  # a shard has fewer photos if some have failed
        self.stems = [list(islice(following, len(its))) for its in of_shard]
        agreements, checked = self.colored.agreements()
        task = DrawTask(
            prism=self.prism,
            source=self.source,
            out=self.output.folder,
            options=self.options,
            work=self.work,
            # The digest is over all fields, so that fields of later versions are included.
            key=digest(
                __version__,
                state_of(self.prism),
                # Figures are always drawn again, so their options count only if lenses draw figures of single photos.
                {
                    key: value
                    for key, value in asdict(self.options).items()
                    if self.fitted or key not in FIGURE_OPTIONS
                },
                sorted(self.places),
                [lens.key for lens in self.fitted],
            ),
            agreements=agreements,
            checked=checked,
            parts=self.colored.parts,
            lenses=self.fitted,
        )
        if self.options.pca:  # what cannot be drawn is refused before anything is written
            columns = seed_columns(self.colored, self.n_photos)
            plan(rows[:MAX_PHOTOS], self.n_photos, self.options, columns)
        names = [*self.options.names(stems), *self._lens_names(stems, [row.name for row in rows])]
        _check_distinct(names)
        self._remove_stale()
        self.output.claim(names, self._read(row.name for row in rows))
        done = ahead = 0

        def todo() -> Iterator[tuple[int, list[str]]]:
            nonlocal done
            for shard, its in enumerate(self.stems):
                if self._is_drawn(task, shard):
                    done += len(its)
                else:
                    yield shard, its

        def seen() -> None:
            nonlocal ahead
            ahead += 1
            self.run.tell("pictures", done + ahead, self.n_photos)

        self.run.tell("pictures", 0, self.n_photos)
        task.seen = seen if self.run.engine.local else None
        for (shard, its), result in self.run.engine.map(task, todo()):
            if isinstance(result, WorkerLost):
                raise EngineError(
                    f"workers died repeatedly while drawing pictures of shard {shard}: {result.reason}"
                )
            if self.work is None:
                self._drawn[shard] = result
            done, ahead = done + len(its), 0
            self.run.tell("pictures", done, self.n_photos)

    def _read(self, names: Iterable[str]) -> Iterable[str | os.PathLike[str]]:
        """The files that this job reads, which it must not write."""
        photos = getattr(self.source, "photos", None)
        if photos is not None:
            for each in photos.sources:
                if isinstance(each, StoredPhoto):
                    yield from each.paths
                elif isinstance(each, (str, Path)):
                    yield each
        elif isinstance(self.source, StoreSource):
            for name in names:
                yield from stored_paths(name, self.places)
        else:
            yield from names

    def _remove_stale(self) -> None:
        """Remove files that an earlier run with other options or photos wrote, and that this run does not write."""
        if self.work is None:
            return
        ours = self.work.keys("drawn")
        if not ours and self.work.size(_FIGURES) is None:
            return
        mine = {name for its in self.stems for stem in its for name in self.options.photo_files(stem)}
        mine.update([*self.options.figure_files(), *self.options.mask_files()])
        if self.looking is not None:
            names = [row.name for row in rows_of(self.source)]
            mine.update(self._lens_names([stem for its in self.stems for stem in its], names))
        markers = {f"drawn/{name}" for name in ours}
        record = Record(self.output.folder)
        for key in (*markers, _FIGURES):
            for name in read_json(self.work, key).get("files", ()):
                # The folder may belong to the user, so only files in its record are removed.
                if name not in mine and name in record:
                    self.output.folder.remove(name)
        for key in markers - {drawn_key(shard) for shard in range(len(self.stems))}:
            self.work.remove(key)

    def _is_drawn(self, task: DrawTask, shard: int) -> bool:
        """Whether all pictures of a shard are still as they were written, and none was drawn without its photo."""
        if self.work is None:
            return False
        drawn = read_json(self.work, drawn_key(shard))
        if drawn.get("key") != task.key_of(shard, self.stems[shard]):
            return False
        made = {name: Stamp(*stamp) for name, stamp in drawn["files"].items()}
        whole = not any("photo_missing" in photo for photo in drawn["photos"])
        return whole and self.output.folder.unchanged(made)

    def _all(self) -> Iterator[dict[str, Any]]:
        for shard in range(self.source.n_shards):
            drawn = self._drawn.get(shard) if self.work is None else read_json(self.work, drawn_key(shard))
            if drawn is None or "photos" not in drawn:
                raise OutputError(self.output.folder.name, "its work folder was changed while the job ran")
            yield drawn

    def _photos(self) -> Iterator[dict[str, Any]]:
        for drawn in self._all():
            yield from drawn["photos"]

    # ------------------------------------------------------------ other lenses

    def _lens_names(self, stems: Sequence[str], photos: Sequence[str]) -> Iterator[str]:
        if self.looking is not None:
            yield from self.looking.files(stems, photos, self.options)
        for path, _ in figure_jobs(self.lenses, Path(), self.options):
            yield path.name
        for index, stem in enumerate(stems):
            for path, _ in photo_jobs(self.lenses, index, Path(stem), self.options):
                yield path.name

    def _write_lenses(self) -> list[str]:
        """Write the results of other lenses, and return the names of their figures and tables."""
        if not self.fitted and not self.lenses:
            return []
        self.lenses += [lens.result([each[lens.name] for each in self.sums.lenses]) for lens in self.fitted]
        patches = int(self.sums.counts.sum())
        for lens in self.lenses:
            lens.origin = lens.origin or origin_of(self.opened, self.n_photos, patches)
        made = []
        for path, write in figure_jobs(self.lenses, Path(), self.options):
            with self.output.staged(path.name) as part:
                write(part)
            made.append(path.name)
        if self.looking is not None:
            self.lost |= dict(self.looking.lost())
        stems = [stem for its in self.stems for stem in its]
        # Results of lenses in memory; lenses that looked during the drawing have already written theirs.
        for index, (photo, stem) in enumerate(zip(self._photos(), stems, strict=True)):
            for path, write in photo_jobs(self.lenses, index, Path(stem), self.options):
                with self.output.staged(path.name) as part:
                    write(part)
                photo["files"].append(path.name)
        return made

    # ------------------------------------------------------------ all together

    def _write_figures(self) -> list[str]:
        """Write the figures, and return their names."""
        names = self.options.figure_files()
        if not names:
            return []
        first = first_photos(self.colored, self.n_photos, self.options)
        figures = overview(self.colored, first, self.sums.counts, self.sums.inside, self.options)
        self.gone |= first.gone
        self.lost |= first.lost
        *figure_names, caption = names

        def write(name: str, drawing: Drawing) -> None:
            with self.output.staged(name) as path:
                drawing.save(path)
            self._give_back_memory()  # a figure of 200 photos takes 100 MB while it is drawn

        # One after the other if the memory must not grow.
        with ThreadPoolExecutor(WRITERS if self.work is None else 1) as pool:
            for future in [
                pool.submit(write, *each) for each in zip(figure_names, figures.values(), strict=True)
            ]:
                future.result()
        with self.output.staged(caption) as path:
            origin = origin_of(self.opened, self.n_photos, int(self.sums.counts.sum()))
            write_text(captions(figures, origin), path)
        return names

    def _give_back_memory(self) -> None:
        """Return free memory to the system if memory must not grow; otherwise not, because it takes 0.1 s each time."""
        if self.work is not None:
            give_back_memory()

    def _write_masks(self) -> list[str]:
        """Write the files that contain the masks of all photos, and return their names."""
        made = []
        for name, write in mask_files(self.options, self.prism, self._all):
            with self.output.staged(name) as path:
                write(path)
            made.append(name)
        return made

    def failures(self) -> list[Failure]:
        """Photos that could not be processed, and those that were gone or replaced when they were drawn."""
        lost = self.lost | self.sums.lost
        told = {each.photo for each in self.opened.failures}  # some by an earlier save of the same view
        more = [Failure(name, reason) for name, reason in lost.items() if name not in told]
        return [*self.opened.failures, *more]

    def outcome(self) -> Outcome:
        """The outcome of the job, once everything is written."""
        gone = {*self.sums.gone, *self.gone}  # figures also need photos when the pictures need none
        return Outcome(
            n_photos=self.n_photos,
            n_patches=int(self.sums.counts.sum()),
            failures=self.failures(),
            model=self.opened.record.title,
            weights_source=str(self.opened.weights),
            seconds=self.run.watch.seconds,
            prism=self.prism,
            missing=len(gone),
            unasked=sorted(set(elsewhere(gone, self.places))),
            rows=self.sums.rows,
            hints=self.hints,
            notes=self.opened.notes,
        )


def read_json(folder: Folder, key: str) -> dict[str, Any]:
    """Contents of a file of the work folder; empty if it is missing or broken."""
    try:
        found = json.loads(folder.read(key))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_distinct(names: Sequence[str]) -> None:
    """Refuse two files of the same name. Stems are unique, but one may end like a suffix (``a`` and ``a.norm``)."""
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise OutputError(name, "two files of this job would get this name; rename one of the photos")
        seen.add(name.casefold())
