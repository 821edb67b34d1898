"""Measures of the foreground against true masks, and the command that prints them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from roads import extract_features
from toys import Toy, make_photos

import patchprism
from patchprism.errors import MaskError, OutputError, PatchPrismError
from patchprism.jobs import evaluation
from patchprism.jobs.engines import open_engine
from patchprism.jobs.evaluation import MEASURES, evaluate_photos, read_truth
from patchprism.jobs.given import open_masks
from patchprism.jobs.run import Run
from patchprism.jobs.settings import Settings
from patchprism.pictures.measures import measure, overall

# Maximum E, and S, of the examples by their seeds.
RECORDED = ((0, 0.8852581, 0.6325416), (1, 0.9434109, 0.6963453), (2, 0.8838386, 0.6315728))
SETTINGS = Settings(model="toy", size=48)


def example(seed, height=30, width=41):
    """A blurred square with noise as the score, and a shifted square as the truth."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    top, left = rng.integers(0, 12, 2)
    truth = (abs(y - 12 - top / 2) < 7) & (abs(x - 14 - left) < 9)
    score = 170 * np.exp(-((y - 13) ** 2 + (x - 19) ** 2) / 160) + rng.uniform(20, 60, (height, width))
    return score.astype(np.uint8), truth


def test_iou_f_and_mae_by_their_definitions():
    score, truth = example(0)
    found = measure(score > 100, score, truth)
    both, either = ((score > 100) & truth).sum(), ((score > 100) | truth).sum()
    assert found.iou == both / either
    scaled = (score - score.min()) / (score.max() - score.min())
    assert found.mae == pytest.approx(abs(scaled - truth).mean(), abs=1e-12)
    best = 0.0
    for threshold in range(256):
        chosen = np.floor(scaled * 255 + 1e-9) >= threshold
        if (chosen & truth).any():
            precision, recall = truth[chosen].mean(), chosen[truth].mean()
            best = max(best, 1.3 * precision * recall / (0.3 * precision + recall))
    assert found.f_curve.max() == pytest.approx(best, abs=1e-3)


def test_all_measures_against_pysodmetrics():
    sod = pytest.importorskip("py_sod_metrics")
    examples = [example(seed) for seed in range(6)]
    plain = np.full((9, 9), 50, np.uint8)
    half = np.arange(81).reshape(9, 9) < 40
    examples += [
        (plain, half),
        (half.astype(np.uint8) * 255, half),
        (255 - half.astype(np.uint8) * 255, half),
    ]
    theirs = sod.Fmeasure(beta=0.3), sod.MAE(), sod.Emeasure(), sod.Smeasure()
    found = []
    for score, truth in examples:
        found.append(measure(score > 100, score, truth))
        for each in theirs:
            each.step(score, truth.astype(np.uint8) * 255)
        assert found[-1].f_curve == pytest.approx(theirs[0].changeable_fms[-1], abs=1e-12)
        assert found[-1].mae == pytest.approx(theirs[1].maes[-1], abs=1e-12)
        assert found[-1].e_curve == pytest.approx(theirs[2].changeable_ems[-1], abs=1e-12)
        assert found[-1].s == pytest.approx(theirs[3].sms[-1], abs=1e-12)
    together = overall(found)
    assert together["max_f"] == pytest.approx(theirs[0].get_results()["fm"]["curve"].max())
    assert together["max_e"] == pytest.approx(theirs[2].get_results()["em"]["curve"].max())
    assert together["s"] == pytest.approx(theirs[3].get_results()["sm"])


def test_e_and_s_as_pysodmetrics_1_6_2_gives_them():
    for seed, max_e, s in RECORDED:
        found = measure(np.ones((30, 41), np.bool_), *example(seed))
        assert (found.e_curve.max(), found.s) == pytest.approx((max_e, s), abs=1e-6)


def test_a_perfect_map_and_its_opposite():
    _, truth = example(1)
    right = measure(truth, truth.astype(np.uint8) * 255, truth)
    assert overall([right]) == pytest.approx(
        {"iou": 1, "max_f": 1, "mae": 0, "max_e": 1, "s": 1, "corloc": 1}, abs=1e-3
    )
    wrong = measure(~truth, (~truth).astype(np.uint8) * 255, truth)
    assert (wrong.iou, wrong.mae, wrong.s) == pytest.approx((0, 1, 0), abs=1e-3)


def test_corloc_compares_the_boxes_of_the_largest_parts():
    truth, mask = np.zeros((2, 40, 40), np.bool_)
    truth[10:20, 10:20] = truth[0, 0] = True
    mask[10:20, 10:16] = mask[39, 39] = True  # its box covers 0.6 of the truth's
    score = mask.astype(np.uint8)
    assert measure(mask, score, truth).corloc
    mask[10:20, 15] = False  # 0.5 is not above 0.5
    assert not measure(mask, score, truth).corloc


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_values_other_than_zero_are_object_in_every_kind_of_png(tmp_path, mode):
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:7] = 1
    image = Image.fromarray(mask * 255) if mode == "1" else Image.fromarray(mask)
    if mode == "P":
        image.putpalette([0, 0, 0, 0, 0, 0])  # both colours are black, because only the index counts
    elif mode == "I;16":
        image = Image.fromarray(mask.astype(np.uint16) * 256)
    elif mode != "L":
        image = image.convert(mode)
    image.save(tmp_path / "m.png")
    assert (read_truth(tmp_path / "m.png", (6, 8)) == (mask > 0)).all()
    assert (read_truth(tmp_path / "m.png", (12, 16)) == np.kron(mask, np.ones((2, 2))).astype(bool)).all()
    assert read_truth(tmp_path / "m.png", (13, 17)).shape == (13, 17)


@pytest.fixture
def folders(tmp_path):
    """Five photos, and masks that a job saved as their foreground."""
    photos = [str(path) for path in sorted(make_photos(tmp_path / "p", 5).iterdir())]
    view = patchprism.visualize(photos, backbone=Toy(), size=48)
    view.save(tmp_path / "out", masks="png")
    (tmp_path / "masks").mkdir()
    for made in (tmp_path / "out").glob("p*.mask.png"):
        made.rename(tmp_path / "masks" / made.name.replace(".mask", ""))
    return photos, tmp_path / "masks"


def evaluate(photos, masks, **options):
    with open_engine() as engine:
        run = Run(engine=engine, backbone=Toy())
        return evaluate_photos(photos, masks, settings=SETTINGS, run=run, **options)


def test_the_masks_of_a_job_agree_with_it_in_memory_and_in_shards(folders, tmp_path, monkeypatch):
    photos, masks = folders
    found = evaluate(photos, masks, out=tmp_path / "m.json")
    assert [each["photo"] for each in found.photos] == photos
    assert all(each["iou"] == each["corloc"] == 1 for each in found.photos)
    assert found.failures == []
    written = json.loads((tmp_path / "m.json").read_text())
    assert written == json.loads(json.dumps(found.to_dict()))
    assert written["overall"].keys() == set(MEASURES)
    monkeypatch.setattr(evaluation, "IN_MEMORY", 2)
    assert evaluate(photos, masks).photos == found.photos
    assert evaluate(photos, masks, upsample="nearest").overall["iou"] < 1


def test_masks_written_by_jobs_are_read_and_shared_ones_are_refused(folders, tmp_path):
    photos, masks = folders
    (masks / "p0000.png").rename(masks / "p0000.mask.png")
    (masks / "p0001.png").rename(masks / "p0001.PNG")
    assert [each["iou"] for each in evaluate(photos, masks).photos] == [1.0] * 5
    files = open_masks(str(masks))
    assert list(files.match(photos)) == photos
    assert files.unused(photos) == []
    assert files.unused(photos[1:]) == ["p0000.mask.png"]
    copy = tmp_path / "other" / Path(photos[0]).name
    copy.parent.mkdir()
    Image.new("RGB", (64, 48), "red").save(copy)
    with pytest.raises(MaskError, match="mask belongs to two photos"):
        evaluate([*photos, str(copy)], masks)


def test_masks_of_missing_photos_are_bilinear_and_reported(folders, tmp_path):
    photos, masks = folders
    store = tmp_path / "f.zarr"
    with open_engine() as engine:
        extract_features(photos, store, settings=SETTINGS, engine=engine, backbone=Toy(), tokens="float32")
    assert evaluate([store], masks).notes == []
    Path(photos[0]).unlink()
    found = evaluate([store], masks, out=tmp_path / "m.json")
    assert [(each.name, "bilinear" in each.text) for each in found.notes] == [(photos[0], True)]
    assert json.loads((tmp_path / "m.json").read_text())["notes"][0]["photo"] == photos[0]
    assert len(found.photos) == 5


def test_masks_that_do_not_fit_are_named(folders, tmp_path):
    photos, masks = folders
    (masks / "p0000.png").unlink()
    Image.new("L", (40, 10)).save(masks / "p0001.png")
    Image.new("L", (64, 64)).save(masks / "p0002.png")
    (masks / "p0003.png").write_bytes(b"no image")
    found = evaluate(photos, masks)
    assert [each["photo"] for each in found.photos] == photos[4:]
    assert [each.photo for each in found.failures] == photos[:4]
    reasons = [each.reason.removeprefix(str(masks)) for each in found.failures]
    assert reasons[0] == "/p0000.png: no such mask"
    assert re.search("a mask of 40 x 10 has another shape than its photo of 48 x 64", reasons[1])
    assert "empty" in reasons[2]
    assert "cannot be read" in reasons[3]
    with pytest.raises(
        PatchPrismError, match=r"no photo has a mask that fits it; the first problem: .*no such mask"
    ):
        evaluate(photos[:1], masks)
    with pytest.raises(PatchPrismError, match="no such folder of masks"):
        evaluate(photos, tmp_path / "nowhere")
    with pytest.raises(OutputError):
        evaluate(photos, masks, out=masks / "p0004.png")


def test_the_command_prints_a_table(folders):
    photos, masks = folders
    command = [sys.executable, "-m", "patchprism", "evaluate", *photos[:2], "--masks", str(masks)]
    command += ["--model", "efficientnet_lite2", "--size", "64", "--json", str(masks.parent / "m.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0].split() == [
        "photo",
        "iou",
        "max",
        "f",
        "mae",
        "max",
        "e",
        "s",
        "corloc",
    ]
    assert re.search(r"^all 2( +[01]\.\d{3}){6}$", done.stdout, re.MULTILINE)
    assert json.loads((masks.parent / "m.json").read_text())["settings"]["size"] == 64
    (masks / "p0001.png").unlink()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "failed: " in done.stderr
    assert "p0001.png: no such mask" in done.stderr
