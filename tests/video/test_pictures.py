"""What the frames show: upright, in the clip's own colours, as the main job draws photos."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from video_clips import SIZE, av, make_clip, pictures, read, run

import patchprism
from patchprism.errors import OptionError
from patchprism.features.patch_features import PatchFeatures
from patchprism.jobs.video.canvas import Canvas
from patchprism.jobs.video.frames import Frame, Span, rgb_to_planes
from patchprism.jobs.video.source import open_clip
from patchprism.jobs.video.steady import FrameColors, PatchColors
from patchprism.photos.framing import Framing
from patchprism.pictures.render import overlay, paint
from patchprism.pictures.upsample import overlay_smooth, paint_smooth
from patchprism.prism.estimator import Prism


@pytest.mark.parametrize(
    ("turn", "upright"),
    [
        ((90, False), lambda a: np.rot90(a, 1)),
        ((180, False), lambda a: np.rot90(a, 2)),
        ((-90, False), lambda a: np.rot90(a, -1)),
        ((0, True), lambda a: a[:, ::-1]),
    ],
)
def test_turned_clips_are_shown_upright(tmp_path, turn, upright):
    clip = make_clip(tmp_path / "in.mp4", pictures(2), turn=turn)
    plain = read(make_clip(tmp_path / "plain.mp4", pictures(2)))[1][0]
    frame = next(open_clip(clip).frames(Span(), planes=True))
    assert np.array_equal(frame.rgb, upright(plain))
    assert frame.planes[0].shape == frame.rgb.shape[:2]


def test_pixels_that_are_not_square(tmp_path):
    with av.open(str(tmp_path / "in.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        out.mux(stream.encode(av.VideoFrame.from_ndarray(pictures(1, 64, 48)[0], format="rgb24")))
        out.mux(stream.encode(None))
    assert next(open_clip(tmp_path / "in.mp4").frames(Span(), planes=False)).rgb.shape == (64, 96, 3)


def patch_colors(seed=0, grid=(4, 6)):
    rng = np.random.default_rng(seed)
    return PatchColors(
        rng.random((*grid, 3), np.float32), rng.random(grid) > 0.4, rng.random(grid, dtype=np.float32)
    )


@pytest.mark.parametrize("crop", [(0.0, 0.0, 96.0, 64.0), (3.0, 0.0, 93.0, 64.0), (0.0, 2.5, 96.0, 61.5)])
@pytest.mark.parametrize("layout", ["side", "colors", "overlay"])
def test_painting_equals_that_of_photos(crop, layout):
    """Compares with the pictures of `render`, and planes with PyAV's conversion of the picture."""
    rgb = pictures(1)[0]
    frame = Frame(index=0, time=Fraction(0), rgb=rgb, planes=rgb_to_planes(rgb))
    patches = patch_colors()
    canvas = Canvas(layout=layout, alpha=None, upsample="nearest", matrix=1)
    painted = paint(patches.rgb, crop=crop, size=(64, 96))
    expected = {
        "side": np.concatenate([rgb, painted], axis=1),
        "colors": painted,
        "overlay": overlay(rgb, painted, 0.6, foreground=patches.foreground, crop=crop),
    }[layout]
    picture = canvas.paint_rgb(frame, patches, crop)
    assert np.abs(picture.astype(int) - expected).max() <= (1 if layout == "overlay" else 0)
    height, width = canvas.size(64, 96, even=True)
    planes = [np.zeros((height // k, width // k), np.uint8) for k in (1, 2, 2)]
    canvas.paint_planes(frame, patches, crop, planes)
    for mine, theirs in zip(planes, rgb_to_planes(expected), strict=True):
        apart = np.abs(mine.astype(int) - theirs)
        assert np.median(apart) <= 1
        if crop == (0.0, 0.0, 96.0, 64.0):
            # Only in the middle of patches, because PyAV's filter mixes the chroma of two patches at their edges.
            middle = 16 * mine.shape[0] // 64
            assert apart[middle // 2 :: middle, middle // 2 :: middle].max() <= 2
    assert np.abs(planes[0].astype(int) - rgb_to_planes(expected)[0]).max() <= 2


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize(("layout", "alpha"), [("side", None), ("colors", None), ("overlay", 0.7)])
def test_guided_colors_are_those_of_photos_in_the_clips_own_space(layout, alpha, matrix):
    rgb, crop, patches = pictures(1)[0], (3.0, 0.0, 93.0, 64.0), patch_colors()
    frame = Frame(index=0, time=Fraction(0), rgb=rgb, planes=rgb_to_planes(rgb, matrix))
    if alpha is None:
        painted = paint_smooth(patches.rgb, crop=crop, size=(64, 96), method="guided", photo=rgb)
    else:
        painted = overlay_smooth(rgb, patches.rgb, patches.foreground, alpha, crop=crop, method="guided")
    expected = np.concatenate([rgb, painted], axis=1) if layout == "side" else painted
    canvas = Canvas(layout=layout, alpha=alpha, upsample="guided", matrix=matrix)
    assert np.array_equal(canvas.paint_rgb(frame, patches, crop), expected)
    planes = [np.zeros((64 // k, expected.shape[1] // k), np.uint8) for k in (1, 2, 2)]
    canvas.paint_planes(frame, patches, crop, planes)
    for mine, theirs in zip(planes, rgb_to_planes(expected, matrix), strict=True):
        # If panels are converted as one picture, the chroma filter mixes them where they meet.
        assert np.median(np.abs(mine.astype(int) - theirs)) == 0
    assert np.abs(planes[0].astype(int) - rgb_to_planes(expected, matrix)[0]).max() <= 1
    assert not np.array_equal(rgb_to_planes(expected, 1)[0], rgb_to_planes(expected, 5)[0])


def test_smooth_colors_are_bilinear():
    rgb = np.zeros((60, 90, 3), np.uint8)
    patches = patch_colors()
    patches = PatchColors(patches.colors, np.ones((4, 6), bool), patches.score)
    frame = Frame(index=0, time=Fraction(0), rgb=rgb, planes=None)
    canvas = Canvas(layout="colors", alpha=None, upsample="bilinear", matrix=1)
    picture = canvas.paint_rgb(frame, patches, (0.0, 0.0, 90.0, 60.0))
    import torch

    expected = torch.nn.functional.interpolate(
        torch.from_numpy(patches.colors).permute(2, 0, 1)[None], size=(60, 90), mode="bilinear"
    )[0].permute(1, 2, 0)
    assert np.abs(picture - 255 * expected.numpy()).max() <= 0.51


def test_fast_colors_equal_the_prisms(backbone):
    rng = np.random.default_rng(3)
    tokens = rng.normal(size=(3, 8, 9, 24)).astype(np.float32) + 50
    tokens[:, 2:6, 2:6] += 3
    for options in ({}, {"scaling": "sigmoid"}, {"components": (4, -1, 2)}, {"foreground": "none"}):
        prism = Prism(**options).fit(PatchFeatures(list(tokens)))
        for each in tokens:
            mine, theirs = FrameColors(prism).split(each), prism.split(each)
            assert np.array_equal(mine.foreground, theirs.foreground)
            assert np.abs(mine.rgb - theirs.rgb).max() < 1e-6
            assert np.abs(mine.score - theirs.score).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "painted"),
    [
        ({}, {}),
        ({"layer": 9}, {}),
        ({"layer": (9, 13), "token_norm": "l2"}, {}),
        ({"space": "oklab", "scaling": "percentile"}, {}),
        ({"upsample": "bilinear"}, {"upsample": "bilinear"}),
        ({"upsample": "guided"}, {"upsample": "guided"}),
        ({"upsample": "guided", "layout": "overlay"}, {"upsample": "guided", "overlay_alpha": 0.6}),
    ],
)
def test_pictures_equal_those_of_the_main_job(tmp_path, backbone, options, painted):
    """`render` with the prism that `video` saved gives the same bytes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, picture in enumerate(pictures(6)):
        Image.fromarray(picture).save(folder / f"p{i}.png")
    chosen = {"layout": "colors", "steady": False, "save_prism": tmp_path / "a.prism"} | options
    report = run(folder, tmp_path / "out", backbone, **chosen)
    assert report.frames == 6
    loaded = Prism.load(tmp_path / "a.prism")
    view = patchprism.visualize([folder], backbone=backbone, prism=loaded, batch_size=2)
    plain = []
    for i in range(6):
        written = np.asarray(Image.open(tmp_path / "out" / f"frame-{i + 1:06d}.png"))
        apart = np.abs(written.astype(int) - view.picture(i, **painted))
        assert apart.max() <= 1, "beyond the rounding of another batch size"
        plain.append(
            np.abs(written.astype(int) - paint(view.parts[i].rgb, crop=view.crops[i], size=(64, 96)))
        )
    assert not painted or np.max(plain) > 8
    fitted = {name: loaded.origin[name] for name in ("layer", "token_norm")}
    wanted = options.get("layer", -1)
    assert fitted == {
        "layer": list(wanted) if isinstance(wanted, tuple) else wanted,
        "token_norm": options.get("token_norm", "none"),
    }
    assert loaded.space == options.get("space", "rgb")


def test_hints_and_stages_equal_those_of_the_main_job(tmp_path, backbone):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(np.full((64, 96, 3), 60 * i, np.uint8)).save(folder / f"{i}.png")
    Image.fromarray(pictures(1)[0]).save(folder / "3.png")
    report = run(folder, tmp_path / "out", backbone)
    view = patchprism.visualize([folder], backbone=backbone, size=SIZE)
    assert report.seconds.keys() == view.seconds.keys()
    assert 0 < report.network_seconds < report.seconds["colour and write"]
    assert len(report.hints) == len(view.hints()) > 0
    assert "3 photos show only one colour or noise" in report.hints[0]
    assert "at 0.000 s" in report.hints[0]
    assert report.warnings == []


def test_an_unknown_upsampling_is_refused(tmp_path, backbone):
    with pytest.raises(OptionError, match="upsample must be"):
        run(make_clip(tmp_path / "in.mp4", pictures(3)), tmp_path / "out.mp4", backbone, upsample="cubic")


def test_colors_survive_the_codec(tmp_path, backbone):
    clip = make_clip(tmp_path / "in.mp4", pictures(6))
    report = run(clip, tmp_path / "out.mp4", backbone, steady=False, crf=8)
    framing = Framing.from_dict(report.prism.origin["framing"])
    import torch

    for source, shown in zip(read(clip)[1], read(tmp_path / "out.mp4")[1], strict=True):
        framed = framing.apply(source)
        part = report.prism.split(backbone.patch_tokens(torch.as_tensor(framed.pixels)[None])[0].numpy())
        painted = paint(part.rgb, crop=framed.crop, size=source.shape[:2])
        middle = np.s_[4::16, 4::16]  # the middle of patches, because chroma has half the resolution
        apart = np.abs(shown[:, 96:].astype(int) - painted)
        assert np.median(apart) <= 4
        assert np.median(apart[middle]) <= 4
