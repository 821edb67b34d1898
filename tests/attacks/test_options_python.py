"""Keyword arguments of the public functions with unusual values give a result or a PatchPrismError.

The parameters are found by introspection, so that new ones are tested too.
"""

from __future__ import annotations

import inspect
from decimal import Decimal
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Toy

import patchprism
from patchprism import Backbone, Framing, PatchFeatures, PatchPrismError, Prism, StreamingPCA
from patchprism.lenses.comparison import compare
from patchprism.lenses.comparison_figures import save_comparison
from patchprism.lenses.looking import look_through
from patchprism.lenses.options import LensOptions

VALUES = [
    None, True, False, 0, 1, -1, 3, 2**31, 10**9, -(10**9), 10**5000, 0.5, -0.0, 1e308, float("nan"), float("inf"),
    "", "x", "\0", "\ud800", "[red]", "auto", "x" * 5000, b"x", b"", 1j, Decimal("0.5"), Decimal("sNaN"),
    Fraction(1, 2), Path("x"), object(), int, len, Ellipsis, NotImplemented, ValueError("x"), [], (), {}, set(), {1},
    {"a": 1}, [None], [[1]], [1, 2], ["a", 1], range(3), (1, 2, 3), (1.0, 2.0, 3.0), (0, 0, 0),
    np.int64(2), np.uint8(1), np.float32(0.5), np.float64("nan"), np.longdouble(1), np.bool_(True), np.str_("above"),
    np.bytes_(b"x"), np.datetime64("2020-01-01"), np.array(1), np.array(0.5), np.array("x"), np.array([1, 2, 3]),
    np.array([]), np.array([None]), np.float32, np.dtype("float32"), np.dtype("int8"), np.ma.masked,
    torch.tensor(1), torch.tensor(0.5), torch.tensor([1, 2, 3]), torch.empty((), device="meta"), torch.float32,
    torch.int8, torch.device("cpu"), torch.device("meta"), torch.device("cuda", 99),
]  # fmt: skip
FUNCTIONS = [i for i, value in enumerate(VALUES) if callable(value)]
MAKERS = {"generator": lambda: (each for each in (1, 2, 3)), "empty": lambda: iter([]), "endless": count}


@pytest.fixture(scope="module")
def photo():
    y, x = np.mgrid[:24, :32]
    disc = ((y - 12) ** 2 + (x - 16) ** 2 < 60)[..., None]
    made = np.where(disc, [230, 120, 20], [40, 90, 160]) + (7 * x % 40 + 5 * y % 30)[..., None]
    return made.astype(np.uint8)


@pytest.fixture(scope="module")
def view(photo):
    return patchprism.visualize([photo, photo[::-1]], backbone=Toy(), size=32)


@pytest.fixture
def calls(photo, view, tmp_path, monkeypatch):
    """Each public callable, with arguments that work."""
    monkeypatch.chdir(tmp_path)
    tokens = np.random.default_rng(0).normal(size=(2, 4, 5, 12)).astype(np.float32)
    rows, pixels, toy = tokens.reshape(-1, 12), torch.zeros(1, 3, 16, 16), Toy()
    own = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "patch_size": 8}
    comparison = compare([photo], models=[toy], layers=[0, -1], size=32)
    return {
        "visualize": (patchprism.visualize, {"photos": [photo], "backbone": toy, "size": 32}),
        "compare": (compare, {"photos": [photo], "models": [toy], "layers": [0, -1], "size": 32}),
        "save_comparison": (save_comparison, {"comparison": comparison, "out": "out"}),
        "prism": (lambda **options: Prism(**options).fit(tokens).transform(tokens), Prism, {}),
        "prism.save": (lambda **options: (p := Prism(**options).fit(tokens)).save("p") or repr(p), Prism, {}),
        "prism.load": (Prism.load, {"path": "x"}),
        "pca": (lambda **options: StreamingPCA(**options).fit(rows).transform(rows), StreamingPCA, {}),
        "framing": (lambda **options: Framing(**options).apply(photo), Framing, {"size": 32, **own}),
        "preset": (Framing.preset, {"name": "default", **own}),
        "from_dict": (Framing.from_dict, {"options": {}}),
        "callable": (Backbone.from_callable, {"fn": lambda p: p.mean(1)[..., None], **own}),
        "load": (patchprism.load_backbone, {"name": "dinov2_vits14", "download": False, "weights": "none"}),
        "tokens": (toy.patch_tokens, {"pixels": pixels}),
        "layers": (toy.layer_tokens, {"pixels": pixels, "layers": [0]}),
        "attention": (toy.attention, {"pixels": pixels}),
        "index": (toy.layer_index, {"layer": 0}),
        "picture": (view.picture, {"index": 0}),
        "save": (view.save, {"out": "out"}),
        "explore": (view.explore, {}),
        "look": (look_through, {"view": view, "names": ["norm"]}),
        "lens": (lambda **options: look_through(view, ["clusters"], LensOptions(**options)), LensOptions, {}),
        "features": (PatchFeatures, {"tokens": tokens}),
        "read": (patchprism.read_photo, {"source": photo}),
        "extract": (patchprism.extract, {"photos": [photo], "backbone": toy, "size": 32}),
        "own": (patchprism.visualize, {"features": tokens}),
        "one": (lambda photo: view[photo].picture(), {"photo": 0}),
        "similarity": (view.similarity, {"photo": 0, "x": 3, "y": 4}),
        "clusters": (view.clusters, {"k": 3}),
        "matches": (view.matches, {"a": 0, "b": 1}),
        "attend": (view.attention, {"photo": 0, "x": 3, "y": 4}),
        "norms": (view.norms, {}),
    }


NAMES = [
    "visualize", "compare", "save_comparison", "prism", "prism.save", "prism.load", "pca", "framing", "preset",
    "from_dict", "callable", "load", "tokens", "layers", "attention", "index", "picture", "save", "explore", "look",
    "lens", "features", "read", "extract", "own", "one", "similarity", "clusters", "matches", "attend", "norms",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_any_value_gives_a_result_or_our_error(calls, name):
    assert set(calls) == set(NAMES)
    function, *signature, arguments = calls[name]
    parameters = inspect.signature(signature[0] if signature else function).parameters
    wrong = []
    values = [*((i, lambda value=value: value) for i, value in enumerate(VALUES)), *MAKERS.items()]
    # Slow functions are tested with a share of the values per parameter.
    shares = {
        "visualize": 5,
        "compare": 8,
        "save": 4,
        "lens": 4,
        "explore": 4,
        "own": 5,
        "extract": 3,
        "clusters": 4,
    }.get(name, 1)
    for n, parameter in enumerate(each for each in parameters if each != "y"):
        for which, make in values[n % shares :: shares]:
            if parameter in ("photos", "tokens", "features") and which == "endless":
                continue
            if parameter == "progress" and which in FUNCTIONS:
                continue  # a user's function may raise any error
            try:
                function(**{**arguments, parameter: make()})
            except PatchPrismError as error:
                if len(str(error)) > 6000 or "\n" in str(error):
                    wrong.append((parameter, which, "no short line"))
            except Exception as error:
                wrong.append((parameter, which, type(error).__name__, str(error)[:100]))
    assert not wrong, "\n".join(map(repr, wrong))


@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"layer": np.int64(0)}, {"layer": 0}),
        ({"layer": torch.tensor(0)}, {"layer": 0}),
        ({"layer": np.array([0, -1])}, {"layer": (0, -1)}),
        ({"components": np.array([1, -2, 3])}, {"components": (1, -2, 3)}),
        ({"components": iter([3, 2, 1])}, {"components": (3, 2, 1)}),
        ({"threshold": np.float32(0.5)}, {"threshold": 0.5}),
        ({"threshold": Decimal("0.25")}, {"threshold": 0.25}),
        ({"threshold": Fraction(1, 4)}, {"threshold": 0.25}),
        ({"threshold": np.str_("otsu")}, {"threshold": "otsu"}),
        ({"mask_threshold": torch.tensor(0.5)}, {"mask_threshold": 0.5}),
        ({"opening": np.uint8(1)}, {"opening": 1}),
        ({"final_norm": np.bool_(False)}, {"final_norm": False}),
        ({"size": np.int32(32)}, {"size": 32}),
        ({"device": torch.device("cpu")}, {"device": "cpu"}),
        ({"batch_size": np.array(1)}, {"batch_size": 1}),
        ({"weights": Path("w.pth")}, {"weights": "w.pth"}),
    ],
)
def test_values_of_other_types_work_like_python_values(photo, tmp_path, options, plain):
    import json

    view = patchprism.visualize([photo], backbone=Toy(), **{"size": 32, **options})
    assert {name: view.settings[name] for name in plain} == plain
    assert {type(view.settings[name]) for name in plain} == {type(each) for each in plain.values()}
    view.save(tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())["settings"]
    assert all(told[name] == json.loads(json.dumps(value)) for name, value in plain.items())
    Prism.load(tmp_path / "prism.safetensors")


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, "bfloat16", np.str_("bfloat16"), np.dtype("float32"), np.float16]
)
def test_dtypes_by_any_name(dtype):
    from patchprism.jobs.settings import Settings

    assert Settings(dtype=dtype).dtype in ("bfloat16", "float32", "float16")


@pytest.mark.parametrize("photos", [{"a": 1}, {"a.png"}, frozenset(), 5, 1.5, None, object()])
def test_things_that_are_not_photos(photos):
    with pytest.raises(patchprism.errors.OptionError, match="photos must be paths, images or arrays"):
        patchprism.visualize(photos, backbone=Toy())


def test_a_store_of_several_layers_accepts_exactly_these_layers():
    from patchprism.features.store import StoredFeatures
    from patchprism.jobs.opened import resolved_for
    from patchprism.jobs.settings import Settings

    class Store(StoredFeatures):
        """The parts of a store that the function uses."""

        origin = {"layer": [2, 5]}  # noqa: RUF012
        framing = Framing(size=32, patch_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)

        def __init__(self):
            pass

    store = Store()
    assert resolved_for(Settings(layer=np.array([2, 5])), store, None).layer == (2, 5)


def test_too_large_a_size_is_refused_before_anything_is_read(monkeypatch, tmp_path):
    from patchprism.jobs import settings

    monkeypatch.setattr(settings, "free_memory", lambda: 10**9)
    (tmp_path / "a.png").write_bytes(b"no photo")
    with pytest.raises(patchprism.errors.OptionError, match=r"size 8960 needs about .* GB of memory"):
        patchprism.visualize([tmp_path / "a.png"], model="dinov2_vits14", size=8960, device="cpu")
