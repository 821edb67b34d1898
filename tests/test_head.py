"""The head: an independent solution of its objective, labels from masks of any size, scikit-learn's API, its file."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from sklearn.base import clone

from patchprism import Head, PatchFeatures, Prism
from patchprism.errors import FeaturesError, HeadError, OptionError, PhotoError, PrismError
from patchprism.jobs.video.steady import FrameColors
from patchprism.photos.framing import Framing
from patchprism.prism.head import LabelledRows
from patchprism.prism.labels import class_shares, patch_labels

WIDTH = 12
CLASSES = ("ground", "left half", "right half")


def photos(grids=((8, 9), (7, 7), (9, 8)), seed=0):
    """Tokens with an object of two halves in the middle, and the class of each patch."""
    rng = np.random.default_rng(seed)
    tokens, masks = [], []
    for h, w in grids:
        each, mask = 0.5 * rng.normal(size=(h, w, WIDTH)).astype(np.float32), np.zeros((h, w), int)
        mask[2:-2, 2 : w // 2], mask[2:-2, w // 2 : -2] = 1, 2
        each[..., 0] += 2
        each[mask == 1, 1] += 3
        each[mask == 2, 2] += 3
        tokens.append(each)
        masks.append(mask)
    return tokens, masks


def solved(tokens, masks, n_classes, C):
    """Decisions by direct minimisation of the documented objective over all K vectors."""
    x = np.concatenate([t.reshape(-1, WIDTH) for t in tokens]).astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.concatenate([m.ravel() for m in masks])
    inside = y >= 0
    n = np.bincount(y[inside], minlength=n_classes)
    s = inside.sum() / (n_classes * n)

    def objective(flat):
        w, b = flat[:-n_classes].reshape(n_classes, WIDTH), flat[-n_classes:]
        z = x[inside] @ w.T + b
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        right = log_p[np.arange(len(z)), y[inside]]
        slope = s[y[inside], None] * (np.exp(log_p) - np.eye(n_classes)[y[inside]])
        gradient = np.concatenate([(w + C * slope.T @ x[inside]).ravel(), C * slope.sum(axis=0)])
        return 0.5 * (w * w).sum() - C * (s[y[inside]] * right).sum(), gradient

    found = minimize(
        objective, np.zeros(n_classes * (WIDTH + 1)), jac=True, method="BFGS", options={"gtol": 1e-7}
    )
    return found.x[:-n_classes].reshape(n_classes, WIDTH), found.x[-n_classes:]


@pytest.mark.parametrize(("n_classes", "C"), [(2, 10.0), (3, 10.0), (3, 0.5)])
def test_the_fit_is_the_minimum_of_the_documented_objective(n_classes, C):
    tokens, masks = photos()
    masks = [np.minimum(mask, n_classes - 1) for mask in masks]
    masks[1][:, 3] = -1
    head = Head(C=C).fit(tokens, masks)
    weights, bias = solved(tokens, masks, n_classes, C)
    np.testing.assert_allclose(head.weights_, weights, atol=2e-4)
    np.testing.assert_allclose(head.bias_ - head.bias_[0], bias - bias[0], atol=2e-4)
    assert abs(head.bias_.sum()) < 1e-9
    assert np.abs(head.weights_.sum(axis=0)).max() < 1e-9
    unit = tokens[0] / np.linalg.norm(tokens[0], axis=-1, keepdims=True)
    z = unit @ weights.T + bias
    p = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(head.predict_proba(tokens)[0], p, atol=2e-3)
    np.testing.assert_allclose(head.score_of(tokens[0]), 1 - p[..., 0], atol=2e-3)
    np.testing.assert_array_equal(head.predict(tokens)[0] > 0, head.score_of(tokens[0]) > 0.5)


def test_order_of_photos_and_scale_of_tokens_do_not_matter():
    tokens, masks = photos()
    head = Head().fit(tokens, masks)
    turned = Head().fit([1e6 * each for each in tokens[::-1]], masks[::-1])
    np.testing.assert_allclose(turned.weights_, head.weights_, atol=1e-5)
    for mine, theirs in zip(head.predict(tokens), turned.predict(tokens), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert head.to_bytes() == Head().fit(tokens, masks).to_bytes()


def test_a_few_clicks_are_enough_and_photos_without_clicks_are_ignored():
    tokens, masks = photos()
    clicks = np.full(masks[0].shape, 255, np.uint8)
    for number in range(3):
        clicks[tuple(np.argwhere(masks[0] == number)[0])] = number
    head = Head(classes=CLASSES).fit(tokens, {"photo-1": clicks})
    assert head.classes_ == CLASSES
    assert (head.n_photos_, head.n_patches_) == (1, (1, 1, 1))
    agree = [(found == mask).mean() for found, mask in zip(head.predict(tokens), masks, strict=True)]
    assert min(agree) > 0.6
    alone = Head(classes=CLASSES).fit(tokens[:1], [clicks])
    np.testing.assert_array_equal(alone.weights_, head.weights_)


def test_masks_of_any_size_give_the_labels_of_their_areas_through_the_crop():
    framing = Framing(size=56, patch_size=14, mean=(0, 0, 0), std=(1, 1, 1), crop="center")
    rng = np.random.default_rng(3)
    height, width = 90, 130
    mask = np.kron(rng.integers(0, 3, (5, 6)), np.ones((18, 22), int))[:height, :width]
    framed = framing.apply(np.zeros((height, width, 3), np.uint8))
    left, top, right, bottom = framed.crop
    # Brute force: each patch is sampled 600 times in both directions.
    at = (np.arange(4 * 600) + 0.5) / (4 * 600)
    rows = np.floor(top + at * (bottom - top)).astype(int)
    columns = np.floor(left + at * (right - left)).astype(int)
    sampled = mask[rows][:, columns].reshape(4, 600, 4, 600)
    expected = np.stack([(sampled == k).mean(axis=(1, 3)) for k in range(3)], axis=-1)
    shares = class_shares(mask, (4, 4), framing.covered(height, width), 3)
    np.testing.assert_allclose(shares, expected, atol=2e-3)
    np.testing.assert_allclose(shares.sum(axis=-1), 1)
    labels = patch_labels(shares)
    np.testing.assert_array_equal(labels, np.where(expected.max(-1) >= 0.75, expected.argmax(-1), -1))
    assert {-1, 0} < set(labels.ravel().tolist())  # some are mixed, most are not
    features = PatchFeatures([rng.normal(size=(4, 4, WIDTH))])
    features.origin = {"framing": framing.to_dict()}
    head = Head().fit(features, [mask])
    assert head.n_patches_ == tuple((labels == k).sum() for k in range(3))
    assert head.origin == features.origin


def test_a_scribble_of_one_pixel_labels_its_patch():
    shares = class_shares(np.where(np.eye(64, dtype=bool), 1, -1), (4, 4), (0, 0, 1, 1), 2)
    np.testing.assert_array_equal(patch_labels(shares), np.where(np.eye(4, dtype=bool), 1, -1))


def test_white_is_object_if_all_masks_are_black_and_white():
    tokens, masks = photos()
    boolean = Head().fit(tokens, [mask > 0 for mask in masks])
    white = Head().fit(tokens, [(255 * (mask > 0)).astype(np.uint8) for mask in masks])
    np.testing.assert_array_equal(white.weights_, boolean.weights_)
    assert boolean.classes_ == ("background", "object")


@pytest.mark.parametrize(
    ("masks", "error", "words"),
    [
        ([None, None, None], OptionError, "label no patch as background, object"),
        ([np.zeros((8, 9), int), None, None], OptionError, "label no patch as object"),
        ([np.ones((8, 9), bool), None, None], OptionError, "label no patch as background"),
        (
            [np.zeros((8, 9))] + [None] * 2,
            PhotoError,
            r"photo-1: its mask must be .* got \(8, 9\) of float64",
        ),
        ([np.full((8, 9), 300)] + [None] * 2, PhotoError, "photo-1: its mask has the value 300"),
        ([np.full((8, 9), -7)] + [None] * 2, PhotoError, "photo-1: its mask has the value -7"),
        ([np.zeros((8, 9, 3), bool)] + [None] * 2, PhotoError, r"\(8, 9, 3\) of bool"),
        ([np.zeros((0, 9), bool)] + [None] * 2, PhotoError, "photo-1"),
        ([None], OptionError, "one per photo .* got 1 for 3 photos"),
        ({"dog.png": np.ones((8, 9), int)}, OptionError, "there is no photo 'dog.png'"),
        (7, OptionError, "masks must be a sequence with a mask or None per photo, or masks by photo, got 7"),
    ],
)
def test_masks_that_cannot_be_used_are_named(masks, error, words):
    with pytest.raises(error, match=words):
        Head().fit(photos()[0], masks)


def test_a_mask_of_another_shape_than_its_photo_is_refused():
    framing = Framing(size=56, patch_size=14, mean=(0, 0, 0), std=(1, 1, 1))
    features = PatchFeatures([np.random.default_rng(0).normal(size=(4, 6, WIDTH))], ["dog.png"])
    features.origin = {"framing": framing.to_dict()}
    with pytest.raises(PhotoError, match=r"dog.png: its mask of 40 x 40 has another shape than the photo"):
        Head().fit(features, [np.eye(40, dtype=bool)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"C": 0}, "C must be a number from"),
        ({"classes": ("one",)}, "classes must be 2 to 255 names"),
        ({"classes": ("a", "a")}, "classes must differ"),
        ({"classes": ("a", "\n")}, "classes must be printable"),
        ({"classes": ("a", "b", "c", "d")}, "label no patch as d"),
        ({"classes": ("a", "b")}, "photo-1: its mask has the value 2: classes are 0 to 1"),
    ],
)
def test_options_are_checked_by_the_fit(options, words):
    tokens, masks = photos()
    with pytest.raises((OptionError, PhotoError), match=words):
        Head(**options).fit(tokens, masks)


def test_scikit_learn_can_clone_it():
    tokens, masks = photos()
    head = Head(C=3.0, classes=CLASSES).fit(tokens, masks)
    again = clone(head)
    assert again.get_params() == head.get_params()
    assert not again.is_fitted
    assert again.set_params(C=1.0).C == 1.0
    with pytest.raises(OptionError, match="Head has no option 'c'"):
        head.set_params(c=1)
    assert "right half; taught on 3 photos" in repr(head)


def test_tokens_are_checked():
    tokens, masks = photos()
    head = Head().fit(tokens, masks)
    with pytest.raises(HeadError, match="taught on features of width 12, got 5"):
        head.predict([np.zeros((2, 2, 5))])
    with pytest.raises(HeadError, match="not fitted"):
        Head().predict(tokens)
    with pytest.raises(HeadError, match="not fitted"):
        Head().to_bytes()
    tokens[1][0, 0, 0] = np.nan
    with pytest.raises(FeaturesError, match="photo-2: features must be finite"):
        Head().fit(tokens, masks)


def test_many_patches_are_thinned_evenly_in_every_class(monkeypatch):
    tokens, masks = photos()
    monkeypatch.setattr("patchprism.prism.head.MOST_NUMBERS", 3 * WIDTH * 3 * 4)
    rows = LabelledRows({i: mask.astype(np.int16) for i, mask in enumerate(masks)})
    for i, each in enumerate(tokens):
        rows.update(each, i)
    found, classes = rows.joined()
    assert found.shape == (len(classes), WIDTH)
    assert np.bincount(classes).max() <= 3 * 4
    assert np.bincount(classes).min() >= 3 * 2


# ---------------------------------------------------------------- its file


@pytest.fixture
def saved(tmp_path):
    tokens, masks = photos()
    head = Head(classes=CLASSES).fit(tokens, masks)
    head.origin = {"model": "dinov2_vits14", "layer": 8}
    path = tmp_path / "halves.head.safetensors"
    head.save(path)
    return head, path


def test_a_head_is_loaded_as_it_was_saved(saved):
    head, path = saved
    again = Head.load(path)
    assert again.to_bytes() == head.to_bytes() == path.read_bytes()
    assert (again.classes_, again.n_photos_, again.origin) == (CLASSES, 3, head.origin)
    np.testing.assert_array_equal(again.weights_, head.weights_)
    assert again.get_params() == head.get_params()


def rewritten(path, change):
    tensors = load_file(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    said = json.loads(header["__metadata__"]["patchprism_head"])
    change(said, tensors)
    save_file(tensors, path, {"patchprism_head": json.dumps(said)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda said, tensors: said.update(version=2),
            "head of version 2, this PatchPrism reads up to version 1",
        ),
        (lambda said, tensors: said.update(version=None), "head of version None"),
        (lambda said, tensors: said.update(classes=["a", "b"]), "n_patches"),
        (lambda said, tensors: said.update(classes=["a", "a", "b"]), "classes must differ"),
        (lambda said, tensors: said.update(classes=["a", 7, "b"]), "classes"),
        (lambda said, tensors: said.update(classes="abc"), "classes 'abc'"),
        (lambda said, tensors: said.update(C=0), "C 0"),
        (lambda said, tensors: said.update(n_photos=-1), "n_photos -1"),
        (lambda said, tensors: said.update(n_patches=[1, 2, "x"]), "n_patches"),
        (lambda said, tensors: said.update(origin=7), "its origin is 7"),
        (lambda said, tensors: said.update(origin={"layer": "x"}), "its origin says layer 'x'"),
        (lambda said, tensors: said.pop("classes"), "classes None"),
        (lambda said, tensors: tensors.update(weights=np.full((3, WIDTH), np.nan)), "out of range, or NaN"),
        (lambda said, tensors: tensors.update(weights=np.full((3, WIDTH), 1e300)), "out of range, or NaN"),
        (lambda said, tensors: tensors.update(weights=np.zeros((4, WIDTH))), "its tensors are"),
        (lambda said, tensors: tensors.update(weights=np.zeros(3)), "its tensors are"),
        (lambda said, tensors: tensors.update(bias=np.zeros(3, np.float32)), "its tensors are"),
        (lambda said, tensors: tensors.pop("bias"), "its tensors are"),
        (lambda said, tensors: tensors.update(more=np.zeros(3)), "its tensors are"),
    ],
)
def test_a_hostile_or_damaged_head_is_refused_by_name(saved, change, words):
    _, path = saved
    rewritten(path, change)
    with pytest.raises(HeadError, match=words) as caught:
        Head.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(saved, tmp_path):
    head, path = saved
    with pytest.raises(HeadError, match="no such head file, but a folder"):
        Head.load(tmp_path)
    with pytest.raises(HeadError, match="no such head file"):
        Head.load(tmp_path / "none")
    path.write_bytes(head.to_bytes()[:-8])
    with pytest.raises(HeadError, match="not a head, or damaged"):
        Head.load(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(HeadError, match="a safetensors file, but not a head"):
        Head.load(path)


# ---------------------------------------------------------------- in a prism


def test_a_prism_keeps_the_masks_that_it_is_given_and_follows_the_head_elsewhere():
    tokens, masks = photos()
    odd = masks[0] > 0
    odd[0, :3] = True  # a head would not find these
    prism = Prism().fit(tokens, [odd, None, None])
    head = Head().fit(tokens, [odd, None, None])
    assert (prism.method_, prism.side_, prism.threshold_, prism.n_voters_) == ("mask", "above", 0.5, 1)
    np.testing.assert_array_equal(prism.head_.weights_, head.weights_)
    np.testing.assert_array_equal(prism.split(tokens[0], name="photo-1").foreground, odd)
    for each in tokens:
        found = prism.split(each, name="another name")
        np.testing.assert_array_equal(found.foreground, head.predict([each])[0] > 0)
        np.testing.assert_array_equal(found.score, head.score_of(each))
    inside = [odd, *(head.predict([each])[0] > 0 for each in tokens[1:])]
    assert prism.n_foreground_ == sum(each.sum() for each in inside)
    pixels = np.concatenate([each[mask] for each, mask in zip(tokens, inside, strict=True)]).astype(float)
    np.testing.assert_allclose(prism.object_mean_, pixels.mean(axis=0), atol=1e-6)
    learned = head.predict(tokens[:1])[0] > 0
    assert prism.agreement_ == pytest.approx((learned & odd).sum() / (learned | odd).sum())
    assert prism.summary()["classes"] == ["background", "object"]


def test_patches_without_a_label_follow_the_head_in_a_photo_with_clicks():
    tokens, masks = photos()
    clicks = np.full(masks[0].shape, -1)
    clicks[0, 0], clicks[3, 3] = 1, 0  # the opposite of the truth
    prism = Prism().fit(tokens, [clicks, masks[1] > 0, None])
    found = prism.split(tokens[0], name="photo-1")
    assert found.foreground[0, 0]
    assert not found.foreground[3, 3]
    rest = clicks < 0
    np.testing.assert_array_equal(found.score[rest], prism.head_.score_of(tokens[0])[rest])


def test_a_prism_with_a_head_is_loaded_and_needs_no_masks(tmp_path):
    tokens, masks = photos()
    head = Head(classes=CLASSES).fit(tokens, masks)
    prism = Prism(foreground="mask", threshold=0.7).fit(tokens, head)
    prism.save(tmp_path / "halves.prism")
    again = Prism.load(tmp_path / "halves.prism")
    assert again.to_bytes() == prism.to_bytes()
    for mine, theirs in zip(prism.transform(tokens), again.transform(tokens), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert again.head_.classes_ == CLASSES
    np.testing.assert_array_equal(again.split(tokens[0]).foreground, head.score_of(tokens[0]) > 0.7)
    frame, photo = FrameColors(again).split(tokens[0]), again.split(tokens[0])
    np.testing.assert_array_equal(frame.foreground, photo.foreground)
    np.testing.assert_allclose(frame.score, photo.score, atol=1e-4)


def test_options_that_conflict_with_masks_are_refused():
    tokens, masks = photos()
    with pytest.raises(OptionError, match="foreground 'mask' needs masks, or a head"):
        Prism(foreground="mask").fit(tokens)
    with pytest.raises(
        OptionError, match="foreground must be 'auto' or 'mask' with masks or a head, got 'pca'"
    ):
        Prism(foreground="pca").fit(tokens, masks)
    wide = Head().fit(photos()[0], masks)
    with pytest.raises(HeadError, match="taught on features of width 12, got 5"):
        Prism().fit([each[..., :5] for each in tokens], wide)
    again = Prism().fit(tokens, masks)
    assert again.fit(tokens).method_ == "object"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said, tensors: said["learned"]["head"].update(classes=["a", "b"]), "header does not fit"),
        (lambda said, tensors: said["learned"].pop("head"), "header does not fit"),
        (lambda said, tensors: said["learned"].update(head=[]), "header does not fit"),
        (lambda said, tensors: said["learned"].update(agreement=2), "agreement 2"),
        (lambda said, tensors: said["learned"].update(side="below"), "below its threshold"),
        (lambda said, tensors: tensors.pop("head_bias"), "lacks head_bias"),
        (lambda said, tensors: tensors.update(head_bias=np.zeros(4)), "head_"),
        (lambda said, tensors: tensors.update(head_weights=np.zeros((3, 5))), "head_weights has shape"),
        (lambda said, tensors: tensors.update(head_weights=np.full((3, WIDTH), np.nan)), "or NaN"),
    ],
)
def test_a_prism_with_a_damaged_head_is_refused(tmp_path, change, words):
    tokens, masks = photos()
    path = tmp_path / "halves.prism"
    Prism().fit(tokens, masks).save(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    said, tensors = json.loads(header["__metadata__"]["patchprism"]), load_file(path)
    assert said["version"] == 3
    change(said, tensors)
    save_file(tensors, path, {"patchprism": json.dumps(said)})
    with pytest.raises(PrismError, match=words):
        Prism.load(path)


def test_refined_tokens_and_overlapping_patches_have_masks_of_the_photo_s_size():
    framing = Framing(size=56, patch_size=14, mean=(0, 0, 0), std=(1, 1, 1))
    mask = np.zeros((56, 84), bool)
    mask[14:42, 28:56] = True
    for options, grid in (({"refine": 2}, (8, 12)), ({}, (4, 6))):
        features = PatchFeatures([np.random.default_rng(0).normal(size=(*grid, WIDTH))])
        features.origin = {"framing": framing.to_dict(), **options}
        head = Head().fit(features, [mask])
        size = grid[0] * grid[1]
        assert head.n_patches_ == (size - size // 6, size // 6)
