"""Photos -> a view, in memory."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from patchprism.errors import OptionError, StoreError
from patchprism.features.extraction import Photos
from patchprism.features.patch_features import PatchFeatures
from patchprism.features.store import StoredFeatures
from patchprism.features.store.reader import LARGE, PhotoRow
from patchprism.jobs.inputs import listed_input, sampled
from patchprism.jobs.opened import Opened, resolved_for
from patchprism.jobs.render import color
from patchprism.jobs.source import MemorySource, StoreSource, read_all
from patchprism.jobs.view import View
from patchprism.photos.sources import StoredPhoto, places_for
from patchprism.support.memory import free_memory
from patchprism.support.reading import Note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.jobs.coloring import Coloring
    from patchprism.jobs.report import Colored
    from patchprism.jobs.run import Run
    from patchprism.jobs.settings import Settings


def make_view(
    photos: Any,
    settings: Settings,
    run: Run,
    coloring: Coloring,
    *,
    most: int | None = None,
    strict: bool = False,
) -> View:
    """Colour photos or the photos of a store, in memory.

    Parameters
    ----------
    photos : sequence
        Paths, addresses, images or arrays; or one feature store. The photos of a store are read, when they are
        first shown, from the places that the store names; a photo that is gone is shown as plain grey.
    most : int, optional
        Maximum number of photos. If a store has more and no sample was requested, a sample of this size is used.
    strict : bool
        Whether the first photo that cannot be read raises an error.
    """
    given, notes = listed_input(photos)
    shown: frozenset[str] | None = None  # None: all photos that are coloured
    if most is not None:
        coloring, shown = _at_most(most, given, coloring, notes)
    settings = resolved_for(settings, given, run, coloring)
    if isinstance(given, StoredFeatures):
        if run.backbone is not None:
            raise OptionError("backbone is not needed with a feature store")
        check_memory(given, len(shown) if shown else coloring.sample.count or len(given))
    colored = color(given, settings, run, coloring, strict=strict)
    if shown is not None:
        colored.opened.only = shown
    with run.watch("colour and write"):
        view = view_of(colored, notes, run.watch.seconds)
    if isinstance(given, StoredFeatures):
        sample, places = coloring.sample, places_for("", coloring.fetch_from)
        view.n_stored = len(given)
        view.store = [
            given.path,
            *(
                []
                if sample.count is None or colored.opened.only is None
                else ["--sample", str(sample.count), "--seed", str(sample.seed)]
            ),
            *(word for place in sorted(places) for word in ("--fetch-from", place)),
        ]
    return view


def _at_most(
    most: int, given: StoredFeatures | list[Any], coloring: Coloring, notes: list[Note]
) -> tuple[Coloring, frozenset[str] | None]:
    """The sample of a store that has more photos than a page shows: to fit on and show, or only to show with a prism.

    Raises
    ------
    OptionError
        If there are too many photos that are not from a store, or the sample itself is too large.
    """
    count, sample = len(given), coloring.sample
    if min(count, sample.count or count) <= most:
        return coloring, None
    if sample.count is not None or not isinstance(given, StoredFeatures):
        way = "give fewer photos"
        if not coloring.prism:
            way = f"use sample={most}, or {way}"
        raise OptionError(f"a page shows at most {most} photos, got {sample.count or count:,}: {way}")
    notes.append(Note("", f"a random sample of {most} of the store's {count:,} photos is shown"))
    if coloring.prism is None:
        return replace(coloring, sample=replace(sample, count=most)), None
    return coloring, frozenset(sampled(given.names, most, sample.seed))


def check_memory(store: StoredFeatures, count: int) -> None:
    """Refuse a store whose tokens do not fit into memory.

    Raises
    ------
    StoreError
        If they do not.
    """
    # At least float32; the fit and the colours use a copy.
    need = 2 * 4 * store.n_patches * store.width * count // len(store)
    if need > LARGE and need > free_memory():
        raise StoreError(
            f"{store.path}: its tokens take {need / 1e9:,.1f} GB, more memory than this machine "
            "has free; use `patchprism render`, which reads a store photo by photo, or show a part of it "
            "with sample=N"
        )


def features_of(opened: Opened, found: Sequence[tuple[PhotoRow, Any]]) -> PatchFeatures:
    """Tokens of a source as features that record how they were made."""
    features = PatchFeatures([tokens for _, tokens in found], [row.name for row, _ in found])
    features.origin = opened.origin
    if "framing" in opened.origin:
        framing = {"mean": list(opened.framing.mean), "std": list(opened.framing.std)}
        features.model = asdict(opened.record) | framing
    features.failures = [{"photo": each.photo, "reason": each.reason} for each in opened.failures]
    return features


def view_of(colored: Colored, notes: Sequence[Note], seconds: dict[str, float]) -> View:
    """A view of coloured photos: their tokens and colours, held in memory.

    Parameters
    ----------
    notes : sequence of Note
        Notes about the inputs of the job.
    seconds : dict
        Time spent in each stage.
    """
    opened, prism = colored.opened, colored.prism
    found = list(read_all(opened.source, opened.only))
    rows = [row for row, _ in found]
    features, photos = features_of(opened, found), photos_of(opened, rows)
    places = {row.name: place for place, row in enumerate(rows)}
    for note in opened.notes:  # notes on masks were added after the photos were read
        place = places.get(note.name)
        if place is not None and note.text not in photos.notes.get(place, ()):
            photos.notes[place] = (*photos.notes.get(place, ()), note.text)
    return View(
        photos=photos,
        framing=opened.framing,
        features=features,
        prism=prism,
        parts=[prism.split(tokens, name=row.name) for row, tokens in zip(rows, features, strict=True)],
        crops=[row.crop for row in rows],
        sizes=[row.size for row in rows],
        record=opened.record,
        weights=opened.weights,
        settings=opened.settings,
        fitted_here=colored.fitted_here,
        failures=opened.failures,
        seconds=seconds,
        origin=prism.origin if colored.fitted_here else opened.origin,
        plain=[row.name for row in rows if row.plain],
        notes=[note.text for note in (*notes, *opened.notes) if not note.name],
    )


def photos_of(opened: Opened, rows: Sequence[PhotoRow]) -> Photos:
    """The photos of a source, to be read again."""
    source = opened.source
    if isinstance(source, MemorySource):
        return source.photos
    names = [row.name for row in rows]
    if isinstance(source, StoreSource):
        stored = [StoredPhoto(row.name, row.size, source.places, source.reader) for row in rows]
        photos = Photos(stored, names)
    else:
        photos = Photos(names, names, range=opened.settings["range"])
        photos._seen = {i: (row.size, row.content) for i, row in enumerate(rows) if row.content}
    notes: dict[str, tuple[str, ...]] = {}
    for note in opened.notes:
        notes[note.name] = (*notes.get(note.name, ()), note.text)
    photos.notes = {i: notes[row.name] for i, row in enumerate(rows) if row.name in notes}
    return photos
