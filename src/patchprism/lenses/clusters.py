"""Clusters: k-means over the patches of all photos together, one colour a cluster in all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError
from patchprism.features.patch_features import as_tokens, check_tokens
from patchprism.lenses.base import Scene, rounded
from patchprism.lenses.sheet import Bar
from patchprism.pictures.outputs import LensResult
from patchprism.prism.oklab import distinct_colors
from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What "auto" chooses from, and the patches that it judges by: a silhouette's cost grows with their square.
AUTO_COUNTS = range(2, 13)
SAMPLE = 2000
# Kaufman and Rousseeuw's reading of a mean silhouette: below this, no substantial structure has been found.
WEAK_SILHOUETTE = 0.25


@dataclass(frozen=True)
class Clustering:
    """Clusters of patches, the largest first.

    Attributes
    ----------
    labels : ndarray, shape (n,), int64
    centers : ndarray, shape (k, D), float32
    inertia : float
        Sum of squared distances to the nearest centre.
    silhouettes : dict
        Mean silhouette on a sample, by number of clusters; empty unless the number was to be found.
    agreement : float
        Adjusted Rand index with the same done from another seed: 1 is the same split, 0 chance.
    """

    labels: NDArray[np.int64]
    centers: NDArray[np.float32]
    inertia: float
    silhouettes: dict[int, float]
    agreement: float


def cluster(rows: NDArray[np.floating], count: int | str, *, seed: int = 0) -> Clustering:
    """Mini-batch k-means of patches.

    Parameters
    ----------
    rows : ndarray, shape (n, D)
    count : int or "auto"
        ``"auto"`` takes the number from 2 to 12 with the best mean silhouette on 2,000 patches drawn by seed.
    seed : int

    Returns
    -------
    Clustering
        The same for the same rows in the same order and the same seed.

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
        # Of equals the smaller number; two where none could be judged.
        wanted = max(silhouettes, key=lambda k: (silhouettes[k], -k)) if silhouettes else 2
    fitted, other = _fit(rows, wanted, seed), _fit(rows, wanted, seed + 1)
    labels = fitted.labels_.astype(np.int64)
    # k-means numbers its clusters at random: the largest comes first.
    order = np.argsort(-np.bincount(labels, minlength=wanted), kind="stable")
    rank = np.argsort(order)
    return Clustering(
        rank[labels],
        fitted.cluster_centers_[order].astype(np.float32),
        float(fitted.inertia_),
        silhouettes,
        float(adjusted_rand_score(labels, other.labels_)),
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
    from threadpoolctl import threadpool_limits

    # In one thread: batches are small, and on a busy machine threads that wait for one another cost a factor of
    # ten. The result does not depend on the number of threads either.
    with threadpool_limits(1):
        return MiniBatchKMeans(count, random_state=seed, n_init=3, batch_size=1024, max_iter=100).fit(rows)


def look(scene: Scene) -> LensResult:
    """Clusters of the patches of all photos; see docs/lenses/clusters.md."""
    view = scene.view
    rows = np.concatenate([tokens.reshape(-1, tokens.shape[-1]) for tokens in view.features])
    found = cluster(rows, scene.options.clusters, seed=scene.options.seed)
    k = len(found.centers)
    ends = np.cumsum([h * w for h, w in view.features.grids])[:-1]
    maps = [
        part.reshape(grid)
        for part, grid in zip(np.split(found.labels, ends), view.features.grids, strict=True)
    ]
    palette = to_uint8(distinct_colors(k))
    auto = scene.options.clusters == "auto"
    chosen = "as asked"
    if auto:
        best = found.silhouettes.get(k, 0.0)
        weak = ", so the patches form no clear clusters" if best < WEAK_SILHOUETTE else ""
        chosen = f"chosen by silhouette ({best:.2f}{weak})"
    note = (
        f"{k} clusters, {chosen}; the largest first. From another seed the split agrees to {found.agreement:.2f} "
        "(adjusted Rand index: 1 the same, 0 chance)."
    )

    shares = [np.bincount(labels.ravel(), minlength=k) / labels.size for labels in maps]
    return LensResult(
        name="clusters",
        report={
            "clusters": k,
            "chosen_by": "silhouette" if auto else "given",
            "silhouettes": {str(count): rounded(value) for count, value in found.silhouettes.items()},
            "inertia": rounded(found.inertia, 3),
            "agreement_with_another_seed": rounded(found.agreement, 4),
            "sizes": [int(size) for size in np.bincount(found.labels, minlength=k)],
            "colors": ["#" + bytes(color).hex() for color in palette],
            "photos": [{"shares": [rounded(share, 4) for share in row]} for row in shares],
        },
        figures={"clusters": partial(_figure, scene, maps, palette, note)},
        pictures=[
            {"clusters": partial(_picture, scene, i, labels, palette)} for i, labels in enumerate(maps)
        ],
        arrays=[{"labels": labels} for labels in maps],
        shared_arrays={"centers": found.centers},
    )


def _figure(
    scene: Scene, maps: list[NDArray[np.int64]], palette: NDArray[np.uint8], note: str
) -> NDArray[np.uint8]:
    return scene.heat_sheet(
        maps,
        0,
        1,
        title="clusters: k-means over the patches of all photos",
        notes=[note],
        bar=Bar("largest", "smallest", palette),
        finish=palette.__getitem__,
    )


def _picture(
    scene: Scene, photo: int, labels: NDArray[np.int64], palette: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    if scene.options.upsample == "nearest":
        return scene.draw_map(photo, labels[..., None], lambda strip: palette[strip[..., 0].astype(np.intp)])
    # Labels have no middle: membership in each cluster is upsampled, and the strongest wins.
    member = np.eye(len(palette), dtype=np.float32)[labels]
    return scene.draw_map(photo, member, lambda strip: palette[strip.argmax(axis=-1)])
