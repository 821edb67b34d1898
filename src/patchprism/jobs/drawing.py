"""Draw the photos of a source, shard by shard."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.jobs.masks import Masks
from patchprism.jobs.report import photo_entry
from patchprism.jobs.source import SHARD, StoreSource, digest
from patchprism.jobs.writers import WRITERS
from patchprism.photos.sources import stamp_of
from patchprism.pictures.histogram import count_scores
from patchprism.pictures.picture import draw_picture, without_photo
from patchprism.pictures.render import write_arrays, write_picture
from patchprism.support.files import atomic_write
from patchprism.support.folders import LocalFolder
from patchprism.support.reading import BYTES_PER_PIXEL, claim, reading
from patchprism.support.written import Stamp, promise, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.lens import PhotoLens
    from patchprism.jobs.source import Source
    from patchprism.pictures.options import PictureOptions
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.estimator import Prism
    from patchprism.support.folders import Folder


@dataclass(kw_only=True)
class DrawTask:
    """Shards -> their photos' pictures in the output folder; the result contains what the report needs.

    Attributes
    ----------
    out : Folder
        Where pictures go.
    work : Folder, optional
        Folder that records which shards are drawn; none by default.
    key : str
        Digest of everything that pictures depend on, except the photos of the shard, their tokens and the stems of
        their files.
    agreements : mapping of int to float
        Agreements of the photos that were labelled for the fit, by place in the source.
    checked : int
        Number of photos, from the first, that are labelled here to compute their agreement.
    parts : sequence of PhotoColors, optional
        Each photo's colours, if they are already known.
    lenses : sequence of PhotoLens
        Lenses that look at each photo.
    seen : callable, optional
        Called for each photo that is done; only for tasks in this process.
    """

    prism: Prism
    source: Source
    out: Folder
    options: PictureOptions
    work: Folder | None = None
    key: str = ""
    agreements: Mapping[int, float] = field(default_factory=dict)
    checked: int = 0
    parts: Sequence[PhotoColors] | None = None
    lenses: Sequence[PhotoLens] = ()
    seen: Callable[[], None] | None = None

    @property
    def needs_device(self) -> bool:
        """See :class:`~patchprism.jobs.engines.Task`."""
        return any(lens.needs_backbone for lens in self.lenses)

    def run(self, items: Iterable[tuple[int, Sequence[str]]]) -> Iterator[dict[str, Any]]:
        """See :class:`~patchprism.jobs.engines.Task`; an item is a shard and the stems of its photos' files."""
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="patchprism-write") as pool:
            for shard, stems in items:
                if self.work is not None:
                    # Recorded before the first file, so that files of a killed run are recognised.
                    files = chain.from_iterable(map(self.options.photo_files, stems))
                    self.work.write(drawn_key(shard), json.dumps({"files": list(files)}).encode())
                photos, entries, lost = [], [], {}
                written: dict[str, Stamp] = {}
                counts = np.zeros_like(count_scores(np.zeros(0)))
                inside = 0
                places = range(shard * SHARD, shard * SHARD + len(stems))
                jobs = zip(self.source.read(shard), stems, places, strict=True)
                for photo, part, its, reason, found in _bounded(pool, self._photo, jobs, ahead=2 * WRITERS):
                    photos.append(photo)
                    entries.append(found)
                    written |= its
                    if reason is not None:
                        lost[photo["photo"]] = reason
                    counts += count_scores(part.score)
                    inside += int(part.foreground.sum())
                    if self.seen is not None:
                        self.seen()
                drawn = {
                    "key": self.key_of(shard, stems),
                    "photos": photos,
                    "counts": counts.tolist(),
                    "n_foreground": inside,
                    "lost": lost,
                    "lenses": entries,
                    "masks": [each.pop("masks") for each in entries if "masks" in each],
                    "files": written,
                }
                if self.work is not None:
                    self.work.write(drawn_key(shard), json.dumps(drawn).encode())
                yield drawn

    def key_of(self, shard: int, stems: Sequence[str]) -> str:
        """Digest of all that a shard's pictures depend on."""
        photos = []
        if isinstance(self.source, StoreSource) and (self._needs_photo or self.lenses):
            photos = [stamp_of(row.name, exact=True) for row in self.source.rows(shard)]
        return digest(self.key, self.source.key(shard), list(stems), photos)

    @property
    def _needs_photo(self) -> bool:
        return self.options.needs_photo

    def _photo(
        self, job: tuple[tuple[PhotoRow, Any], str, int]
    ) -> tuple[dict[str, Any], PhotoColors, dict[str, Stamp], str | None, dict[str, Any]]:
        (row, _), _, _ = job
        with reading():
            claim(row.size[0] * row.size[1] * BYTES_PER_PIXEL, row.name)
            return self._written(job)

    def _written(
        self, job: tuple[tuple[PhotoRow, Any], str, int]
    ) -> tuple[dict[str, Any], PhotoColors, dict[str, Stamp], str | None, dict[str, Any]]:
        (row, tokens), stem, index = job
        part = self.parts[index] if self.parts is not None else self.prism.split(tokens, name=row.name)
        photo, reason = self.source.photo(row) if self._needs_photo else (None, None)
        gone = self._needs_photo and photo is None
        files: dict[str, Stamp] = {}
        jobs = list(self._jobs(row, part, photo, stem)) if self.options.pca else []
        looks = {lens.name: lens.look(row, tokens, part, index) for lens in self.lenses}
        for lens, look in looks.items():
            made = look.jobs(lens, Path(stem), self.options)
            jobs += [(path.name, write) for path, write in made]
        masks: dict[str, Any] = {}
        if self.options.has_masks:
            draw, masks["masks"] = Masks(prism=self.prism, options=self.options).draw(
                row, tokens, part, photo
            )
            jobs += [(f"{stem}.mask.png", draw)] if "png" in self.options.masks else []
        for name, write in jobs:
            with self._staged(name) as path:
                write(path)
                files[name] = stamp(path)
                promise(self.out, name, files[name])
        doubts = self.prism.doubts(tokens, part.foreground, labelled=index < self.checked)
        if index in self.agreements:
            doubts["agreement"] = round(self.agreements[index], 4)
        masked = row.name in self.prism.masks
        photo_row = photo_entry(row, part, doubts, files=list(files), gone=gone, masked=masked)
        return photo_row, part, files, reason, {name: look.entry for name, look in looks.items()} | masks

    def _staged(self, name: str) -> AbstractContextManager[Path]:
        """A temporary path that becomes the file; in the same folder if there is no work folder."""
        if self.work is None and isinstance(self.out, LocalFolder):
            return atomic_write(self.out.path / name)
        staged: AbstractContextManager[Path] = self.out.staged(name)
        return staged

    def _jobs(
        self, row: PhotoRow, part: PhotoColors, photo: NDArray[np.uint8] | None, stem: str
    ) -> Iterator[tuple[str, Callable[[Path], None]]]:
        """The files of one photo, each with the function that writes it; without the photo, there is no overlay."""
        options = self.options
        style = {"upsample": options.upsample, "background": options.background, "basis": options.basis}
        if photo is None:
            style["upsample"], style["background"] = without_photo(options.upsample, options.background)

        def read() -> NDArray[np.uint8]:
            assert photo is not None
            return photo

        def drawn(path: Path, **changed: Any) -> None:
            picture = draw_picture(part, read, crop=row.crop, size=row.size, **(style | changed))
            write_picture(path, picture)

        yield f"{stem}.pca.{options.format}", drawn
        if options.overlay_alpha is not None and photo is not None:
            laid = partial(drawn, overlay_alpha=options.overlay_alpha, background="black")
            yield f"{stem}.overlay.{options.format}", laid
        if options.arrays:
            yield f"{stem}.npz", partial(write_arrays, part)


def drawn_key(shard: int) -> str:
    """Key in the work folder of the record of a shard's pictures."""
    return f"drawn/{shard:08d}.json"


def _bounded(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], *, ahead: int
) -> Iterator[Any]:
    """Like ``pool.map``, but at most ``ahead`` items are in work at once."""
    futures: deque[Any] = deque()
    for item in items:
        futures.append(pool.submit(work, item))
        if len(futures) >= ahead:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()
