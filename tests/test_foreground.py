"""Labels of a photo's patches and the direction learned from them, against a plain implementation."""

from __future__ import annotations

import json
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from patchprism.prism.estimator import Prism
from patchprism.prism.foreground import (
    CURVE_BINS,
    MOST_PATCHES,
    MOST_VOTERS,
    AgreementCurves,
    DirectionVotes,
    Voters,
    agreement,
    border_ratio,
    is_land,
    label_patches,
    labels_of,
    on_border,
    unit,
)
from patchprism.views.visualize import visualize


def photo(h=12, w=16, *, box=(3, 9, 4, 11), width=24, seed=0, noise=0.35):
    """Tokens of an object (two kinds of patches) on a background (three kinds), and the object's mask."""
    rng = np.random.default_rng(seed)
    kinds = np.linalg.qr(rng.normal(size=(width, 5)))[0].T
    kinds[1] = kinds[1] + 0.8 * kinds[0]  # the object's two halves are alike
    kinds[3:] = kinds[3:] + 0.8 * kinds[2]  # and so are the parts of the background
    which = 2 + (np.arange(w)[None, :] * 3 // w + np.zeros((h, 1), int))
    top, bottom, left, right = box
    which[top:bottom, left:right] = np.arange(top, bottom)[:, None] % 2
    mask = np.zeros((h, w), bool)
    mask[top:bottom, left:right] = True
    tokens = kinds[which] + noise / math.sqrt(width) * rng.normal(size=(h, w, width))
    return (7 * tokens).astype(np.float32), mask


def landscape(h=14, w=16, *, horizon=5, box=(8, 11, 6, 10), width=24, seed=0, noise=0.3):
    """Tokens of an object on land, its mask, and a sky that differs from the land much more than the object does."""
    rng = np.random.default_rng(seed)
    sky, land, object_ = np.linalg.qr(rng.normal(size=(width, 3)))[0].T
    tokens = np.empty((h, w, width))
    tokens[:horizon], tokens[horizon:] = sky - land, land
    top, bottom, left, right = box
    tokens[top:bottom, left:right] = 0.8 * land + object_
    mask = np.zeros((h, w), bool)
    mask[top:bottom, left:right] = True
    return (tokens + noise / math.sqrt(width) * rng.normal(size=tokens.shape)).astype(np.float32), mask


# ---------------------------------------------------------------- a plain implementation of the rules


def plain_labels(tokens):
    """Labels by loops over patches and cuts, written only from the rules in the documentation."""
    h, w, _ = tokens.shape
    n = h * w
    x = tokens.reshape(n, -1).astype(float)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = x @ x.T
    tau = (cosine.mean() + np.percentile(cosine[:: max(1, n // 256)], 90)) / 2
    graph = np.where(cosine > tau, 1.0, 1e-5)

    rng = np.random.default_rng(0)
    centres = [x[np.argmax(np.linalg.norm(x - x.mean(axis=0), axis=1))]]
    while len(centres) < min(16, n):
        nearest = np.array([min(((p - c) ** 2).sum() for c in centres) for p in x])
        centres.append(x[rng.choice(n, p=nearest / nearest.sum())])
    centres = np.array(centres)
    owner = None
    for _ in range(30):
        closest = np.array([np.argmin(((p - centres) ** 2).sum(axis=1)) for p in x])
        if owner is not None and (closest == owner).all():
            break
        owner = closest
        for k in range(len(centres)):
            if (owner == k).any():
                centres[k] = x[owner == k].mean(axis=0)
    distance = np.array([((p - centres) ** 2).sum(axis=1) for p in x])
    temperature = (1 - distance.min(axis=1).mean()) / 2
    q = np.exp(-distance / temperature)
    q /= q.sum(axis=1, keepdims=True)

    def mask_with(border, cosine=cosine, graph=graph, q=q):
        n = len(q)
        vote = q[~border].mean(axis=0) / (q[~border].mean(axis=0) + q[border].mean(axis=0))
        first = q @ vote
        second = []
        for i in range(n):
            others = sorted((cosine[i, j] for j in np.flatnonzero(border) if j != i), reverse=True)
            count = max(1, int(border.sum()) // 3)
            second.append(1 - np.mean(others[:count]))
        cue = sum((each - np.min(each)) / (np.max(each) - np.min(each)) for each in (first, np.array(second)))
        order = np.argsort(-cue)
        best = None
        for kept in range(max(2, math.ceil(0.01 * n)), int(0.95 * n) + 1):
            inside = np.zeros(n, bool)
            inside[order[:kept]] = True
            cut = graph[np.ix_(inside, ~inside)].sum()
            cost = cut / graph[inside].sum() + cut / graph[~inside].sum()
            if best is None or cost < best[0]:
                best = cost, inside
        return best[1]

    ring = np.array([y in (0, h - 1) or x_ in (0, w - 1) for y in range(h) for x_ in range(w)])
    lower = np.array([y == h - 1 and 0 < x_ < w - 1 for y in range(h) for x_ in range(w)])
    first = mask_with(ring & ~lower)
    border = ring & ~lower
    if first[border].mean() / first.mean() < 0.4:
        return first.reshape(h, w)
    second = mask_with(ring).reshape(h, w)
    edges = [second[-1], second[:, 0], second[:, -1]]
    if second[0].mean() >= 0.05 or min(edge.mean() for edge in edges) < 0.5:
        return second
    land = np.flatnonzero(second)
    if border[land].all():
        return second
    part = cosine[np.ix_(land, land)]
    tau = (part.mean() + np.percentile(part[:: max(1, len(land) // 256)], 90)) / 2
    third = np.zeros(n, bool)
    third[land] = mask_with(border[land], part, np.where(part > tau, 1.0, 1e-5), q[land])
    return third.reshape(h, w) if third.any() else second


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("box", [(3, 9, 4, 11), (5, 12, 4, 12), (0, 8, 1, 15), (6, 12, 0, 16)])
def test_labels_are_those_of_a_plain_implementation(box, seed):
    tokens, _ = photo(box=box, seed=seed, noise=0.9)
    np.testing.assert_array_equal(label_patches(tokens), plain_labels(tokens))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.3, 0.7])
def test_labels_on_land_are_those_of_a_plain_implementation(noise, seed):
    tokens, _ = landscape(seed=seed, noise=noise)
    np.testing.assert_array_equal(label_patches(tokens), plain_labels(tokens))


# ---------------------------------------------------------------- properties of the labels


@pytest.mark.parametrize(
    "box",
    [(3, 9, 4, 11), (5, 12, 4, 12), (2, 12, 3, 14), (3, 9, 0, 6), (3, 9, 10, 16)],
    ids=["inside", "lower edge", "large", "left edge", "right edge"],
)
def test_an_object_is_labelled_at_every_position(box):
    tokens, mask = photo(box=box)
    np.testing.assert_array_equal(label_patches(tokens), mask)


@pytest.mark.parametrize("box", [(8, 11, 6, 10), (10, 14, 5, 9)], ids=["on land", "cut by the lower edge"])
def test_land_under_a_sky_is_no_object(box):
    tokens, mask = landscape(box=box)
    np.testing.assert_array_equal(label_patches(tokens), mask)


@pytest.mark.parametrize(
    ("box", "land"),
    [
        (np.s_[4:], True),
        (np.s_[5:, :], True),
        (np.s_[:], False),
        (np.s_[4:, :9], False),
        (np.s_[4:9], False),
        (np.s_[6:], False),
        (np.s_[:6], False),
    ],
    ids=["all below a line", "half the sides", "all", "not the right", "not the lower", "too low", "the sky"],
)
def test_which_patches_are_land(box, land):
    mask = np.zeros((10, 12), bool)
    mask[box] = True
    assert is_land(mask) == land


def test_land_without_an_object_keeps_its_labels():
    tokens, _ = landscape(box=(0, 0, 0, 0), noise=0)
    land = np.zeros(tokens.shape[:2], bool)
    land[5:] = True
    np.testing.assert_array_equal(label_patches(tokens), land)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e18, 1e37])
def test_labels_depend_only_on_directions(scale):
    tokens, mask = photo()
    np.testing.assert_array_equal(label_patches(tokens.astype(np.float64) * scale), mask)


def test_large_grids_are_labelled_two_by_two():
    tokens, mask = photo(h=48, w=61, box=(12, 36, 16, 44), noise=0.2)
    assert tokens.shape[0] * tokens.shape[1] > MOST_PATCHES
    labels = label_patches(tokens)
    assert labels.shape == mask.shape
    assert (labels & mask).sum() / (labels | mask).sum() > 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (2, 7), (3, 3)])
@pytest.mark.parametrize("kind", ["zeros", "constant", "noise"])
def test_small_and_uniform_grids_are_no_error(shape, kind):
    rng = np.random.default_rng(0)
    tokens = {
        "zeros": np.zeros((*shape, 8)),
        "constant": np.ones((*shape, 8)),
        "noise": rng.normal(size=(*shape, 8)),
    }[kind].astype(np.float32)
    labels = label_patches(tokens)
    assert labels.shape == shape
    if kind != "noise":
        assert not labels.any()


def test_unit_tokens():
    tokens = np.array([[[3.0, 4.0], [0.0, 0.0]], [[1e38, 0.0], [1e-40, 1e-40]]], np.float64)
    expected = [[[0.6, 0.8], [0.0, 0.0]], [[1.0, 0.0], [math.sqrt(0.5)] * 2]]
    np.testing.assert_allclose(unit(tokens), expected, rtol=1e-6)


def test_border_ratio():
    mask = np.zeros((4, 5), bool)
    assert border_ratio(mask) == 0
    mask[1:3, 1:4] = True
    assert border_ratio(mask) == 0
    mask[0] = True
    assert border_ratio(mask) == pytest.approx((5 / 14) / (11 / 20))


# ---------------------------------------------------------------- the direction


def test_the_direction_is_the_mean_of_differences_and_merges():
    photos = [photo(seed=0, h=8, w=8 + i, box=(2, 5, 2, 6)) for i in range(5)]
    whole, parts = DirectionVotes(Voters(5)), [DirectionVotes(Voters(5)) for _ in range(2)]
    for i, (tokens, _) in enumerate(photos):
        whole.add(i, tokens)
        parts[i % 2].add(i, tokens)
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))
    differences = []
    for i, (tokens, mask) in enumerate(photos):
        np.testing.assert_array_equal(labels_of(whole.labels, i, mask.shape), mask)
        rows = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
        differences.append(rows[mask].mean(axis=0) - rows[~mask].mean(axis=0))
    np.testing.assert_allclose(whole.direction(), np.mean(differences, axis=0), atol=1e-6)
    np.testing.assert_allclose(parts[0].direction(), whole.direction(), atol=1e-12)
    assert parts[0].labels == whole.labels


def test_photos_of_one_class_do_not_vote():
    votes = DirectionVotes(Voters(2))
    votes.add(0, np.ones((6, 6, 8), np.float32))
    assert votes.direction() is None
    votes.add(1, photo(width=8)[0])
    assert votes.count == 1
    assert votes.direction() is not None


@pytest.mark.parametrize("count", [1, 2, MOST_VOTERS, MOST_VOTERS + 1, 10_000, 1_000_003])
def test_voters_are_evenly_spaced(count):
    voters = [i for i in range(count) if i in Voters(count)]
    assert MOST_VOTERS / 2 <= len(voters) <= MOST_VOTERS or len(voters) == count
    assert len(set(np.diff(voters).tolist())) <= 1
    assert voters[0] == 0


def test_the_threshold_is_the_middle_of_those_that_agree_best_with_the_labels():
    rng = np.random.default_rng(1)
    curves = AgreementCurves()
    scores, labels = [], []
    for _ in range(7):
        label = rng.random((9, 11)) < 0.4
        score = np.clip(0.3 + 0.3 * label + 0.12 * rng.normal(size=label.shape), 0, 1).astype(np.float32)
        scores.append(score)
        labels.append(label)
        curves.add(score, label)
    curves.add(scores[0], np.zeros_like(labels[0]))  # only one class, which is ignored
    thresholds = np.arange(CURVE_BINS) / CURVE_BINS
    means = [
        np.mean([((s > t) & m).sum() / ((s > t) | m).sum() for s, m in zip(scores, labels, strict=True)])
        for t in thresholds
    ]
    first = last = int(np.argmax(means))
    while first > 0 and means[first - 1] >= 0.99 * max(means):
        first -= 1
    while last < CURVE_BINS - 1 and means[last + 1] >= 0.99 * max(means):
        last += 1
    assert last > first + 1
    assert curves.best() == thresholds[(first + last) // 2]
    np.testing.assert_allclose(curves.total[1:] / curves.count, means[1:], rtol=1e-12)


@pytest.mark.parametrize(
    ("curve", "best"),
    [
        ([1.0] * CURVE_BINS, (CURVE_BINS - 1) // 2),
        ([0.0] * CURVE_BINS, (CURVE_BINS - 1) // 2),
        ([1.0] + [0.0] * (CURVE_BINS - 1), 0),
        ([0.0] * (CURVE_BINS - 1) + [1.0], CURVE_BINS - 1),
        ([0.995, 0.5, 0.995, 1.0, 0.995] + [0.0] * (CURVE_BINS - 5), 3),
    ],
    ids=["all alike", "no votes", "first", "last", "a gap"],
)
def test_the_threshold_of_odd_curves(curve, best):
    curves = AgreementCurves()
    curves.total = np.array(curve)
    assert curves.best() == best / CURVE_BINS


def test_on_border():
    assert on_border(3, 4).sum() == 10
    assert on_border(1, 4).all()


# ---------------------------------------------------------------- in a prism


def scene(count=5, **options):
    photos = [photo(h=8 + i, w=12, box=(2, 6 + i, 3, 9), seed=0, **options) for i in range(count)]
    return [tokens for tokens, _ in photos], [mask for _, mask in photos]


def test_the_prism_finds_the_objects_and_reports_its_labels():
    photos, masks = scene()
    prism = Prism().fit(photos)
    for tokens, mask in zip(photos, masks, strict=True):
        np.testing.assert_array_equal(prism.foreground_of(tokens), mask)
    summary = prism.summary()
    assert (summary["foreground"], summary["side"], summary["threshold_from"]) == (
        "object",
        "above",
        "labels",
    )
    assert (summary["n_voters"], summary["agreement"]) == (5, 1.0)
    assert summary["side_reason"] == "learned from labels of 5 photos (agreement 100%)"
    assert prism.agreements == dict.fromkeys(range(5), 1.0)
    assert prism.hints() == []


def test_scores_are_those_of_a_plain_computation():
    photos, _ = scene(noise=0.9)
    prism = Prism().fit(photos)
    units = [each / np.linalg.norm(each.astype(float), axis=-1, keepdims=True) for each in photos]
    labels = [plain_labels(each) for each in photos]
    direction = np.mean(
        [u[m].mean(axis=0) - u[~m].mean(axis=0) for u, m in zip(units, labels, strict=True) if m.any()],
        axis=0,
    )
    np.testing.assert_allclose(prism.direction_, direction, atol=1e-6)
    values = [u @ direction for u in units]
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    scores = [(v - low) / (high - low) for v in values]
    for tokens, expected in zip(photos, scores, strict=True):
        np.testing.assert_allclose(prism.score_of(tokens), expected, atol=1e-4)
    thresholds = np.arange(CURVE_BINS) / CURVE_BINS
    means = [np.mean([agreement(s > t, m) for s, m in zip(scores, labels, strict=True)]) for t in thresholds]
    # Because of rounding, a patch may be in the next bin.
    assert means[round(prism.threshold_ * CURVE_BINS)] == pytest.approx(max(means), abs=0.02)
    assert prism.agreement_ == pytest.approx(max(means), abs=0.02)
    both = [(s, m) for s, m in zip(scores, labels, strict=True) if m.any()]
    for kind in (False, True):
        of_class = np.concatenate([s[m == kind] for s, m in both])
        assert prism.label_counts[int(kind)].sum() == len(of_class)
        centre = prism.label_counts[int(kind)] @ (thresholds + 0.5 / CURVE_BINS) / len(of_class)
        assert centre == pytest.approx(of_class.mean(), abs=1e-3)
    assert Prism(foreground="pca").fit(photos).label_counts is None


def test_a_loaded_prism_tells_which_photos_to_check(tmp_path):
    photos, _ = scene(noise=0.9)
    fitted = visualize(features=photos)
    fitted.prism.save(tmp_path / "a.prism")
    loaded = visualize(features=photos, prism=Prism.load(tmp_path / "a.prism"))
    assert [each["agreement"] for each in fitted.doubts()] == [
        round(value, 4) for _, value in sorted(fitted.prism.agreements.items())
    ]
    assert loaded.doubts() == fitted.doubts()
    loaded.save(tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [each["agreement"] for each in report["photos"]] == [each["agreement"] for each in fitted.doubts()]


def test_doubts_are_contrast_likeness_and_border_ratio():
    tokens, mask = photo()
    prism = Prism().fit([tokens])
    rows = (tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)).astype(float)
    doubts = prism.doubts(tokens, mask)
    expected = np.linalg.norm(rows[mask].mean(axis=0) - rows[~mask].mean(axis=0))
    assert doubts["contrast"] == pytest.approx(expected, abs=1e-4)
    flat = rows.reshape(-1, rows.shape[-1])
    assert doubts["likeness"] == pytest.approx((flat @ flat.T).mean(), abs=1e-4)
    assert doubts["border_ratio"] == 0
    assert prism.doubts(tokens, np.ones_like(mask))["contrast"] == 0


def test_other_photos_need_no_labels(monkeypatch):
    photos, masks = scene()
    prism = Prism().fit(photos[:3])
    monkeypatch.setattr("patchprism.prism.foreground.label_patches", None)
    for tokens, mask in zip(photos[3:], masks[3:], strict=True):
        np.testing.assert_array_equal(prism.split(tokens).foreground, mask)


@pytest.mark.parametrize("order", [[4, 2, 0, 1, 3], [3, 4, 0, 2, 1]])
def test_the_order_of_photos_changes_nothing(order):
    photos, _ = scene(noise=0.9)
    prism, other = Prism().fit(photos), Prism().fit([photos[i] for i in order])
    np.testing.assert_allclose(other.direction_, prism.direction_, atol=1e-12)
    assert other.threshold_ == prism.threshold_
    for tokens in photos:
        np.testing.assert_array_equal(other.foreground_of(tokens), prism.foreground_of(tokens))


def test_a_prism_with_a_direction_is_loaded_from_its_file(tmp_path):
    photos, _ = scene(noise=0.9)
    prism = Prism().fit(photos)
    prism.save(tmp_path / "a.prism")
    again = Prism.load(tmp_path / "a.prism")
    assert again.summary() == prism.summary()
    for tokens in photos:
        np.testing.assert_array_equal(again.split(tokens).rgb, prism.split(tokens).rgb)
        np.testing.assert_array_equal(again.split(tokens).score, prism.split(tokens).score)
    again.save(tmp_path / "b.prism")
    assert (tmp_path / "b.prism").read_bytes() == (tmp_path / "a.prism").read_bytes()


def test_without_labels_the_first_component_is_used():
    """Grids of one or two patches have no inside; the side is chosen by the borders, as with pca."""
    rng = np.random.default_rng(0)
    photos = rng.normal(size=(3, 1, 2, 8)).astype(np.float32)
    prism = Prism().fit(photos)
    assert prism.direction_ is None
    assert prism.summary()["foreground"] == "pca"
    assert prism.threshold_ == Prism(foreground="pca").fit(photos).threshold_


@pytest.mark.parametrize("component", [1, 2, 3])
def test_a_component_can_be_chosen(component):
    photos, _ = scene(noise=0.9)
    prism = Prism(foreground="pca", foreground_component=component).fit(photos)
    values = np.concatenate([prism.scene_components(each)[..., component - 1].ravel() for each in photos])
    scores = np.concatenate([prism.score_of(each).ravel() for each in photos])
    expected = (values - values.min()) / (values.max() - values.min())
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.25, "otsu"])
def test_a_threshold_can_be_given_with_the_direction(threshold):
    photos, _ = scene(noise=0.9)
    prism = Prism(threshold=threshold).fit(photos)
    assert prism.direction_ is not None
    if threshold == "otsu":
        assert prism.summary()["threshold_from"] == "otsu"
    else:
        assert prism.threshold_ == threshold
        np.testing.assert_array_equal(prism.foreground_of(photos[0]), prism.score_of(photos[0]) > threshold)


def test_shards_give_the_same_prism_as_memory(tmp_path):
    from patchprism.jobs.engines import open_engine
    from patchprism.jobs.fitting import fit
    from patchprism.jobs.run import Run

    photos, _ = scene(7, noise=0.9)
    names = [f"p{i}" for i in range(7)]

    class Source:
        n_shards = 1

        def read(self, shard):
            for name, tokens in zip(names, photos, strict=True):
                yield SimpleNamespace(name=name), tokens

    with open_engine("local") as engine:
        prism = fit(Prism(), SimpleNamespace(source=Source(), only=None, origin={}), Run(engine=engine))
        opened = SimpleNamespace(source=Source(), only=frozenset(names[2:5]), origin={})
        sampled = fit(Prism(), opened, Run(engine=engine))
    memory = Prism().fit(photos)
    assert prism.summary() == memory.summary()
    np.testing.assert_allclose(prism.direction_, memory.direction_, atol=1e-12)
    assert prism.agreements == memory.agreements
    np.testing.assert_array_equal(prism.label_counts, memory.label_counts)
    assert sampled.summary() == Prism().fit(photos[2:5]).summary()


def test_frames_of_a_video_get_the_same_foreground():
    from patchprism.jobs.video.steady import FrameColors

    photos, _ = scene(noise=0.9)
    prism = Prism().fit(photos)
    frames = FrameColors(prism)
    for tokens in photos:
        frame, part = frames.split(tokens), prism.split(tokens)
        np.testing.assert_array_equal(frame.foreground, part.foreground)
        np.testing.assert_allclose(frame.score, part.score, atol=1e-5)
