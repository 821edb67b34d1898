"""A job that is many times the usual work for the network says so before it runs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from patchprism.backbones import find_record
from patchprism.backbones.dinov2 import build
from patchprism.cli import main
from patchprism.errors import OptionError
from patchprism.jobs.cost import explain_cost, operations
from patchprism.jobs.settings import Settings


def framing_of(record, size, stride=None):
    return record.framing(size=size, preset="default", mean=None, std=None, stride=stride)


@pytest.mark.parametrize("model", ["dinov2_vits14", "dinov2_vitl14"])
def test_the_operations_are_those_that_torch_counts(model):
    record = find_record(model)
    block = build(record).blocks[0]  # on the meta device: nothing is computed

    def counted(side):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            block(torch.empty(1, side**2, record.width, device="meta"))
        return counter.get_total_flops()

    for side in (16, 64, 448):
        ratio = operations(side, record) / operations(32, record)
        assert ratio == pytest.approx(counted(side) / counted(32), rel=1e-6)


def test_windows_take_what_their_photos_take():
    record = find_record("dinov2_vits14")
    # 160 patches along: windows of 64 start at 0, 48 and 96, and the small photo is one more.
    assert operations(160, record, window=64) == 10 * operations(64, record)
    assert operations(60, record, window=64) == operations(60, record)


@pytest.mark.parametrize(
    ("model", "size", "stride", "tile", "n_photos", "words"),
    [
        ("dinov2_vits14", 448, None, None, 100_000, ""),
        ("dinov2_vits14", 896, None, None, 1000, ""),
        ("dinov2_vits14", 448, 7, None, 1000, ""),
        ("dinov2_vits14", 896, 7, None, 1, ""),
        (
            "dinov2_vits14",
            448,
            1,
            None,
            1,
            "a square photo has 200,704 patches (by default 1,024), about 12,000 times the usual work for the network; "
            "with refine=8 instead of stride=1, it is about the usual work",
        ),
        (
            "dinov2_vits14",
            896,
            7,
            None,
            4,
            "90 times the usual work for the network; with refine=2 instead of stride=7, it is about 7.7",
        ),
        (
            "dinov2_vits14",
            5000,
            None,
            None,
            1,
            "4,900 times the usual work for the network; with tile=896, it is about 500 times",
        ),
        (
            "dinov2_vits14",
            5000,
            None,
            896,
            1,
            "500 times the usual work for the network; with size=2500, it is about 130 times",
        ),
        (
            "efficientnet_lite2",
            3200,
            None,
            None,
            8,
            "51 times the usual work for the network; with size=1600, it is about 13 times",
        ),
    ],
)
def test_what_is_said(model, size, stride, tile, n_photos, words):
    record = find_record(model)
    said = explain_cost(framing_of(record, size, stride), record, tile, n_photos)
    assert (words in said, "\n" in said, bool(said)) == (True, False, bool(words)), said


def test_a_command_says_it_once_before_the_network_runs(tmp_path, monkeypatch, capsys):
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    # The network would take too long.
    monkeypatch.setattr(
        "patchprism.features.extraction._framed_ahead", lambda *args, **options: sys.exit("it runs")
    )
    monkeypatch.setattr(
        "patchprism.jobs.extraction.Extraction.run", lambda *args, **options: sys.exit("it runs")
    )
    monkeypatch.setattr("patchprism.jobs.video.job.fit_frames", lambda *args, **options: sys.exit("it runs"))
    for command in (
        ("video", ".", "-o", "a.mp4"),
        ("render", "a.png"),
        ("render", "a.png", "--resume"),
        ("fit", "a.png", "-o", "a.prism"),
        ("features", "a.png", "-o", "a.zarr"),
        ("compare", "a.png", "--layer", "3,8"),
        ("explore", "a.png", "--html", "a.html"),
    ):
        for quiet in (False, True):
            options = ("-m", "efficientnet_lite2", "--size", "8000", *(["-q"] if quiet else []))
            monkeypatch.setattr(sys, "argv", ["patchprism", *command, *options])
            with pytest.raises(SystemExit, match="it runs"):
                main()
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == (not quiet), (command, lines)
            assert quiet or lines[0].startswith("note: a square photo has 250,000 patches (by default 784)")
            assert quiet or "with --size 4000, it" in lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 448, "stride": 1}, "size 448 with stride 1 needs about 7 GB of memory for one photo"),
        ({"size": 896, "stride": 2}, "size 896 with stride 2 needs about 7 GB of memory for one photo"),
    ],
)
def test_a_stride_that_does_not_fit_into_the_memory_is_refused(monkeypatch, options, words):
    monkeypatch.setattr("patchprism.jobs.settings.free_memory", lambda: 4 << 30)
    settings = Settings(model="focus_vits14", device="cpu", **options)
    with pytest.raises(OptionError) as caught:
        settings.framing(find_record("focus_vits14"))
    assert str(caught.value).startswith(words)
    assert str(caught.value).endswith("4.3 GB are free; choose a smaller size or a larger stride")
