"""The framing of a backbone is the one that jobs use."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toys import RECORD, Toy

from patchprism.errors import OptionError
from patchprism.jobs.settings import Settings
from patchprism.photos.framing import Framing


def test_the_framing_of_a_backbone():
    assert Toy().framing() == Framing(size=448, patch_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    other = replace(RECORD, patch_size=14, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert other.framing(size=224) == Framing(
        size=224, patch_size=14, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )
    assert other.framing(size=224, std=[1, 2, 3]).std == (1.0, 2.0, 3.0)
    seed = other.framing(size=224, preset="seed", mean=(0.7, 0.8, 0.9))
    assert (seed.crop, seed.interpolation, seed.mean, seed.std) == (
        "center",
        "bilinear",
        (0.7, 0.8, 0.9),
        (0.5, 0.5, 0.5),
    )


@pytest.mark.parametrize(
    "options", [{}, {"size": 96}, {"preset": "seed", "size": 96}, {"mean": (0.1, 0.2, 0.3), "size": 96}]
)
def test_jobs_use_the_same_framing(options):
    assert Settings(model="toy", **options).resolved().framing(RECORD) == Toy().framing(**options)


def test_an_unknown_normalisation_must_be_given():
    unknown = replace(RECORD, mean=None, std=None)
    with pytest.raises(OptionError, match=r"give mean=R,G,B and std=R,G,B \(for colours"):
        unknown.framing(size=96)
    with pytest.raises(OptionError, match=r"give std=R,G,B \(for colours"):
        unknown.framing(size=96, mean=(0.5,) * 3)
    assert unknown.framing(size=96, mean=(0.1,) * 3, std=(0.2,) * 3).std == (0.2,) * 3
    assert unknown.framing(size=96, preset="seed").mean == (0.5,) * 3


@pytest.mark.parametrize(
    ("options", "words"),
    [({"size": 0}, "size must"), ({"preset": "x"}, "preset must"), ({"mean": (1, 2)}, "mean must")],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(OptionError, match=words):
        Toy().framing(**options)
