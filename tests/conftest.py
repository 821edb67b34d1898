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
    """``make test`` installs every optional package, so there a missing one is a failure and not a skip."""
    parser.addoption(
        "--all-packages", action="store_true", help="fail where a package is missing, do not skip"
    )


def pytest_configure(config):
    """Let ``importorskip`` fail where all packages must be here."""
    if config.getoption("--all-packages"):
        pytest.importorskip = lambda name, **_: importlib.import_module(name)


@pytest.fixture(scope="session")
def shared_dogs() -> Path:
    """The folder of the seed's four dogs, which lies beside the repository and not in it."""
    # A worktree lies elsewhere than the main checkout, but beside the same folder.
    if not (SHARED_DOGS / "1.jpg").is_file():
        pytest.skip("the seed's dogs are not beside this repository")
    return SHARED_DOGS


@pytest.fixture(autouse=True, scope="module")
def small_figures(request):
    """Figures of a sixteenth of the pixels, for at their own size they take most of the time of so small jobs.

    A file with the mark ``figures_at_size`` draws them as people see them.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("figures_at_size") is None:
            patch.setattr("patchprism.pictures.figure_options.SCREEN_DPI", 36)
        yield


@pytest.fixture
def photo() -> np.ndarray:
    """A photo of 48 x 64 pixels, smooth enough for JPEG, that no flip or turn maps to itself."""
    y, x = np.mgrid[:48, :64]
    red = 4 * x
    green = 5 * y
    blue = 255 - 2 * x - 2 * y
    return np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)


HELPERS = Path(__file__).resolve().parent / "helpers"


@pytest.fixture(scope="session")
def ray_engine():
    """A cluster of two workers; started once, it takes seconds."""
    ray = pytest.importorskip("ray")
    paths = [str(Path(patchprism.__file__).resolve().parents[1]), str(HELPERS)]
    # An address in the environment would take these tests to somebody's cluster.
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
