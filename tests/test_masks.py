"""Masks that jobs write: the pixels of their PNG and COCO files, in every kind of job."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image
from roads import extract_features, render_photos
from toys import FakeEngine, Toy, make_photos, tree

import patchprism
from patchprism.errors import ExtraError, OptionError
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.pictures.instances import REACH, enlarge_labels, label_objects, normalised_cuts
from patchprism.pictures.masks import full_mask
from patchprism.pictures.outline import outlined
from patchprism.prism.colors import PhotoColors

SETTINGS = Settings(model="toy", size=48)


@pytest.fixture
def photos(tmp_path):
    return [str(path) for path in sorted(make_photos(tmp_path / "p", 5).iterdir())]


@pytest.fixture
def view(photos):
    return patchprism.visualize(photos, backbone=Toy(), size=48)


def png(path):
    image = Image.open(path)
    assert image.mode == "L"
    return np.asarray(image)


def decoded(annotation):
    tools = pytest.importorskip("pycocotools.mask")
    return tools.decode(annotation["segmentation"]).astype(bool)


def part_of(score, foreground):
    colors = np.zeros((*np.shape(score), 3), np.float32)
    return PhotoColors(np.asarray(score, np.float32), np.asarray(foreground), colors, colors)


def test_nearest_enlarges_the_patches(view, tmp_path):
    view.save(tmp_path / "out", masks="png", upsample="nearest")
    for i, mask in enumerate(view.foreground):
        height, width = view.sizes[i]
        left, top, right, bottom = view.crops[i]
        y, x = np.mgrid[:height, :width] + 0.5
        inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        row = ((y - top) / (bottom - top) * mask.shape[0]).astype(int).clip(0, mask.shape[0] - 1)
        column = ((x - left) / (right - left) * mask.shape[1]).astype(int).clip(0, mask.shape[1] - 1)
        expected = np.where(inside & mask[row, column], 255, 0)
        assert (png(tmp_path / f"out/p{i:04d}.mask.png") == expected).all()
    assert not (tmp_path / "out/masks.coco.json").exists()


def test_bilinear_masks_end_between_the_centers_of_patches():
    part = part_of([[0.2, 0.6]], [[False, True]])
    mask = full_mask(part, 0.5, crop=(0, 0, 40, 1), size=(1, 40), method="bilinear")
    # Centres of the patches are at 10 and 30: the score is 0.5 at 25.
    assert mask[0].tolist() == [False] * 25 + [True] * 15
    below = part_of([[0.2, 0.6]], [[True, False]])
    assert (full_mask(below, 0.5, crop=(0, 0, 40, 1), size=(1, 40), method="bilinear") == ~mask).all()
    # Cleaning moved the second patch to the background; without a threshold, all patches are foreground.
    cleaned = part_of([[0.2, 0.6]], [[False, False]])
    assert not full_mask(cleaned, 0.5, crop=(0, 0, 40, 1), size=(1, 40), method="bilinear").any()
    everything = part_of([[0.2, 0.6]], [[True, True]])
    assert full_mask(everything, np.nan, crop=(0, 0, 40, 1), size=(1, 40), method="bilinear").all()


@pytest.mark.parametrize("upsample", ["nearest", "bilinear", "guided"])
def test_coco_contains_the_pixels_of_the_png(view, tmp_path, upsample):
    view.save(tmp_path, masks=("png", "coco"), upsample=upsample)
    api = pytest.importorskip("pycocotools.coco").COCO(tmp_path / "masks.coco.json")
    assert [image["file_name"] for image in api.loadImgs(api.getImgIds())] == view.names
    assert api.loadCats(api.getCatIds()) == [{"id": 1, "name": "object", "supercategory": "object"}]
    for i, image in enumerate(api.loadImgs(api.getImgIds())):
        (annotation,) = api.loadAnns(api.getAnnIds(image["id"]))
        mask = png(tmp_path / f"p{i:04d}.mask.png") == 255
        assert (api.annToMask(annotation) == mask).all()
        y, x = np.nonzero(mask)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [x.min(), y.min(), x.max() + 1 - x.min(), y.max() + 1 - y.min()]
        score = view.scores[i][view.foreground[i]].mean()
        assert annotation["score"] == pytest.approx(
            score if view.prism.side_ == "above" else 1 - score, abs=1e-4
        )


def test_supervision_reads_the_file(view, tmp_path):
    supervision = pytest.importorskip("supervision")
    view.save(tmp_path, masks=("png", "coco"))
    found = supervision.DetectionDataset.from_coco(
        images_directory_path=os.sep, annotations_path=str(tmp_path / "masks.coco.json"), force_masks=True
    )
    assert found.classes == ["object"]
    for i, (_, photo, detections) in enumerate(found):
        mask = png(tmp_path / f"p{i:04d}.mask.png") == 255
        assert photo.shape[:2] == mask.shape
        assert (detections.mask == mask[None]).all()


def test_every_job_writes_the_same_masks(photos, view, tmp_path):
    view.save(tmp_path / "view", masks=("png", "coco"), instances=True)
    run = {"settings": SETTINGS, "masks": ("png", "coco"), "instances": True}
    render_photos(photos, tmp_path / "memory", engine=open_engine(), backbone=Toy(), in_memory=True, **run)
    render_photos(photos, tmp_path / "shards", engine=open_engine(), backbone=Toy(), **run)
    render_photos(photos, tmp_path / "workers", engine=FakeEngine(deaths=2), backbone=Toy(), **run)
    extract_features(photos, tmp_path / "s.zarr", engine=open_engine(), backbone=Toy(), settings=SETTINGS)
    render_photos(
        [str(tmp_path / "s.zarr")],
        tmp_path / "store",
        engine=open_engine(),
        **(run | {"settings": Settings()}),
    )
    expected = {
        name: made
        for name, made in tree(tmp_path / "view").items()
        if "mask" in name or name == "instances.csv"
    }
    assert len(expected) == 8  # fg_mask is among them
    for road in ("memory", "shards", "workers", "store"):
        made = tree(tmp_path / road)
        assert {name: made[name] for name in expected} == expected, road
        report = json.loads(made["report.json"])
        assert {"masks.coco.json", "p0000.mask.png"} <= report["files"].keys()
        assert "p0000.mask.png" in report["photos"][0]["files"]


def test_an_interrupted_run_is_resumed_and_other_options_remove_masks(photos, tmp_path, monkeypatch):
    run = {"engine": open_engine(), "backbone": Toy(), "settings": SETTINGS}
    render_photos(photos, tmp_path / "whole", masks=("png", "coco"), **run)
    with monkeypatch.context() as patched:
        patched.setattr("patchprism.jobs.pictures.write_report", interrupt)
        with pytest.raises(KeyboardInterrupt):
            render_photos(photos, tmp_path / "out", masks=("png", "coco"), **run)
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    (tmp_path / "out/p0001.mask.png").unlink()
    render_photos(photos, tmp_path / "out", masks=("png", "coco"), **run)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    render_photos(photos, tmp_path / "other", masks=("png",), pca=False, **run)
    left = set(os.listdir(tmp_path / "other"))
    assert "p0000.mask.png" in left
    assert not {"masks.coco.json", "p0000.pca.png", "results.png"} & left


def interrupt(*_):
    raise KeyboardInterrupt


def test_masks_without_the_main_pictures(view, tmp_path):
    view.save(tmp_path, masks=("png",), pca=False)
    assert {"p0000.mask.png", "report.json"} <= set(os.listdir(tmp_path))
    assert not (tmp_path / "p0000.pca.png").exists()


def two_squares(gap, *, alike=True):
    """Two squares of 8 x 8 patches; with a gap, a bridge of two patches joins them."""
    foreground = np.zeros((12, 16 + gap + 4), np.bool_)
    foreground[2:10, 2:10] = foreground[2:10, 10 + gap : 18 + gap] = True
    foreground[5:7, 10 : 10 + gap] = True
    tokens = np.random.default_rng(0).normal(0, 0.1, (*foreground.shape, 16)).astype(np.float32)
    tokens[..., 0] += 1
    if not alike:
        tokens[:, 10 + gap // 2 :, 0] -= 1
        tokens[:, 10 + gap // 2 :, 1] += 1
    return foreground, tokens


def test_touching_objects_are_split_and_single_ones_are_not():
    for gap, alike in ((2, True), (0, False)):
        foreground, tokens = two_squares(gap, alike=alike)
        labels = label_objects(foreground, tokens)
        assert labels.max() == 2
        assert ((labels > 0) == foreground).all()
        middle = 10 + gap // 2
        assert len(np.unique(labels[:, :middle])) == len(np.unique(labels[:, middle:])) == 2
    # One object of the same size and shape with similar tokens.
    foreground, tokens = two_squares(0)
    assert label_objects(foreground, tokens).max() == 1


def test_separate_parts_are_objects_and_the_largest_is_first():
    foreground = np.zeros((6, 8), np.bool_)
    foreground[0, 0] = foreground[1, 1] = True  # corners do not touch
    foreground[3:5, 3:6] = True
    labels = label_objects(foreground, np.ones((6, 8, 3), np.float32))
    assert (labels.max(), labels[3, 3], labels[0, 0], labels[1, 1]) == (3, 1, 2, 3)


def test_the_second_eigenvector_and_the_cut_against_a_computation_by_hand():
    rng = np.random.default_rng(3)
    places = np.argwhere(np.ones((4, 6)))
    units = np.abs(rng.normal(size=(24, 5))).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    order, cuts = normalised_cuts(units, places)
    sigma = max(1.0, REACH**2 * 24)
    affinity = np.empty((24, 24))
    for i in range(24):
        for j in range(24):
            apart = ((places[i] - places[j]) ** 2).sum()
            affinity[i, j] = max(0.0, float(units[i] @ units[j])) * np.exp(-apart / (2 * sigma))
    for count in (1, 9, 20):
        first, rest = order[:count], order[count:]
        cut = affinity[np.ix_(first, rest)].sum()
        assert cuts[count - 1] == pytest.approx(
            cut / affinity[first].sum() + cut / affinity[rest].sum(), rel=1e-5
        )
    degree = affinity.sum(axis=1)
    values, vectors = np.linalg.eig(
        np.eye(24) - affinity / degree[:, None]
    )  # the same generalised eigenvectors
    second = vectors[:, np.argsort(values.real)[1]].real[order]
    assert (np.diff(second) >= -1e-9).all() or (np.diff(second) <= 1e-9).all()


def test_every_pixel_of_the_mask_belongs_to_one_object():
    labels = np.array([[1, 1, 0, 2], [1, 0, 0, 2]])
    mask = np.ones((20, 40), np.bool_)
    mask[:, 20:25] = False
    found = enlarge_labels(labels, mask, (0, 0, 40, 20))
    assert ((found > 0) == mask).all()
    assert (found[:, :10] == 1).all()
    assert (found[:, 30:] == 2).all()


def test_the_table_of_objects(view, tmp_path):
    view.save(tmp_path, masks=("png", "coco"), instances=True)
    rows = list(csv.DictReader((tmp_path / "instances.csv").read_text("utf-8").splitlines()))
    found = json.loads((tmp_path / "masks.coco.json").read_text())
    assert len(rows) == len(found["annotations"]) >= 5
    for row, annotation in zip(rows, found["annotations"], strict=True):
        box = [float(row[name]) for name in ("left", "top", "width", "height")]
        assert (box, int(row["area"])) == (annotation["bbox"], annotation["area"])
        assert row["photo"] == found["images"][annotation["image_id"] - 1]["file_name"]
        assert float(row["score"]) == annotation["score"]
    for i, name in enumerate(view.names):
        mask = png(tmp_path / f"p{i:04d}.mask.png") == 255
        its = [each for each in found["annotations"] if each["image_id"] == i + 1]
        assert (sum(decoded(each).astype(int) for each in its) == mask).all()
        mine = [row for row in rows if row["photo"] == name]
        assert sum(int(row["patches"]) for row in mine) == view.foreground[i].sum()
        labels = label_objects(view.foreground[i], view.features[i])
        color = 255 * view.colors[i][labels == 1].mean(axis=0)
        assert np.abs(color - [int(mine[0][name]) for name in ("red", "green", "blue")]).max() <= 0.5001
    view.save(tmp_path / "alone", instances=True)
    assert (tmp_path / "alone/instances.csv").read_bytes() == (tmp_path / "instances.csv").read_bytes()


def test_coco_without_the_extra_is_one_line(view, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ExtraError, match=r"writing masks as COCO JSON needs .*patchprism\[masks\]"):
        view.save(tmp_path / "out", masks="coco")
    assert not (tmp_path / "out").exists()
    view.save(tmp_path / "out", masks="png")


def test_other_formats_are_refused(view, tmp_path):
    with pytest.raises(OptionError, match="masks must be"):
        view.save(tmp_path / "out", masks="png,tif")


def test_the_outline_is_one_pixel_wide_inside_the_foreground(view, tmp_path):
    patches = np.zeros((4, 5), np.bool_)
    patches[1:3, 2:] = True  # reaches the right edge
    panel = Image.new("RGB", (50, 40), (10, 20, 30))
    drawn = (np.asarray(outlined(panel, patches)) == (255, 0, 255)).all(axis=2)
    expected = np.zeros((40, 50), np.bool_)
    expected[10, 20:] = expected[29, 20:] = expected[10:30, 20] = True
    assert (drawn == expected).all()
    assert np.asarray(panel).max() == 30
    view.save(tmp_path / "with", outline=True)
    view.save(tmp_path / "without")
    for name in ("fg_mask.png", "results.png", "results_raw.png", "histogram.png", "p0000.pca.png"):
        has_line, plain = (np.asarray(Image.open(tmp_path / kind / name)) for kind in ("with", "without"))
        changed = (has_line != plain).any(axis=2)
        assert changed.any() == (name not in ("histogram.png", "p0000.pca.png")), name
        assert (has_line[changed] == (255, 0, 255)).all()
