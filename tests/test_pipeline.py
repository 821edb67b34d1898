"""The main job in one call, compared with an independent computation, and invariances of its colours."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import skimage
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

import patchprism
from patchprism.errors import FeaturesError, OptionError, PhotoError, PrismError

DATA = f"{next(iter(skimage.__path__))}/data"
NAMES = ("astronaut.png", "chelsea.png", "coffee.png")
MODEL = "efficientnet_lite2"


@pytest.fixture(scope="module")
def backbone():
    return patchprism.load_backbone(MODEL)


@pytest.fixture(scope="module")
def photos():
    """Crops of one photo, which share a subject, so that every stage has something to find."""
    cat = np.asarray(Image.open(f"{DATA}/chelsea.png").convert("RGB"))
    return [cat, cat[:, ::-1], cat[40:280, 80:400], cat[20:260, 30:330]]


def test_the_seed_preset_stage_by_stage_against_scikit_learn(backbone, shared_dogs):
    """Framing, three PCAs and min-max, computed only from the description in the blog post."""
    paths = sorted(shared_dogs.glob("*.jpg"))
    size = 448
    crops = []
    for path in paths:
        image = (
            torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
        )
        h, w = image.shape[-2:]
        edge = size + int(size * 0.01) * 10
        resized = (edge, int(edge * w / h)) if h <= w else (int(edge * h / w), edge)
        image = F.interpolate(image, size=resized, mode="bilinear", antialias=True)[0]
        top, left = round((resized[0] - size) / 2.0), round((resized[1] - size) / 2.0)
        crops.append((image[:, top : top + size, left : left + size] - 0.5) / 0.5)
    tokens = backbone.patch_tokens(torch.stack(crops)).numpy()
    rows = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)

    def minmax(values):
        return (values - values.min(axis=0)) / (values.max(axis=0) - values.min(axis=0))

    score = minmax(PCA(n_components=3, svd_solver="full").fit_transform(rows)[:, 0])
    view = patchprism.visualize(paths, backbone=backbone, preset="seed", foreground="pca")
    mask = score > 0.6 if view.prism.side_ == "above" else score < 0.6
    colors = np.zeros((len(rows), 3))
    colors[mask] = minmax(PCA(n_components=3, svd_solver="full").fit_transform(rows[mask]))
    raw = PCA(n_components=3, svd_solver="full").fit_transform(rows).reshape(len(paths), -1, 3)
    for values, keep in zip(raw, mask.reshape(len(paths), -1), strict=True):
        values[~keep] = values.min()
    raw = minmax(raw.reshape(-1, 3))

    clear = np.abs(score - 0.6) > 1e-4
    np.testing.assert_allclose(np.ravel(view.scores), score, atol=1e-3)
    np.testing.assert_array_equal(np.ravel(view.foreground)[clear], mask[clear])
    np.testing.assert_allclose(np.reshape(view.colors, (-1, 3))[clear], colors[clear], atol=1e-3)
    np.testing.assert_allclose(np.reshape(view.colors_all, (-1, 3))[clear], raw[clear], atol=1e-3)


def close(one, other, threshold):
    """Colours within 1/255, and masks equal except at the threshold."""
    for a, b in zip(one, other, strict=True):
        at_threshold = np.abs(a.score - threshold) < 1e-4
        np.testing.assert_array_equal(a.foreground[~at_threshold], b.foreground[~at_threshold])
        np.testing.assert_allclose(a.rgb[~at_threshold], b.rgb[~at_threshold], atol=1 / 255)
        np.testing.assert_allclose(a.score, b.score, atol=1 / 255)


@pytest.mark.parametrize("scaling", ["minmax", "percentile", "sigmoid"])
def test_neither_order_nor_batches_nor_threads_change_colours(backbone, photos, scaling):
    view = patchprism.visualize(photos, backbone=backbone, size=224, scaling=scaling)
    threshold = view.prism.threshold_
    for batch_size in (1, 3):
        other = patchprism.visualize(
            photos, backbone=backbone, size=224, scaling=scaling, batch_size=batch_size
        )
        close(view.parts, other.parts, threshold)
    turned = patchprism.visualize(photos[::-1], backbone=backbone, size=224, scaling=scaling)
    close(view.parts, turned.parts[::-1], threshold)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with threadpool_limits(1):
            close(
                view.parts,
                patchprism.visualize(photos, backbone=backbone, size=224, scaling=scaling).parts,
                threshold,
            )
    finally:
        torch.set_num_threads(threads)


def test_a_part_has_the_same_colour_in_all_photos(backbone, photos):
    """The mirrored photo has the mirrored colours, with real features."""
    view = patchprism.visualize(photos[:2], backbone=backbone, size=224)
    a, b = view.parts[0], view.parts[1]
    both = a.foreground & b.foreground[:, ::-1]
    assert both.mean() > 0.2
    difference = np.abs(a.rgb - b.rgb[:, ::-1])[both].mean()
    shuffled = np.abs(a.rgb[both] - np.random.default_rng(0).permutation(a.rgb[both])).mean()
    assert difference < 0.25 * shuffled


def test_paths_images_and_arrays_are_all_photos(backbone, tmp_path):
    image = Image.open(f"{DATA}/coffee.png").convert("RGB")
    image.save(tmp_path / "coffee.png")
    inputs = [tmp_path / "coffee.png", str(tmp_path / "coffee.png"), image, np.asarray(image)]
    views = [patchprism.visualize([each], backbone=backbone, size=96) for each in inputs]
    for view in views[1:]:
        np.testing.assert_array_equal(view.colors[0], views[0].colors[0])
    assert views[0].names == [str(tmp_path / "coffee.png")]
    assert views[3].names == ["photo-1"]
    assert len(patchprism.visualize(tmp_path, backbone=backbone, size=96)) == 1


def test_a_single_photo_and_an_iterator_of_photos(backbone, tmp_path):
    image = Image.open(f"{DATA}/coffee.png").convert("RGB").resize((60, 40))
    image.save(path := tmp_path / "coffee.png")
    array = np.asarray(image)

    def view(photos):
        return patchprism.visualize(photos, backbone=backbone, size=96)

    one = view([array]).colors[0]
    for alone in (image, array, path.read_bytes(), io.BytesIO(path.read_bytes()), str(path), iter([array])):
        assert [c.tolist() for c in view(alone).colors] == [one.tolist()]
    for several in (np.stack([array, array[::-1]]), (each for each in (array, array[::-1]))):
        assert len(view(several)) == 2
    assert view(np.array([str(path)])).names == [str(path)]
    assert repr(view(array[..., 0])).startswith("Visualization(1 photo, ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"photos": None}, "photos must be paths, images or arrays, got NoneType"),
        ({"photos": 5}, "photos must be paths, images or arrays, got int"),
        ({"prism": "dogs.prism"}, "prism must be a Prism, for example from Prism.load, got 'dogs.prism'"),
        ({"size": 0}, "size must be a whole number from 1 to 13377, got 0"),
    ],
)
def test_wrong_arguments_are_named(backbone, photos, options, words):
    with pytest.raises(OptionError, match=words):
        patchprism.visualize(**{"photos": photos, "backbone": backbone, **options})


def test_a_photo_that_is_given_twice_is_used_once(backbone, tmp_path):
    Image.open(f"{DATA}/coffee.png").save(tmp_path / "coffee.png")
    view = patchprism.visualize(
        [tmp_path, tmp_path / "coffee.png", f"{tmp_path}/*.png"], backbone=backbone, size=96
    )
    assert len(view) == 1


def test_shapes_are_kept(backbone, photos):
    view = patchprism.visualize([photos[0], photos[2][:, :100]], backbone=backbone, size=96)
    assert [score.shape for score in view.scores] == [(6, 9), (14, 6)]
    for i, (h, w) in enumerate(view.sizes):
        assert view.picture(i).shape == view.picture(i, overlay_alpha=0.5).shape == (h, w, 3)


def test_notebooks_display_a_visualization(backbone, photos):
    view = patchprism.visualize(photos, backbone=backbone, size=96)
    assert view._repr_png_().startswith(b"\x89PNG")
    assert "4 photos, efficientnet_lite2, score" in repr(view)
    figure = view.figure()
    assert len(figure.axes[0].images) == 4 * 4 + 1  # plus a colour bar
    figure.canvas.draw()


def test_a_prism_of_another_model_is_refused_unless_forced(backbone, photos):
    prism = patchprism.visualize(photos, backbone=backbone, size=96).prism
    prism.origin = {**prism.origin, "weights_sha256": "0" * 64}
    with pytest.raises(PrismError, match="another weights"):
        patchprism.visualize(photos, backbone=backbone, prism=prism)
    forced = patchprism.visualize(photos, backbone=backbone, prism=prism, force=True)
    assert len(forced.colors) == 4
    with pytest.raises(OptionError, match="scaling is fixed by the prism"):
        patchprism.visualize(photos, backbone=backbone, prism=prism, scaling="sigmoid")


def test_bad_photos_raise_or_are_reported(backbone, photos, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    with pytest.raises(PhotoError, match=r"bad\.jpg"):
        patchprism.visualize([photos[0], tmp_path / "bad.jpg"], backbone=backbone, size=96)
    view = patchprism.visualize([tmp_path / "bad.jpg", *photos], backbone=backbone, size=96, errors="report")
    assert [failure.photo for failure in view.failures] == [str(tmp_path / "bad.jpg")]
    assert view.names == ["photo-2", "photo-3", "photo-4", "photo-5"]
    np.testing.assert_array_equal(view.photos.read(0), photos[0])
    with pytest.raises(PhotoError, match="nothing was done"):
        patchprism.visualize([tmp_path / "bad.jpg"], backbone=backbone, errors="report")
    with pytest.raises(PhotoError, match="none were given"):
        patchprism.visualize([], backbone=backbone)
    with pytest.raises(OptionError, match="errors must be"):
        patchprism.visualize(photos, backbone=backbone, errors="ignore")


@pytest.mark.parametrize("shape", [(1, 1), (10, 10_000), (3000, 4000)])
def test_photos_of_any_size_go_through(backbone, shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    view = patchprism.visualize([photo], backbone=backbone, size=96, foreground="none")
    assert view.picture(0).shape == (*shape, 3)
    assert np.isfinite(view.colors[0]).all()


def test_photos_beyond_the_memory_budget_are_read_again(backbone, photos, monkeypatch, tmp_path):
    monkeypatch.setattr("patchprism.features.extraction.KEPT_BYTES", 0)
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / f"{i}.png")
    view = patchprism.visualize([tmp_path], backbone=backbone, size=96)
    assert not view.photos._kept
    kept = patchprism.visualize(photos, backbone=backbone, size=96)
    for i in range(4):
        np.testing.assert_array_equal(view.picture(i, overlay_alpha=0.5), kept.picture(i, overlay_alpha=0.5))


def test_a_backbone_that_gives_nan_is_named(backbone, photos, monkeypatch):
    monkeypatch.setattr(
        type(backbone),
        "_layers",
        lambda self, pixels, layers, *_: {
            i: torch.full((len(pixels), 6, 6, 8), float("nan")) for i in layers
        },
    )
    with pytest.raises(FeaturesError, match=r"photo-1, as the network gives it: .*NaN"):
        patchprism.visualize(photos[:1], backbone=backbone, size=96)


def test_importing_loads_nothing_heavy_and_lists_the_public_names():
    program = (
        "import sys, patchprism\n"
        "assert not {'torch', 'sklearn', 'numpy', 'PIL'} & set(sys.modules), sorted(sys.modules)\n"
        "assert set(patchprism.__all__) <= set(dir(patchprism))\n"
        "for name in patchprism.__all__: getattr(patchprism, name)\n"
        "try: patchprism.nothing\n"
        "except AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "module 'patchprism' has no attribute 'nothing'\n"
