"""Tokens that no network should give are refused with the name of their photo, in every function."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import make_cell

import patchprism
from patchprism.backbones import Backbone
from patchprism.errors import FeaturesError, OptionError, PatchPrismError, PrismError
from patchprism.explorer.tokens import reduce_tokens
from patchprism.jobs.video.steady import FrameColors
from patchprism.lenses.base import unit_rows
from patchprism.lenses.clusters import cluster
from patchprism.lenses.matches import mutual_neighbors
from patchprism.lenses.norm import token_norms
from patchprism.lenses.similarity import cosine_map
from patchprism.pictures.histogram import count_scores
from patchprism.prism.moments import _tensor_part
from patchprism.prism.pca import StreamingPCA


def photo_tokens(seed=0, shape=(4, 5, 8)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_value(value):
    tokens = photo_tokens(1).astype(np.float64 if abs(value) > 3.4e38 else np.float32)
    tokens[1, 2, 3] = value
    return tokens


BAD = [
    pytest.param(np.nan, "finite, got NaN", id="nan"),
    pytest.param(np.inf, "finite, got infinity", id="inf"),
    pytest.param(-np.inf, "finite, got infinity", id="-inf"),
    pytest.param(1e19, "between -1e.12 and 1e.12, got 1e.19", id="1e19"),
    pytest.param(-1e30, "between -1e.12 and 1e.12, got -1e.30", id="-1e30"),
    pytest.param(3e38, ".*got 3e.38", id="3e38"),
    pytest.param(1e300, ".*got 1e.300", id="1e300"),
]


@pytest.fixture(scope="module")
def fitted():
    return patchprism.Prism(foreground="none").fit([photo_tokens(), photo_tokens(1)])


@pytest.mark.parametrize(("value", "words"), BAD)
def test_features_in_memory_name_the_photo(value, words):
    with pytest.raises(FeaturesError, match=f"^rex.png: features must (be|lie) {words}"):
        patchprism.PatchFeatures([photo_tokens(), with_value(value)], ["cat.png", "rex.png"])
    with pytest.raises(FeaturesError, match=f"^photo-2: .*{words}"):
        patchprism.Prism().fit([photo_tokens(), with_value(value)])


@pytest.mark.parametrize(("value", "words"), BAD)
@pytest.mark.parametrize(
    "use",
    [
        lambda prism, tokens: prism.transform([tokens]),
        lambda prism, tokens: prism.split(tokens, name="photo-1"),
        lambda prism, tokens: FrameColors(prism).split(tokens, name="photo-1"),
        lambda prism, tokens: reduce_tokens([tokens]),
        lambda prism, tokens: (
            cosine_map(tokens, tokens[0, 0]) if not np.isfinite(tokens).all() else refuse(tokens)
        ),
        lambda prism, tokens: make_cell("m", 0, patchprism.PatchFeatures([tokens]), [], prism),
    ],
    ids=["transform", "split", "frame", "explorer", "similarity", "compare"],
)
def test_functions_that_use_tokens_refuse_them(fitted, value, words, use):
    with pytest.raises(FeaturesError):
        use(fitted, with_value(value))


def refuse(tokens):
    return patchprism.PatchFeatures([tokens])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_lenses_refuse_rows_that_are_not_finite(value):
    tokens = with_value(value)
    rows = tokens.reshape(-1, 8)
    for look in (unit_rows, token_norms, lambda t: mutual_neighbors(rows, rows), lambda t: cluster(rows, 2)):
        with pytest.raises(FeaturesError, match=r"features.* must be finite"):
            look(tokens)
    with pytest.raises(FeaturesError, match="between"):
        cluster(with_value(1e19).reshape(-1, 8), 2)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e-20, 1.0, 1e10, 1e30])
def test_the_cosine_does_not_depend_on_the_tokens_size(scale):
    tokens = (photo_tokens() * np.float64(scale)).astype(np.float32)
    exact = tokens.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=-1, keepdims=True)
    np.testing.assert_allclose(unit_rows(tokens), exact, atol=1e-6)
    np.testing.assert_allclose(
        token_norms(tokens), np.linalg.norm(tokens.astype(np.float64), axis=-1), rtol=1e-6, atol=2e-45
    )


@pytest.mark.parametrize("scale", [1e-35, 1e-22, 1e-18, 1e-3, 1e12, 1e17, 1e19, 1e30, 1e37])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_pca_of_any_float32_equals_that_of_the_same_in_float64(scale, kind):
    """Their squares exceed float32's range, and once crashed the process in eigh."""
    rows = (photo_tokens(shape=(300, 1, 6))[:, 0] * [5, 4, 3, 2, 1, 0.5] * scale).astype(np.float32)
    ours = StreamingPCA(3).fit(kind(rows[:200])).partial_fit(kind(rows[200:]))
    exact = StreamingPCA(3).fit(rows.astype(np.float64) / scale)
    np.testing.assert_allclose(ours.components_, exact.components_, atol=1e-4)
    np.testing.assert_allclose(ours.explained_variance_, exact.explained_variance_ * scale**2, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e19, 1e-30])
def test_the_code_for_accelerators_leaves_such_rows_to_float64(scale):
    rows = torch.from_numpy(photo_tokens(shape=(64, 1, 6))[:, 0] * np.float32(scale))
    assert _tensor_part(rows) is None
    assert _tensor_part(rows.double()) is not None


def test_squares_that_overflow_float64_are_refused_and_change_nothing():
    pca = StreamingPCA(2).fit(photo_tokens(shape=(20, 1, 4))[:, 0])
    before = pca.components_.copy()
    for rows in (
        photo_tokens(shape=(20, 1, 4))[:, 0].astype(np.float64) * 1e200,
        np.full((20, 4), 1e170),
        np.full((20, 4), 1e308),
    ):
        with pytest.raises(ValueError, match="overflow float64"):
            pca.partial_fit(np.asarray(rows, np.float64))
    np.testing.assert_array_equal(pca.components_, before)


def test_a_tensor_that_is_not_finite_is_not_transformed():
    pca = StreamingPCA(2).fit(photo_tokens(shape=(20, 1, 4))[:, 0])
    with pytest.raises(ValueError, match="NaN or infinity"):
        pca.transform(torch.tensor([[1.0, 2.0, np.nan, 0.0]]))
    for tensor in (torch.eye(4).to_sparse(), torch.empty(3, 4, device="meta")):
        with pytest.raises(FeaturesError, match=r"expected real rows .*(sparse|meta)"):
            StreamingPCA(2).fit(tensor)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: np.ones((2, 2, 3), complex), "real numbers, got complex128", id="complex"),
        pytest.param(lambda: torch.ones(2, 2, 3, dtype=torch.complex64), "real numbers", id="complex tensor"),
        pytest.param(lambda: np.full((2, 2, 3), "1.5"), "real numbers, got <U3", id="text"),
        pytest.param(lambda: np.full((2, 2, 3), None), "real numbers, got object", id="object"),
        pytest.param(lambda: np.zeros((2, 2, 3), "M8[s]"), "real numbers, got datetime64", id="dates"),
        pytest.param(lambda: [[[1.0], [2.0, 3.0]]], "cannot be read as an array", id="ragged"),
        pytest.param(lambda: torch.empty(2, 2, 3, device="meta"), "cannot be read as an array", id="meta"),
        pytest.param(lambda: torch.ones(2, 2, 3).to_sparse(), "cannot be read as an array", id="sparse"),
        pytest.param(
            lambda: np.ma.masked_greater(np.arange(12.0).reshape(2, 2, 3), 10), "finite, got NaN", id="masked"
        ),
    ],
)
def test_other_things_than_arrays_of_real_numbers_are_refused_by_name(make, words, fitted):
    with pytest.raises(FeaturesError, match=f"^photo-1: .*{words}"):
        patchprism.PatchFeatures([make()])
    with pytest.raises(PatchPrismError):
        fitted.split(make())


def test_other_things_than_sequences_are_refused():
    with pytest.raises(FeaturesError, match=r"sequence of arrays .*, got int"):
        patchprism.Prism().fit(5)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        ("bool", "float32"),
        ("int8", "float32"),
        ("uint16", "float32"),
        ("int32", "float64"),
        ("int64", "float64"),
        ("float16", "float16"),
        (">f4", "float32"),
        ("longdouble", "float64"),
    ],
)
def test_other_dtypes_are_accepted_without_losing_digits(dtype, kept):
    tokens = (photo_tokens() * 100).astype(dtype)
    found = patchprism.PatchFeatures([tokens])[0]
    assert found.dtype == kept
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, tokens)
    assert np.isfinite(patchprism.Prism(foreground="none").fit([tokens]).transform([tokens])[0]).all()


def test_tensors_of_small_floats_are_accepted():
    tokens = torch.from_numpy(photo_tokens())
    for dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float16):
        found = patchprism.PatchFeatures([tokens.to(dtype)])[0]
        np.testing.assert_array_equal(found, tokens.to(dtype).float().numpy())


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-30, 1e-18, 1e10])
def test_small_and_large_tokens_have_the_colours_of_the_same_in_float64(scale):
    tokens = [(photo_tokens(i, (8, 8, 12)) * np.float64(scale)).astype(np.float32) for i in range(2)]
    exact = [each.astype(np.float64) / scale for each in tokens]
    prisms = [patchprism.Prism(foreground="none").fit(each) for each in (tokens, exact)]
    for a, b in zip(prisms[0].transform(tokens), prisms[1].transform(exact), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_nan_scores_are_not_counted():
    with pytest.raises(OptionError, match="got NaN"):
        count_scores(np.array([0.5, np.nan]))
    counts = count_scores(np.array([-np.inf, -1e300, 0.0, 1.0, 1e19, 1e300, np.inf]))
    assert (counts[0], counts[-1], counts.sum()) == (3, 4, 7)


def test_a_prism_with_enormous_numbers_is_refused_in_use(fitted, tmp_path):
    fitted.save(tmp_path / "a.prism")
    hostile = patchprism.Prism.load(tmp_path / "a.prism")
    hostile.scene_mean_ = np.full_like(hostile.scene_mean_, 1e308)
    hostile.scene_components_ = np.full_like(hostile.scene_components_, 1e308)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(PrismError, match="too large"):
            hostile.transform([photo_tokens()])


def blow_up(value):
    def network(pixels):
        tokens = pixels[:, :, ::8, ::8].permute(0, 2, 3, 1) * 1.0
        tokens[pixels.mean((1, 2, 3)) > 0] = value
        return tokens

    return Backbone.from_callable(network, patch_size=8, mean=(0.5,) * 3, std=(0.5,) * 3, name="blow-up")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e19])
def test_a_custom_network_that_overflows_is_reported_with_the_photo(value, tmp_path):
    from PIL import Image

    for name, level in (("dark", 40), ("light", 200)):
        noise = np.random.default_rng(0).integers(0, 20, (32, 32, 3)) + level
        Image.fromarray(noise.astype(np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(FeaturesError, match=r"light.png, as the network gives it: features must"):
        patchprism.visualize([tmp_path], backbone=blow_up(value), size=32)


@pytest.fixture
def store(tmp_path):
    from PIL import Image
    from roads import extract_features

    from patchprism.jobs.engines import open_engine
    from patchprism.jobs.settings import Settings

    names = []
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 120, (32, 40, 3)).astype(np.uint8)
        names.append(str(tmp_path / f"p{i}.png"))
        Image.fromarray(noise).save(names[-1])
    backbone = blow_up(1.0)
    settings = Settings(model="blow-up", size=32).resolved()
    with open_engine("local") as engine:
        extract_features(
            names, tmp_path / "f.zarr", settings=settings, engine=engine, tokens="float32", backbone=backbone
        )
    return tmp_path / "f.zarr"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e19])
def test_a_stores_tokens_are_checked_as_they_are_read(store, value):
    from patchprism.features.store import StoredFeatures

    features = StoredFeatures(store)
    (chunk,) = (path for path in (store / "tokens").rglob("*") if path.is_file() and path.name != "zarr.json")
    width = features.width
    data = np.fromfile(chunk, "<f4")
    data[20 * width + 1] = value  # in the second photo
    data.tofile(chunk)
    assert features[0].shape == (4, 5, width)
    for use in (lambda: features[1], lambda: list(features), lambda: patchprism.Prism().fit(features)):
        with pytest.raises(FeaturesError, match=r"p1.png in .*: features must"):
            use()
    with pytest.raises(FeaturesError, match=r"p1.png"):
        patchprism.visualize([store], foreground="none")


def test_a_report_of_extreme_features_is_json():
    tokens = [photo_tokens(i) * np.float32(10.0**power) for i, power in enumerate((-40, 0, 10))]
    summary = patchprism.Prism(foreground="none").fit(tokens).summary()
    json.dumps(summary, allow_nan=False)


def test_attention_that_is_not_finite_is_reported_with_the_photo(monkeypatch):
    from patchprism.lenses.attention import Attention

    bad = torch.full((1, 2, 4, 4), torch.nan)
    backbone = SimpleNamespace(attention=lambda *_, **__: bad, rollout=lambda *_, **__: bad[:, 0])
    framing = SimpleNamespace(
        apply=lambda *_, **__: SimpleNamespace(pixels=torch.zeros(3, 8, 8)), patch_size=2, stride=None
    )
    scene = SimpleNamespace(
        backbone=backbone,
        options=SimpleNamespace(layer=-1),
        photo=lambda _: np.zeros((8, 8, 3), np.uint8),
        framing=framing,
        number=lambda index: index,
    )
    lens = Attention(scene)
    lens.points_, lens.has_class_token_, lens.seen_ = [], True, {}
    with pytest.raises(FeaturesError, match=r"rex.png: .*attention is not finite"):
        lens.look(SimpleNamespace(name="rex.png"), None, None, 0)
