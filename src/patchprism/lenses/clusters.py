"""Clusters: k-means over the patches of all photos together; a cluster has the same colour in every photo."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from patchprism.errors import OptionError
from patchprism.features.patch_features import as_tokens, check_tokens
from patchprism.lenses.base import Lens, rounded
from patchprism.lenses.passes import Sample
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.outputs import LensResult, PhotoLook
from patchprism.pictures.palette import class_colors
from patchprism.pictures.sheet import Key
from patchprism.support.arrays import to_uint8
from patchprism.support.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.lenses.scene import Scene
    from patchprism.pictures.sheet import Sheet
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.passes import Walk

# Numbers of clusters that "auto" tries, and the size of its sample of patches. The cost of a silhouette grows with
# the square of that size.
AUTO_COUNTS = range(2, 13)
SAMPLE = 2000
# Below this mean silhouette, no substantial structure has been found (Kaufman and Rousseeuw).
WEAK_SILHOUETTE = 0.25
# Maximum number of values that k-means is fitted on, 128 MB: all patches of 85 photos of 32 x 32 patches at width 384.
# If there are more, a random share of the patches is used.
FITTED_VALUES = 1 << 25


@dataclass(frozen=True)
class Clustering:
    """Clusters of patches, the largest first.

    Attributes
    ----------
    means : MiniBatchKMeans
        The fitted k-means, with its clusters in another order.
    rank : ndarray, shape (k,), int64
        For each cluster of ``means``, its number in the result.
    labels : ndarray, shape (n,), int64
    centers : ndarray, shape (k, D), float32
    inertia : float
        Sum of squared distances to the nearest centre.
    silhouettes : dict
        Mean silhouette on a sample, by number of clusters; empty if the number was given.
    agreement : float
        Adjusted Rand index with a fit from another seed: 1 means the same split, 0 agreement by chance. NaN if
        it was not requested.
    """

    means: Any
    rank: NDArray[np.int64]
    labels: NDArray[np.int64]
    centers: NDArray[np.float32]
    inertia: float
    silhouettes: dict[int, float]
    agreement: float

    def assign(self, tokens: Tokens) -> NDArray[np.int64]:
        """The cluster of each token, (..., D) -> (...)."""
        rows = np.ascontiguousarray(tokens.reshape(-1, tokens.shape[-1]), np.float32)
        with one_thread():
            labels: NDArray[np.int64] = self.rank[self.means.predict(rows)].reshape(tokens.shape[:-1])
        return labels


def cluster(
    rows: NDArray[np.floating], count: int | str, *, seed: int = 0, agreement: bool = True
) -> Clustering:
    """Mini-batch k-means of patches.

    Parameters
    ----------
    rows : ndarray, shape (n, D)
    count : int or "auto"
        ``"auto"`` chooses the number from 2 to 12 with the best mean silhouette on 2,000 random patches.
    agreement : bool
        Whether to fit again from another seed and compare.

    Returns
    -------
    Clustering
        Identical for the same rows in the same order and the same seed.

    Raises
    ------
    OptionError
        If there are fewer different patches than clusters.
    FeaturesError
        If a row is not finite, or larger than 1e12.
    """
    from sklearn.metrics import adjusted_rand_score

    rows = as_tokens(rows)
    check_tokens(rows, "features")
    rows = np.ascontiguousarray(rows, np.float32)
    wanted = 2 if count == "auto" else int(count)
    some = rows[:: max(1, len(rows) // SAMPLE)]
    if len(np.unique(some, axis=0)) < wanted and len(np.unique(rows, axis=0)) < wanted:
        raise OptionError(f"clusters must be at most the number of different patches, got {wanted}")
    silhouettes: dict[int, float] = {}
    if count == "auto":
        silhouettes = _judge(rows[np.random.default_rng(seed).permutation(len(rows))[:SAMPLE]], seed)
        # In a tie, the smaller number; 2 if no silhouette could be computed.
        wanted = max(silhouettes, key=lambda k: (silhouettes[k], -k)) if silhouettes else 2
    fitted = _fit(rows, wanted, seed)
    labels = fitted.labels_.astype(np.int64)
    agreed = adjusted_rand_score(labels, _fit(rows, wanted, seed + 1).labels_) if agreement else np.nan
    # k-means numbers its clusters at random; here the largest comes first.
    order = np.argsort(-np.bincount(labels, minlength=wanted), kind="stable")
    rank = np.argsort(order)
    return Clustering(
        fitted,
        rank,
        rank[labels],
        fitted.cluster_centers_[order].astype(np.float32),
        float(fitted.inertia_),
        silhouettes,
        float(agreed),
    )


def _judge(sample: NDArray[np.float32], seed: int) -> dict[int, float]:
    """Mean silhouette for each number of clusters that the sample allows."""
    from sklearn.metrics import pairwise_distances, silhouette_score

    distances = pairwise_distances(sample)
    distinct = len(np.unique(sample, axis=0))
    found: dict[int, float] = {}
    for k in AUTO_COUNTS:
        if k >= distinct:
            break
        labels = _fit(sample, k, seed).labels_
        if len(np.unique(labels)) > 1:
            found[k] = float(silhouette_score(distances, labels, metric="precomputed"))
    return found


def _fit(rows: NDArray[np.float32], count: int, seed: int) -> Any:
    from sklearn.cluster import MiniBatchKMeans

    # In one thread: batches are small, and on a busy machine, threads that wait for one another make it ten times
    # slower. This also makes the result independent of the number of threads.
    with one_thread():
        return MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=1024, max_iter=100).fit(rows)


def rows_to_fit(scene: Scene, walk: Walk) -> NDArray[np.floating]:
    """Patches to fit k-means on, (n, D): all patches of a scene, or a sample that fits into memory."""
    _, first = scene.tokens(0)
    share = FITTED_VALUES / (scene.n_patches * first.shape[-1])
    rows: NDArray[np.floating] = walk(partial(Sample, _rows, share, scene.options.seed)).rows()
    return rows


class Clusters(Lens):
    """Clusters of the patches of all photos; see docs/lenses/clusters.md."""

    name = "clusters"

    def fit(self, walk: Walk) -> Self:
        """See :class:`Lens`: k-means on all patches, or on a share of them that fits into memory."""
        options = self.scene.options
        self.n_patches_ = self.scene.n_patches
        rows = rows_to_fit(self.scene, walk)
        self.found_ = cluster(rows, options.clusters, seed=options.seed)
        self.n_fitted_ = len(rows)
        self.palette_ = to_uint8(class_colors(len(self.found_.centers)))
        return self

    def learned(self) -> Any:
        """See :class:`Lens`."""
        return [self.found_.centers, self.found_.rank]

    def look(self, row: PhotoRow, tokens: Tokens, part: PhotoColors, index: int) -> PhotoLook:
        """See :class:`Lens`."""
        labels = self.found_.assign(tokens)
        sizes = np.bincount(labels.ravel(), minlength=len(self.palette_))
        return PhotoLook(
            {"clusters": partial(self._picture, row, labels)}, {"labels": labels}, sizes.tolist()
        )

    @property
    def meaning(self) -> str:
        """See :class:`Lens`."""
        colors = ", ".join("#" + bytes(color).hex() for color in self.palette_)
        return f"{len(self.palette_)} clusters: {colors}"

    def paint(self, tokens: Tokens, score: NDArray[np.floating[Any]], pixels: Any) -> NDArray[np.uint8]:
        """See :class:`Lens`."""
        return self.palette_[self.found_.assign(tokens)]

    def result(self, entries: Sequence[Any]) -> LensResult:
        """See :class:`Lens`."""
        found, sizes = self.found_, np.array(entries)
        report = {
            "clusters": len(found.centers),
            "chosen_by": "silhouette" if self._auto else "given",
            "silhouettes": {str(count): rounded(value) for count, value in found.silhouettes.items()},
            "patches_fitted": self.n_fitted_,
            "inertia": rounded(found.inertia, 3),
            "agreement_with_another_seed": rounded(found.agreement, 4),
            "sizes": sizes.sum(axis=0).tolist(),
            "colors": ["#" + bytes(color).hex() for color in self.palette_],
            "photos": [{"shares": [rounded(share, 4) for share in row / row.sum()]} for row in sizes],
        }
        return LensResult(
            name=self.name,
            report=report,
            figures={"clusters": Drawing(partial(self._figure, sizes.sum(axis=0)))},
            shared_arrays={"centers": found.centers},
        )

    @property
    def _auto(self) -> bool:
        return self.scene.options.clusters == "auto"

    def _figure(self, sizes: NDArray[np.int64]) -> Sheet:
        found, k, chosen = self.found_, len(self.palette_), "as requested"
        if self._auto:
            best = found.silhouettes.get(k, 0.0)
            weak = ", so the patches form no clear clusters" if best < WEAK_SILHOUETTE else ""
            chosen = f"chosen by silhouette ({best:.2f}{weak})"
        note = (
            f"k-means over the patches of all photos: {k} clusters, {chosen}; the largest first, with their shares of "
            "all patches. The agreement with a fit from another seed is "
            f"{found.agreement:.2f} (adjusted Rand index: 1 is the same split, 0 is chance)."
        )
        if self.n_fitted_ < self.n_patches_:
            note += f" Fitted on {self.n_fitted_:,} of {self.n_patches_:,} patches."
        return self.sheet(
            [(row, self.palette_[found.assign(tokens)]) for _, row, tokens in self.first()],
            notes=[note],
            keys=tuple(
                Key((int(red), int(green), int(blue)), f"{n}: {_percent(share)}")
                for n, ((red, green, blue), share) in enumerate(
                    zip(self.palette_, sizes / sizes.sum(), strict=True), start=1
                )
            ),
        )

    def _picture(self, row: PhotoRow, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        palette, draw = self.palette_, self.scene.draw_map
        if self.scene.upsample == "nearest":
            return draw(row, labels[..., None], lambda strip: palette[strip[..., 0].astype(np.intp)])
        # Labels cannot be interpolated, so membership in each cluster is upsampled, and the strongest wins.
        member = np.eye(len(palette), dtype=np.float32)[labels]
        return draw(row, member, lambda strip: palette[strip.argmax(axis=-1)])


def _percent(share: float) -> str:
    return "under 1 %" if 0 < share < 0.005 else f"{share:.0%}".replace("%", " %")


def _rows(tokens: Tokens) -> Tokens:
    return tokens.reshape(-1, tokens.shape[-1])
