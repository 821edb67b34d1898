"""Masks that users give, in every job: from folders, alpha channels, COCO files and arrays, for photos and frames."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from PIL import Image
from roads import extract_features, fit_prism, render_photos
from toys import Toy, make_photos

import patchprism
from patchprism import Head, Prism
from patchprism.cli import main
from patchprism.errors import HeadError, MaskError, OptionError, PatchPrismError
from patchprism.jobs.coloring import Coloring
from patchprism.jobs.engines import open_engine
from patchprism.jobs.evaluation import read_truth
from patchprism.jobs.given import open_masks
from patchprism.jobs.mask_files import CocoFile, read_mask
from patchprism.jobs.run import Run
from patchprism.jobs.settings import Settings
from patchprism.jobs.teaching import teach_head
from patchprism.jobs.viewing import make_view

SETTINGS = Settings(size=48)
PICTURES = {"masks": ("png",), "pca": False}
SCHEMA = json.loads(files("patchprism.jobs").joinpath("report.schema.json").read_text("utf-8"))


def disc(path):
    return np.asarray(Image.open(path))[..., 0] > 150


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("given") / "p", 5)


@pytest.fixture(scope="module")
def masks(photos, tmp_path_factory):
    """Masks of two of the five photos; one has another resolution, and one includes a corner that is not a disc."""
    folder = tmp_path_factory.mktemp("given") / "masks"
    folder.mkdir()
    first, second = disc(photos / "p0000.png"), disc(photos / "p0002.png")
    first[:16, :16] = True
    Image.fromarray(first).resize((128, 96), Image.Resampling.NEAREST).convert("L").save(folder / "p0000.png")
    Image.fromarray(second).convert("L").save(folder / "p0002.png")
    Image.fromarray(second).convert("L").save(folder / "q0009.png")
    return folder


def sharded(photos, out, masks, engine):
    render_photos([photos], out, settings=SETTINGS, engine=engine, backbone=Toy(), given=masks, **PICTURES)


def resumed(photos, out, masks):
    class Stop(BaseException):
        pass

    def stop(stage, done, total):
        if stage == "pictures" and done:
            raise Stop

    with open_engine() as engine:
        options = {"settings": SETTINGS, "engine": engine, "backbone": Toy(), "given": masks, **PICTURES}
        with pytest.raises(Stop):
            render_photos([photos], out, tell=stop, **options)
        render_photos([photos], out, **options)


def stored(photos, out, masks):
    store = out.with_name("float32.zarr")
    with open_engine() as engine:
        extract_features([photos], store, settings=SETTINGS, engine=engine, backbone=Toy(), tokens="float32")
        render_photos([store], out, settings=Settings(), engine=engine, given=masks, **PICTURES)


def visualized(photos, out, masks):
    view = patchprism.visualize([photos], size=48, backbone=Toy(), masks=masks.folder)
    view.save(out, masks=("png",))
    expected = [each.get("mask_given", False) for each in view.report()["photos"]]
    assert expected == [True, False, True, False, False]


ROADS = {
    "shards": lambda photos, out, masks: sharded(photos, out, masks, open_engine()),
    "resumed": resumed,
    "store": stored,
    "visualize": visualized,
}


@pytest.fixture(scope="module")
def in_memory(photos, masks, tmp_path_factory):
    out = tmp_path_factory.mktemp("given") / "memory"
    with open_engine() as engine:
        outcome = render_photos(
            [photos],
            out,
            settings=SETTINGS,
            engine=engine,
            backbone=Toy(),
            in_memory=True,
            given=open_masks(str(masks)),
            **PICTURES,
        )
    assert [note.text for note in outcome.notes] == [f"1 mask of {masks} without a photo: q0009.png"]
    return out


def report_of(out):
    report = json.loads((out / "report.json").read_text("utf-8"))
    jsonschema.validate(report, SCHEMA)
    return {name: report[name] for name in ("photos", "prism", "hints", "notes")}


@pytest.mark.parametrize(
    "road",
    [
        pytest.param(road, marks=[pytest.mark.slow] if road in ("shards", "resumed", "ray") else [])
        for road in (*ROADS, "ray")
    ],
)
def test_masks_give_the_same_in_every_job(road, photos, masks, in_memory, tmp_path, request):
    given, out = open_masks(str(masks)), tmp_path / "out"
    if road == "ray":
        sharded(photos, out, given, request.getfixturevalue("ray_engine"))
    else:
        ROADS[road](photos, out, given)
    mine, theirs = report_of(out), report_of(in_memory)
    if road == "visualize":  # a view has more figures and other notes
        for each in mine["photos"]:
            each["files"] = [name for name in each["files"] if name.endswith(".mask.png")]
        mine["notes"] = theirs["notes"]
    else:
        assert {path.name for path in out.iterdir()} == {path.name for path in in_memory.iterdir()}
    assert mine == theirs
    assert len(list(in_memory.glob("*.mask.png"))) == 5
    for path in (*in_memory.glob("*.mask.png"), in_memory / "prism.safetensors"):
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name


def test_photos_with_a_mask_keep_it_and_the_others_follow(photos, masks, in_memory):
    report = report_of(in_memory)
    assert [each.get("mask_given", False) for each in report["photos"]] == [True, False, True, False, False]
    assert report["prism"]["foreground"] == "mask"
    assert report["prism"]["n_voters"] == 2
    prism = Prism.load(in_memory / "prism.safetensors")
    view = patchprism.visualize([photos], size=48, backbone=Toy(), masks=masks)
    # The corner looks like background, so it can only come from the photo's own mask.
    assert view[0].foreground[:2, :2].all()
    assert not prism.split(view.features[0]).foreground[0, 0]
    for index in (1, 3, 4):
        truth = disc(photos / f"p{index:04d}.png")
        h, w = view[index].foreground.shape
        shares = truth[: 8 * h, : 8 * w].reshape(h, 8, w, 8).mean(axis=(1, 3))
        found = view[index].foreground
        assert (found & (shares > 0.5)).sum() / (found | (shares > 0.5)).sum() > 0.6
    # For new photos, the prism needs no masks.
    again = patchprism.visualize([photos], backbone=Toy(), prism=prism)
    np.testing.assert_array_equal(again[1].foreground, view[1].foreground)
    assert "mask_given" not in again.report()["photos"][0]


def test_arrays_alpha_and_coco_are_the_same_masks(photos, masks, tmp_path):
    tools = pytest.importorskip("pycocotools.mask")
    arrays = {f"p{i:04d}": np.asarray(Image.open(masks / f"p{i:04d}.png")) > 0 for i in (0, 2)}
    by_folder = patchprism.visualize([photos], size=48, backbone=Toy(), masks=masks)
    by_name = patchprism.visualize([photos], size=48, backbone=Toy(), masks=arrays)
    listed = [arrays.get(path.stem) for path in sorted(photos.iterdir())]
    by_order = patchprism.visualize([photos], size=48, backbone=Toy(), masks=listed)
    compressed = tools.encode(np.asfortranarray(arrays["p0000"], np.uint8))
    flat = arrays["p0002"].T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    coco = {
        "images": [
            {"id": 1, "file_name": "somewhere/p0000.png", "height": 96, "width": 128},
            {"id": 7, "file_name": "p0002.png", "height": 40, "width": 40},
        ],
        "annotations": [
            {"image_id": 1, "segmentation": {"size": [96, 128], "counts": compressed["counts"].decode()}},
            {"image_id": 7, "segmentation": {"size": [40, 40], "counts": counts}},
        ],
    }
    (tmp_path / "masks.json").write_text(json.dumps(coco))
    by_coco = patchprism.visualize([photos], size=48, backbone=Toy(), masks=tmp_path / "masks.json")
    for other in (by_name, by_order, by_coco):
        assert other.prism.to_bytes() == by_folder.prism.to_bytes()
        for mine, theirs in zip(other, by_folder, strict=True):
            np.testing.assert_array_equal(mine.foreground, theirs.foreground)
    # Alpha channels of the same photos; transparent pixels are white, as the reader shows them.
    seen = tmp_path / "seen"
    shutil.copytree(photos, seen)
    for name in ("p0001", "p0003"):
        image = Image.open(seen / f"{name}.png")
        image.putalpha(Image.fromarray(disc(photos / f"{name}.png")).convert("L"))
        image.save(seen / f"{name}.png")
    opaque = Image.open(seen / "p0004.png").convert("RGBA")
    opaque.save(seen / "p0004.png")
    by_alpha = patchprism.visualize([seen], size=48, backbone=Toy(), masks="alpha")
    given = [each.get("mask_given", False) for each in by_alpha.report()["photos"]]
    assert given == [False, True, False, True, False]


def test_polygons_are_filled(tmp_path):
    pytest.importorskip("pycocotools")
    coco = {
        "images": [{"id": "a", "file_name": "a.png", "height": 20, "width": 30}],
        "annotations": [
            {"image_id": "a", "segmentation": [[2, 3, 12, 3, 12, 9, 2, 9], [20, 10, 28, 10, 28, 18, 20, 18]]}
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(coco))
    expected = np.zeros((20, 30), int)
    expected[3:9, 2:12] = expected[10:18, 20:28] = 1
    np.testing.assert_array_equal(CocoFile(tmp_path / "a.json").read("a.png"), expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda coco: coco.pop("images"), "not a COCO file"),
        (lambda coco: coco["images"][0].update(width=-3), "not a COCO file"),
        (lambda coco: coco["images"][0].update(width=10**6, height=10**6), "not a COCO file"),
        (lambda coco: coco["annotations"][0].update(image_id=5), "not a COCO file"),
        (lambda coco: coco["annotations"][0].update(segmentation=[[1, 2]]), "a polygon needs three points"),
        (
            lambda coco: coco["annotations"][0].update(segmentation={"size": [20, 30], "counts": [5]}),
            "add up",
        ),
        (lambda coco: coco["annotations"][0].update(segmentation={"size": [9, 9], "counts": [81]}), "RLE of"),
        (
            lambda coco: coco["annotations"][0].update(segmentation={"size": [20, 30], "counts": "H8"}),
            "add up",
        ),
        (
            lambda coco: coco["annotations"][0].update(segmentation={"size": [20, 30], "counts": "~~~"}),
            "damaged",
        ),
        (lambda coco: coco["annotations"][0].update(segmentation=7), "damaged"),
    ],
)
def test_damaged_coco_files_are_refused(tmp_path, change, words):
    pytest.importorskip("pycocotools")
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
        "annotations": [{"image_id": 1, "segmentation": [[2, 3, 12, 3, 12, 9]]}],
    }
    change(coco)
    (tmp_path / "a.json").write_text(json.dumps(coco))
    with pytest.raises(MaskError, match=words) as caught:
        CocoFile(tmp_path / "a.json").read("a.png")
    assert "\n" not in str(caught.value)


def test_each_photo_has_at_most_one_image_of_a_coco_file_and_each_image_one_photo(tmp_path):
    names = ["a/x.png", "b/x.png", "y.png"]
    rle = {"size": [1, 2], "counts": [1, 1]}
    coco = {
        "images": [{"id": n, "file_name": name, "height": 1, "width": 2} for n, name in enumerate(names)],
        "annotations": [{"image_id": n, "segmentation": rle} for n in range(3)],
    }
    (tmp_path / "masks.json").write_text(json.dumps(coco))
    given = open_masks(str(tmp_path / "masks.json"))
    assert list(given.match(["b/x.png", "c/y.png", "z.png"])) == ["b/x.png", "c/y.png"]
    with pytest.raises(
        MaskError, match=r"its images match the photo c/x.png: a/x.png and b/x.png; rename the images"
    ):
        given.match(["c/x.png"])
    with pytest.raises(
        MaskError, match=r"photos match its image y.png: c/y.png and d/y.png; rename the photos"
    ):
        given.match(["c/y.png", "d/y.png"])


def test_soft_edges_palettes_and_classes_of_png_files(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 60, 127, 128, 255]], np.uint8)).save(path)
    assert read_mask(path).tolist() == [[0, 0, 0, 1, 1]]
    assert read_truth(path, (1, 5)).tolist() == [[False, False, False, True, True]]
    Image.fromarray(np.array([[0, 1, 1]], np.uint8)).save(path)
    assert read_mask(path).tolist() == [[0, 1, 1]]
    Image.fromarray(np.array([[0, 40000, 9]], np.uint16)).save(path)
    assert read_mask(path).tolist() == [[0, 1, 0]]
    Image.fromarray(np.array([[True, False]])).save(path)
    assert read_mask(path).tolist() == [[1, 0]]
    image = Image.frombytes("P", (4, 1), bytes([0, 1, 15, 255]))
    image.putpalette([*range(256)] * 3)
    image.save(path)
    assert read_mask(path).tolist() == [[0, 1, 1, -1]]
    assert read_mask(path, indexed=True).tolist() == [[0, 1, 15, -1]]
    Image.fromarray(np.zeros((1, 3), np.uint8)).save(path)
    assert not read_mask(path).any()


@pytest.mark.parametrize("table", [[0, 0, 0, 255, 255, 255], [255, 255, 255, 0, 0, 0], [40] * 3 + [200] * 3])
def test_a_palette_of_greys_is_read_as_it_looks(tmp_path, table):
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 1]))
    image.putpalette(table)
    image.save(tmp_path / "a.png")
    expected = np.array([[0, 1, 1]]) if table[0] < table[3] else np.array([[1, 0, 0]])
    assert (read_mask(tmp_path / "a.png") == expected).all()
    assert read_mask(tmp_path / "a.png", indexed=True).tolist() == [[0, 1, 1]]
    Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("P").save(tmp_path / "a.png")
    assert read_truth(tmp_path / "a.png", (1, 3)).tolist() == [[False, True, True]]


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (90, 200, 10)])
def test_transparent_parts_of_a_mask_are_background(tmp_path, color):
    pixels = np.array([[[*color, alpha] for alpha in (0, 127, 128, 255)]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 0, 1, 1]]
    Image.fromarray(pixels[..., 2:], "LA").save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 0, 1, 1]]


def test_images_of_a_coco_file_without_annotations_have_no_mask(tmp_path):
    size = {"height": 1, "width": 4}
    images = [{"id": number, "file_name": f"{number}.jpg", **size} for number in (1, 2, 3)]
    rle = {"size": [1, 4], "counts": [1, 2, 1]}
    coco = {"images": images, "annotations": [{"image_id": 2, "segmentation": rle}]}
    (tmp_path / "a.json").write_text(json.dumps(coco))
    readers = open_masks(str(tmp_path / "a.json")).match(["p/1.jpg", "p/2.jpg", "p/3.jpg"])
    assert {name: read().tolist() for name, read in readers.items()} == {"p/2.jpg": [[0, 1, 1, 0]]}
    coco["annotations"].append({"image_id": 3, "segmentation": []})  # an annotation without any object
    (tmp_path / "a.json").write_text(json.dumps(coco))
    assert not open_masks(str(tmp_path / "a.json")).match(["3.jpg"])["3.jpg"]().any()
    (tmp_path / "a.json").write_text(json.dumps(coco | {"annotations": []}))
    with pytest.raises(MaskError, match="none of its images has an annotation"):
        open_masks(str(tmp_path / "a.json"))


def test_one_array_is_the_mask_of_one_photo(photos):
    mask = disc(photos / "p0002.png")
    found, listed = (
        patchprism.visualize(photos / "p0002.png", size=48, backbone=Toy(), masks=given)[0].foreground
        for given in (mask, [mask])
    )
    assert found.any()
    assert (found == listed).all()
    refused(photos, "one per photo .* got 1 for 5 photos", masks=mask)


def refused(photos, words, error=PatchPrismError, **options):
    with pytest.raises(error, match=words) as caught:
        patchprism.visualize([photos], size=48, backbone=Toy(), **options)
    assert "\n" not in str(caught.value)


def test_masks_that_do_not_fit_are_named(photos, masks, tmp_path):
    refused(photos, "masks '.*nowhere': no such folder of masks", masks=tmp_path / "nowhere")
    (tmp_path / "none").mkdir()
    refused(photos, "holds no mask", masks=tmp_path / "none")
    Image.fromarray(np.eye(40, dtype=bool)).save(tmp_path / "none" / "other.png")
    refused(photos, "no mask belongs to a photo; there is other.png, and the first", masks=tmp_path / "none")
    refused(photos, "no photo has an alpha channel", masks="alpha")
    refused(
        photos,
        "a mask of 40 x 40 has another shape than its photo of 64 x 48",
        masks={"p0000": np.eye(40) > 0},
    )
    refused(photos, "one per photo .* got 1 for 5 photos", masks=[None])
    refused(photos, "p0000.png: its mask must be an array", masks={"p0000": np.zeros((3, 3))})
    refused(photos, "masks must be arrays", error=OptionError, masks=7)
    empty, full = np.zeros((48, 64), bool), np.ones((48, 64), bool)
    refused(photos, "label no patch as object: .*p0000.png: its mask is empty", masks={"p0000": empty})
    refused(photos, "as background: .*p0000.png: its mask covers the whole photo", masks={"p0000": full})
    empties = {"p0000": empty, "p0002": np.zeros((40, 40), bool)}
    refused(photos, r"p0000.png: its mask is empty.* \(and 1 more\)$", masks=empties)
    refused(photos, "p0000.png: its mask has the value 65535", masks={"p0000": full * np.uint16(65535)})
    refused(photos, "p0000.png: its mask has the value -7", masks={"p0000": full * -7})
    (tmp_path / "none" / "p0000.png").write_bytes(b"no image")
    refused(photos, "p0000.png: this mask cannot be read as a PNG image", masks=tmp_path / "none")
    both = tmp_path / "both"
    for part in "ab":
        (both / part).mkdir(parents=True)
        shutil.copy(photos / "p0000.png", both / part)
    refused(both, "this mask belongs to two photos", masks=masks)


def test_empty_and_full_masks_are_reported(photos, masks):
    empty, full = np.zeros((48, 64), bool), np.ones((48, 64), bool)
    given = {"p0000": empty, "p0002": disc(photos / "p0002.png"), "p0003": full}
    view = patchprism.visualize([photos], size=48, backbone=Toy(), masks=given)
    said = {each["photo"][-9:]: each.get("notes") for each in view.report()["photos"]}
    assert said["p0000.png"] == ["its mask is empty: the whole photo counts as background"]
    assert said["p0003.png"] == ["its mask covers the whole photo: nothing in it counts as background"]
    assert not view[0].foreground.any()
    assert view[3].foreground.all()


def test_conflicting_options_are_refused(photos, masks):
    head = Head().fit([np.random.default_rng(0).normal(size=(4, 4, 24))], [np.eye(4, dtype=int)])
    refused(
        photos,
        "foreground must be 'auto' or 'mask' with masks",
        error=OptionError,
        masks=masks,
        foreground="pca",
    )
    refused(photos, "foreground 'mask' needs masks", error=OptionError, foreground="mask")
    refused(photos, "the masks and the head both define", error=OptionError, masks=masks, head=head)
    refused(photos, "head must be a fitted Head", error=OptionError, head=Head())
    prism = patchprism.visualize([photos], size=48, backbone=Toy()).prism
    refused(photos, "the masks are for fitting", error=OptionError, masks=masks, prism=prism)


@pytest.fixture(scope="module")
def head(photos, masks, tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "discs.head.safetensors"
    with open_engine() as engine:
        run = Run(engine=engine, backbone=Toy())
        found = teach_head([photos], open_masks(str(masks)), path, head=Head(), settings=SETTINGS, run=run)
    assert found.head.n_photos_ == 2
    assert found.agreement > 0.9
    return path


def test_a_head_gives_the_same_foreground_as_the_masks_that_taught_it(
    photos, masks, head, in_memory, tmp_path
):
    with open_engine() as engine:
        coloring = Coloring(head=Head.load(head))
        view = make_view([str(photos)], Settings(), Run(engine=engine, backbone=Toy()), coloring)
    assert view.framing.size == 48  # the size of the head, unless another is requested
    prism = Prism.load(in_memory / "prism.safetensors")
    np.testing.assert_array_equal(view.prism.head_.weights_, prism.head_.weights_)
    np.testing.assert_array_equal(view.parts[1].foreground, prism.split(view.features[1]).foreground)
    with open_engine() as engine:
        fit_prism(
            [photos],
            tmp_path / "a.prism",
            settings=Settings(size=48),
            engine=engine,
            backbone=Toy(),
            head=Head.load(head),
        )
        fit_prism(
            [photos],
            tmp_path / "b.prism",
            settings=SETTINGS,
            engine=engine,
            backbone=Toy(),
            given=open_masks(str(masks)),
        )
    assert Prism.load(tmp_path / "a.prism").head_.to_bytes() == head.read_bytes()
    assert (tmp_path / "b.prism").read_bytes() == (in_memory / "prism.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "other"}, "the head was taught with another model: other, now toy"),
        ({"weights_sha256": "1" * 64}, "another weights"),
        ({"layer": 3}, "another layer: 3"),
        ({"token_norm": "l2"}, "another token_norm: l2"),
        ({"framing": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, r"another framing \(mean\)"),
    ],
)
def test_a_head_of_other_tokens_is_refused(photos, head, change, words):
    other = Head.load(head)
    other.origin = {**other.origin, **change}
    with open_engine() as engine:
        settings = Settings(
            size=48, model="toy", layer=-1, token_norm="none", mean=(0.5,) * 3, std=(0.5,) * 3
        )
        run = Run(engine=engine, backbone=Toy())
        with pytest.raises(HeadError, match=words):
            make_view([str(photos)], settings, run, Coloring(head=other))
        make_view([str(photos)], settings, run, Coloring(head=other, force=True))


def test_frames_of_a_clip_follow_masks_and_heads(photos, head, tmp_path):
    folder = make_photos(tmp_path / "p", 4, shapes=((48, 64),))
    mask = disc(folder / "p0001.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "p0001.png")
    options = {"size": 48, "backbone": Toy(), "layout": "colors", "steady": False, "fit_frames": 2}
    report = patchprism.render_video(folder, tmp_path / "a" / "%d.png", masks=tmp_path / "masks", **options)
    assert report.prism.method_ == "mask"
    view = patchprism.visualize([folder], size=48, backbone=Toy(), masks=tmp_path / "masks")
    np.testing.assert_array_equal(report.prism.head_.weights_, view.prism.head_.weights_)
    frame = np.asarray(Image.open(tmp_path / "a" / "4.png"))
    np.testing.assert_array_equal(frame.any(axis=2)[4::8, 4::8], view[3].foreground)
    taught = patchprism.render_video(folder, tmp_path / "b" / "%d.png", head=Head.load(head), **options)
    assert taught.prism.head_.to_bytes() == head.read_bytes()


def test_masks_of_a_video_are_by_the_frames_numbers(photos, tmp_path):
    folder = make_photos(tmp_path / "p", 4, shapes=((48, 64),))
    frames = [Image.open(path) for path in sorted(folder.iterdir())]
    frames[0].save(tmp_path / "clip.png", save_all=True, append_images=frames[1:], duration=100)
    (tmp_path / "masks").mkdir()
    Image.fromarray(disc(folder / "p0002.png")).save(tmp_path / "masks" / "0002.png")
    Image.fromarray(disc(folder / "p0002.png")).save(tmp_path / "masks" / "17.png")
    options = {"size": 48, "backbone": Toy(), "layout": "colors"}
    report = patchprism.render_video(
        tmp_path / "clip.png", tmp_path / "a" / "%d.png", masks=tmp_path / "masks", **options
    )
    assert report.prism.n_voters_ == 1
    assert any("without a frame: 17.png" in each for each in report.warnings)
    with pytest.raises(MaskError, match="masks of a video must be a folder of PNG files"):
        patchprism.render_video(tmp_path / "clip.png", tmp_path / "b" / "%d.png", masks="alpha", **options)


def run_cli(*words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["patchprism", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code


def test_the_command_line_teaches_and_uses_heads(photos, masks, tmp_path, capsys):
    model = ("--model", "efficientnet_lite2", "--size", "64")
    ears = tmp_path / "discs.head.safetensors"
    assert run_cli("teach", photos, "--masks", masks, "-o", ears, *model) == 0
    said = capsys.readouterr()
    assert "masks   2 photos" in said.out
    assert "q0009.png" in said.out
    assert run_cli("render", photos, "-o", tmp_path / "a", "--head", ears) == 0
    assert Prism.load(tmp_path / "a" / "prism.safetensors").head_.to_bytes() == ears.read_bytes()
    assert run_cli("fit", photos, "-o", tmp_path / "b.prism", "--mask", masks, *model) == 0
    assert Prism.load(tmp_path / "b.prism").head_.to_bytes() == ears.read_bytes()
    assert (
        run_cli("render", photos, "-o", tmp_path / "c", "--mask", masks, "--foreground", "pca", *model) != 0
    )
    assert "--foreground must be 'auto' or 'mask' with masks" in capsys.readouterr().err
    assert run_cli("teach", photos, "--masks", masks, "-o", ears, "--classes", "one", *model) != 0


def test_heads_of_several_classes_write_their_classes(photos, tmp_path):
    """Two halves of a disc, given as numbers in PNG files, are written as numbers and as categories."""
    coco = pytest.importorskip("pycocotools.coco")
    (tmp_path / "masks").mkdir()
    for name in ("p0000", "p0001"):
        mask = disc(photos / f"{name}.png").astype(np.uint8)
        bright = np.asarray(Image.open(photos / f"{name}.png")).astype(int)
        mask[: int(bright.shape[0] * 0.3)] = 255  # not labelled
        mask[(mask == 1) & (np.arange(mask.shape[1]) > mask.shape[1] / 2)] = 2
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    path, names = tmp_path / "halves.head.safetensors", ("ground", "left", "right")
    with open_engine() as engine:
        run = Run(engine=engine, backbone=Toy())
        given = open_masks(str(tmp_path / "masks"), classes=3)
        teach_head([photos], given, path, head=Head(classes=names), settings=SETTINGS, run=run)
        head = Head.load(path)
        assert head.classes_ == names
        out = tmp_path / "out"
        render_photos(
            [photos],
            out,
            settings=SETTINGS,
            engine=engine,
            backbone=Toy(),
            head=head,
            masks=("png", "coco"),
            upsample="nearest",
            pca=False,
        )
    view = patchprism.visualize([photos], size=48, backbone=Toy(), head=head)
    index = coco.COCO(out / "masks.coco.json")
    assert [(each["id"], each["name"]) for each in index.loadCats(index.getCatIds())] == [
        (1, "left"),
        (2, "right"),
    ]
    seen = set()
    for number, photo in enumerate(sorted(photos.iterdir())):
        image = Image.open(out / f"{photo.stem}.mask.png")
        assert image.mode == "P"
        pixels = np.asarray(image)
        h, w = view[number].foreground.shape
        expected = head.predict([view[number].features])[0]
        rows, columns = (
            ((np.arange(n) + 0.5) * size / n).astype(int)
            for n, size in zip((h, w), pixels.shape, strict=True)
        )
        np.testing.assert_array_equal(pixels[rows][:, columns], expected)
        np.testing.assert_array_equal(read_mask(out / f"{photo.stem}.mask.png", indexed=True), pixels)
        for each in index.loadAnns(index.getAnnIds(imgIds=number + 1)):
            seen.add(each["category_id"])
            np.testing.assert_array_equal(index.annToMask(each) > 0, pixels == each["category_id"])
    assert seen == {1, 2}


def test_a_page_keeps_its_head_until_the_model_changes(photos, masks):
    view = patchprism.visualize([photos], size=48, backbone=Toy(), masks=masks)
    again = view.recolored(Prism(foreground="mask", scaling="percentile"), fit=True)
    assert again.prism.method_ == "mask"
    for mine, theirs in zip(again.parts, view.parts, strict=True):
        np.testing.assert_array_equal(mine.score, theirs.score)
    assert view.recolored(Prism(foreground="object"), fit=True).prism.method_ == "object"
    other = replace(view, origin={**view.origin, "model": "another"})
    assert other.recolored(Prism(foreground="mask"), fit=True).prism.method_ == "object"


def test_hints_name_masks_that_disagree_and_photos_without_foreground(photos, masks):
    wrong = ~disc(photos / "p0003.png")
    given = {f"p000{i}": disc(photos / f"p000{i}.png") for i in (0, 1, 2)} | {"p0003": wrong}
    view = patchprism.visualize([photos], size=48, backbone=Toy(), masks=given)
    assert any(each.startswith("check the masks of p0003.png") for each in view.hints())


def test_a_sample_always_has_the_photos_with_masks(photos, masks, tmp_path):
    with open_engine() as engine:
        outcome = fit_prism(
            [photos],
            tmp_path / "a.prism",
            settings=SETTINGS,
            engine=engine,
            backbone=Toy(),
            sample=1,
            given=open_masks(str(masks)),
        )
    assert outcome.prism.n_voters_ == 2
    assert 2 <= outcome.n_photos <= 3
    assert outcome.prism.origin["sample"]["photos"] == outcome.n_photos


def test_masks_in_order_keep_their_photos_if_another_cannot_be_read(photos, masks, tmp_path):
    folder = tmp_path / "p"
    shutil.copytree(photos, folder)
    (folder / "p0001.png").write_bytes(b"no photo")
    given = [None] * 5
    given[2] = disc(photos / "p0002.png")
    view = patchprism.visualize([folder], size=48, backbone=Toy(), masks=given, errors="report")
    assert [each.get("mask_given", False) for each in view.report()["photos"]] == [False, True, False, False]
    assert view.report()["settings"]["mask"] == "masks"
    both = tmp_path / "both"
    shutil.copytree(photos, both)
    shutil.copytree(masks, both / "masks")
    refused(both, "one of them is the mask itself", masks=both / "masks")


def test_alpha_is_not_read_from_the_photos_of_a_store(photos, tmp_path):
    with open_engine() as engine:
        extract_features([photos], tmp_path / "a.zarr", settings=SETTINGS, engine=engine, backbone=Toy())
    with pytest.raises(MaskError, match="alpha is for photos; with a feature store, give a folder of masks"):
        patchprism.visualize(tmp_path / "a.zarr", masks="alpha")
