"""Opening and closing, compared with SciPy."""

from __future__ import annotations

import numpy as np
import pytest

from patchprism.errors import OptionError
from patchprism.jobs.settings import with_mask
from patchprism.prism.estimator import Prism
from patchprism.prism.morphology import clean

ndimage = pytest.importorskip("scipy.ndimage")


def by_scipy(mask, opening, closing):
    """By SciPy, with the outside as foreground when eroding, which is our rule; SciPy's default is background."""
    for times, first, second in (
        (opening, ndimage.binary_erosion, ndimage.binary_dilation),
        (closing, ndimage.binary_dilation, ndimage.binary_erosion),
    ):
        for step in (first, second):
            if times:
                border = 1 if step is ndimage.binary_erosion else 0
                mask = step(mask, iterations=times, border_value=border)
    return mask


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (9, 1), (14, 20)])
@pytest.mark.parametrize(("opening", "closing"), [(0, 0), (1, 0), (0, 1), (2, 1), (3, 3)])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.75, 1.0])
def test_it_agrees_with_scipy(shape, opening, closing, share):
    mask = np.random.default_rng(3).random(shape) < share
    before = mask.copy()
    np.testing.assert_array_equal(
        clean(mask, opening=opening, closing=closing), by_scipy(mask, opening, closing)
    )
    np.testing.assert_array_equal(mask, before)


def two_humps():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(2, 9, 12, 24))
    tokens[:, 2:7, 3:9] += 4
    tokens[:, 2:7, 3:9, :3] += rng.normal(size=(2, 5, 6, 3)) * 2
    return tokens.astype(np.float32)


def test_another_shown_foreground_does_not_change_colours(tmp_path):
    tokens = two_humps()
    plain = Prism().fit(tokens)
    shown = with_mask(plain, {"mask_threshold": 0.1, "mask_side": None, "opening": 0, "closing": 0})
    a, b = plain.split(tokens[0]), shown.split(tokens[0])
    assert b.foreground.sum() != a.foreground.sum()
    both = a.foreground & b.foreground
    assert both.any()
    np.testing.assert_array_equal(a.rgb[both], b.rgb[both])
    assert not b.rgb[~b.foreground].any()
    shown.save(tmp_path / "p")
    np.testing.assert_array_equal(Prism.load(tmp_path / "p").split(tokens[0]).rgb, b.rgb)
    # A fit with the options gives the same, and the file of a prism without them does not contain them.
    np.testing.assert_array_equal(Prism(mask_threshold=0.1).fit(tokens).split(tokens[0]).rgb, b.rgb)
    plain.save(tmp_path / "q")
    assert b"mask_threshold" not in (tmp_path / "q").read_bytes()
    assert with_mask(plain, {"mask_threshold": None, "mask_side": None, "opening": 0, "closing": 0}) is plain


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mask_threshold": 1.5}, "mask_threshold must be a number from 0 to 1, got 1.5"),
        ({"mask_threshold": True}, "mask_threshold must be"),
        ({"mask_threshold": float("nan")}, "mask_threshold must be"),
        ({"mask_side": "auto"}, "mask_side must be one of above, below, none, got 'auto'"),
        ({"opening": -1}, "opening must be a whole number from 0 to 16, got -1"),
        ({"closing": 1.0}, "closing must be a whole number from 0 to 16, got 1.0"),
        ({"foreground": "none", "mask_side": "above"}, "mask_side 'above' needs a mask_threshold"),
        ({"foreground": "none", "mask_threshold": 0.5}, "mask_threshold needs a mask_side"),
        (
            {"foreground_component": 2},
            "foreground_component 2 needs foreground='pca', .*: auto does not use a",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(options, told):
    with pytest.raises(OptionError, match=told):
        Prism(**options).fit(two_humps())
