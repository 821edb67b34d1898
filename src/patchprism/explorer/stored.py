"""The feature store of a page: shows other photos of it, and searches all of them for similar patches."""

from __future__ import annotations

import base64
import heapq
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError
from patchprism.features.extraction import Photos
from patchprism.features.patch_features import PatchFeatures
from patchprism.features.store import StoredFeatures
from patchprism.jobs.settings import with_mask
from patchprism.photos.sources import StoredPhoto, grey, read_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.view import View
    from patchprism.prism.estimator import Prism

    Tell = Callable[[str, int, int | None], None]

MAX_SHOWN = 200  # photos, as in the command
MATCHES = 24  # of a search
BLOCK = 256  # photos whose rows are read at once
CROP_PATCHES = 5  # side of the crop around a match, in patches
CROP_SIDE = 96  # pixels
# Besides network and photo, tokens depend on these settings.
_TOKENS = ("layer", "facet", "token_norm", "final_norm")


@dataclass
class Stored:
    """The feature store that a page was opened with.

    Attributes
    ----------
    features : StoredFeatures
    first : View
        The view of the page when it was opened, with some of the photos.
    """

    features: StoredFeatures
    first: View

    @classmethod
    def of(cls, view: View) -> Stored | None:
        """The store of a view, or None."""
        return None if view.store is None else cls(StoredFeatures(view.store[0]), view)

    def __len__(self) -> int:
        return len(self.features)

    def check(self, view: View) -> None:
        """Check that the tokens of a view and of the store come from the same network and layer.

        Raises
        ------
        OptionError
            If they do not.
        """
        first = self.first
        alike = all(view.settings.get(name) == first.settings.get(name) for name in _TOKENS)
        if (view.record.name, view.weights.sha256) != (first.record.name, first.weights.sha256) or not alike:
            raise OptionError(
                f"the feature store has tokens of {first.record.name} as it was opened; go back to that model first"
            )

    def rows(self) -> Iterator[tuple[int, PhotoRow]]:
        """All photos with their places in the store, a block at a time."""
        store = self.features[:]  # a copy, because threads must not share its cached chunk of names
        for start in range(0, len(store), BLOCK):
            yield from enumerate(store.rows(start, min(start + BLOCK, len(store))), start)

    def named(self, text: str) -> list[int]:
        """Places of the photos whose names contain a text; case is ignored."""
        wanted = text.casefold()
        return [at for at, row in self.rows() if wanted in row.name.casefold()]

    def photo(self, row: PhotoRow) -> StoredPhoto:
        """A photo that is read when it is first shown, in the same way as those of the first view."""
        places, reader = self._reading
        return StoredPhoto(row.name, row.size, places, reader)

    @property
    def _reading(self) -> tuple[Collection[str], Any]:
        source = self.first.photos.sources[0]
        assert isinstance(source, StoredPhoto)
        return source.places, source.reader

    # ------------------------------------------------------------ other photos

    def shown(self, view: View, keep: Sequence[int], places: Sequence[int], *, tell: Tell) -> View:
        """A view of some photos of another view and of photos of the store, in the same colours.

        Parameters
        ----------
        view : View
        keep : sequence of int
            Rows of the view, in their order.
        places : sequence of int
            Photos to add, by their places in the store. No photo is shown twice.

        Raises
        ------
        OptionError
            If there is no such photo, none would be shown, or too many.
        """
        self.check(view)
        if any(not 0 <= row < len(view) for row in keep) or any(not 0 <= at < len(self) for at in places):
            raise OptionError("there is no such photo")
        keep = sorted(set(keep))
        kept = {view.names[row] for row in keep}
        found = []
        store = self.features[:]
        for number, at in enumerate(sorted(set(places))):
            tell("photos", number, len(places))
            found += [each for each in store.read(at, at + 1) if each[0].name not in kept]
        if not 1 <= len(keep) + len(found) <= MAX_SHOWN:
            raise OptionError(f"a page shows 1 to {MAX_SHOWN} photos, not {len(keep) + len(found)}")
        rows = [row for row, _ in found]
        names = [*(view.names[row] for row in keep), *(row.name for row in rows)]
        sources = [*(view.photos.sources[row] for row in keep), *map(self.photo, rows)]
        photos = Photos(sources, names, range=view.photos.range)
        photos.notes |= {
            new: view.photos.notes[row] for new, row in enumerate(keep) if row in view.photos.notes
        }
        tokens = list(view.features)
        plain = {row.name for row in rows if row.plain} | (kept & set(view.plain))
        made = replace(
            view,
            photos=photos,
            features=PatchFeatures([*(tokens[row] for row in keep), *(each for _, each in found)], names),
            crops=[*(view.crops[row] for row in keep), *(row.crop for row in rows)],
            sizes=[*(view.sizes[row] for row in keep), *(row.size for row in rows)],
            parts=[],
            plain=[name for name in names if name in plain],
            store=None,
            fitted_here=False,
            failures=[],
            seconds={},
        )
        return made.recolored(view.prism, fit=False)

    def drawn(self, text: str, seed: int, most: int) -> list[int]:
        """Places of photos whose names contain a text; a random sample if there are more than ``most``.

        Raises
        ------
        OptionError
            If there is no such photo.
        """
        found = self.named(text)
        if not found:
            raise OptionError(f"no photo of the store has a name that contains {text!r}")
        if len(found) <= most:
            return found
        chosen = np.random.default_rng(seed).choice(len(found), most, replace=False)
        return [found[at] for at in sorted(chosen.tolist())]

    # ------------------------------------------------------------ search

    def search(
        self, view: View, photo: int, patch: int, mask: dict[str, Any], *, everywhere: bool, tell: Tell
    ) -> list[dict[str, Any]]:
        """Find the photos of the store with the patches that are most similar to a patch.

        The tokens of one photo are in memory at a time.

        Parameters
        ----------
        view : View
            View with the photo of the patch. This photo is not searched.
        photo, patch : int
            Row of the photo in the view, and index of the patch in its grid.
        mask : dict
            ``mask_threshold``, ``mask_side``, ``opening`` and ``closing``: the foreground that is shown.
        everywhere : bool
            Whether matches may lie in the background.

        Returns
        -------
        list of dict
            The best patch of each photo, best first: ``name``, ``source`` (the full name), ``place`` in the store,
            ``patch``, ``value`` (cosine similarity), ``mutual`` (whether the searched patch is the best match of this
            patch in its photo), and ``crop``, a picture around the match as a data URL.

        Raises
        ------
        OptionError
            If there is no such patch.
        """
        self.check(view)
        if not 0 <= photo < len(view) or not 0 <= patch < np.prod(view.features.grids[photo]):
            raise OptionError("there is no such patch")
        prism = None if everywhere else _prism_shown(view.prism, mask)
        own = _unit(view.features[photo])
        best: list[tuple[float, int, int, NDArray[np.float32], PhotoRow]] = []
        store, name = self.features[:], view.names[photo]
        for start in range(0, len(store), BLOCK):
            tell("photos searched", start, len(store))
            for place, (row, tokens) in enumerate(store.read(start, min(start + BLOCK, len(store))), start):
                least = best[0][0] if len(best) == MATCHES else -np.inf
                found = None if row.name == name else _best(tokens, own[patch], least, prism, row.name)
                if found is not None:
                    # Between equal values, the first place in the store wins.
                    entry = (found[0], -place, found[1], found[2], row)
                    (heapq.heappush if len(best) < MATCHES else heapq.heappushpop)(best, entry)
        among = np.ones(len(own), dtype=bool)
        if prism is not None:
            among = prism.split(view.features[photo], name=name).foreground.ravel()
            among[patch] = True
        return [self._told(each, own, among, patch) for each in sorted(best, reverse=True)]

    def _told(
        self,
        found: tuple[float, int, int, NDArray[np.float32], PhotoRow],
        own: NDArray[np.float32],
        among: NDArray[np.bool_],
        patch: int,
    ) -> dict[str, Any]:
        value, place, at, token, row = found
        back = np.where(among, own @ token, -np.inf)
        return {
            "name": Path(row.name).name,
            "source": row.name,
            "place": -place,
            "patch": at,
            "value": round(value, 4),
            "mutual": int(back.argmax()) == patch,
            "crop": self._crop(row, at),
        }

    def _crop(self, row: PhotoRow, patch: int) -> str:
        """A crop around a patch as WebP in a data URL; grey if the photo is missing."""
        from PIL import Image

        places, reader = self._reading
        photo = read_stored(row.name, row.size, places, reader)
        left, top, right, bottom = row.crop
        h, w = row.grid
        side = CROP_PATCHES * (right - left) / w
        x = left + (patch % w + 0.5) / w * (right - left) - side / 2
        y = top + (patch // w + 0.5) / h * (bottom - top) - side / 2
        image = Image.fromarray(grey((CROP_SIDE, CROP_SIDE)) if photo is None else photo)
        if photo is not None:
            box = (round(x), round(y), round(x + side), round(y + side))
            image = image.crop(box).resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=70)
        return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _unit(tokens: Tokens) -> NDArray[np.float32]:
    """Tokens (h, w, D) as unit rows, (h * w, D); zeros stay zeros."""
    rows: NDArray[np.float32] = tokens.reshape(-1, tokens.shape[-1]).astype(np.float32)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.where(largest > 0, largest, 1)  # no square overflows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, 1)
    return rows


def _best(
    tokens: Tokens, query: NDArray[np.float32], least: float, prism: Prism | None, name: str
) -> tuple[float, int, NDArray[np.float32]] | None:
    """Cosine, index and unit token of the best patch of a photo; None if it is not better than ``least``."""
    rows = _unit(tokens)
    cosine = rows @ query
    if cosine.max() <= least:  # true for most photos, whose foreground is then not needed
        return None
    if prism is not None:
        cosine[~prism.split(tokens, name=name).foreground.ravel()] = -np.inf
    at = int(cosine.argmax())
    return (float(cosine[at]), at, rows[at]) if cosine[at] > least else None


def _prism_shown(prism: Prism, mask: dict[str, Any]) -> Prism:
    """A prism with the foreground that the page shows."""
    options = dict(mask)
    if (options["mask_side"], options["mask_threshold"]) == (prism.side_, prism.threshold_):
        options |= {"mask_side": None, "mask_threshold": None}
    elif options["mask_side"] == "none":
        options["mask_threshold"] = None
    return with_mask(prism, options)
