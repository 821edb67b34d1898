"""Fixtures that several test files share."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np
import pytest

import patchprism
from patchprism.jobs.engines import open_engine

SHARED_DOGS = Path(__file__).resolve().parents[2] / "shared" / "dogs"


def pytest_addoption(parser):
    """Add ``--all-packages``: ``make test`` installs all optional packages, so a missing one is a failure there."""
    parser.addoption(
        "--all-packages", action="store_true", help="fail instead of skipping tests if a package is missing"
    )


def pytest_configure(config):
    """With ``--all-packages``, let ``importorskip`` fail instead of skip."""
    if config.getoption("--all-packages"):
        pytest.importorskip = lambda name, **_: importlib.import_module(name)


@pytest.fixture
def two_threads():
    """Let torch use two threads in this test; by default, the suite gives one to each of its processes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_dogs() -> Path:
    """The folder with the seed's four dogs, which is beside the repository."""
    # The folder is beside the main checkout, also if the tests run in another worktree.
    if not (SHARED_DOGS / "1.jpg").is_file():
        pytest.skip("the seed's dogs are not beside this repository")
    return SHARED_DOGS


@pytest.fixture(autouse=True, scope="module")
def small_figures(request):
    """Draw figures with a sixteenth of the pixels; at full size, they would take most of the time of such small jobs.

    Tests with the mark ``figures_at_size`` draw them at full size.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("figures_at_size") is None:
            patch.setattr("patchprism.pictures.figure_options.SCREEN_DPI", 36)
        yield


@pytest.fixture
def photo() -> np.ndarray:
    """A photo of 48 x 64 pixels, smooth enough for JPEG and without any symmetry."""
    y, x = np.mgrid[:48, :64]
    red = 4 * x
    green = 5 * y
    blue = 255 - 2 * x - 2 * y
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


HELPERS = Path(__file__).resolve().parent / "helpers"


@pytest.fixture(scope="session")
def ray_engine():
    """A Ray cluster of two workers; started only once, because this takes seconds."""
    ray = pytest.importorskip("ray")
    paths = [str(Path(patchprism.__file__).resolve().parents[1]), str(HELPERS)]
    # An address in the environment would run these tests on an existing cluster.
    kept = {name: os.environ.pop(name, None) for name in ("RAY_ADDRESS",)}
    environment = {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": environment},
    )
    with open_engine("ray", workers=2) as engine:
        yield engine
    ray.shutdown()
    os.environ.update({name: value for name, value in kept.items() if value is not None})
