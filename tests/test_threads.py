"""Limits of threads, which must not affect other threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from toys import Toy, tiny_transformer

from patchprism.backbones import checkpoint, linear
from patchprism.features.extraction import Photos, extract
from patchprism.jobs.settings import Settings
from patchprism.support.threads import few_threads, leave_the_cores, one_blas_thread, one_thread


def threads_of(api):
    info = pytest.importorskip("threadpoolctl").threadpool_info()
    found = [each["num_threads"] for each in info if each["user_api"] == api]
    if not found:
        pytest.skip(f"no library of {api} here")
    return found


def test_only_the_calling_thread_is_limited(two_threads):
    before = torch.get_num_threads()
    seen = {}

    def work():
        leave_the_cores()
        seen["inside"] = torch.get_num_threads()

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen["inside"] == 1
    other = threading.Thread(target=lambda: seen.update(other=torch.get_num_threads()))
    other.start()
    other.join()
    assert seen["other"] == before == torch.get_num_threads()


def test_numpys_threads_are_restored():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = threads_of("blas")
    with one_blas_thread():
        assert min(threads_of("blas")) == 1
    assert threads_of("blas") == before


def test_scikit_learns_threads_are_restored():
    import sklearn.cluster  # noqa: F401 - its libraries

    before = threads_of("blas"), threads_of("openmp")
    for _ in range(2):
        with one_thread():
            assert max(threads_of("blas") + threads_of("openmp")) == 1
        assert (threads_of("blas"), threads_of("openmp")) == before


def test_torchs_threads_are_restored(two_threads):
    before = torch.get_num_threads()
    for numbers, inside in ((1000, 1), (200_000_000, before)):
        with few_threads(numbers):
            assert torch.get_num_threads() == inside
        assert torch.get_num_threads() == before


def test_weights_are_checked_and_packed_in_one_thread(two_threads, monkeypatch):
    seen = []
    pack, check = linear.Linear.pack, checkpoint.check_tensor
    monkeypatch.setattr(
        linear.Linear, "pack", lambda layer: (seen.append(torch.get_num_threads()), pack(layer))
    )
    monkeypatch.setattr(
        checkpoint, "check_tensor", lambda *given: (seen.append(torch.get_num_threads()), check(*given))
    )
    tiny_transformer()
    checkpoint.load_strictly(
        torch.nn.Linear(3, 2, device="meta"), {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    )
    assert len(seen) > 2
    assert set(seen) == {1}


def test_readers_use_one_thread_each(two_threads):
    """The threads that frame photos while the network runs, in the main job and in videos."""
    seen = []

    class Watched(Photos):
        def frame(self, index, framing):
            seen.append((threading.current_thread().name, torch.get_num_threads()))
            return super().frame(index, framing)

    photo = np.zeros((48, 48, 3), np.uint8)
    framing = Settings(model="toy", size=48).resolved().framing(Toy().record)
    assert len(list(extract(Watched([photo] * 5, list("abcde")), Toy(), framing))) == 5
    assert {name.rsplit("_", 1)[0] for name, _ in seen} == {"patchprism-read"}
    assert {count for _, count in seen} == {1}


_SPIN = """
import os, sys
import patchprism.cli as cli
cli.main = lambda: print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
cli.entry()
"""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "3000 False"),
        ({"GOMP_SPINCOUNT": "7"}, "7 False"),
        ({"OMP_WAIT_POLICY": "active"}, "None False"),
    ],
)
def test_commands_limit_spinning_unless_the_user_has_set_it(given, said):
    """Set before torch is imported, because libgomp reads it only once."""
    import os
    import subprocess
    import sys

    rest = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", _SPIN], capture_output=True, text=True, check=True, env=rest | given
    )
    assert done.stdout.strip() == said


_FAULTS = """
import resource, sys
import numpy as np
from patchprism.support.memory import give_back_memory, keep_memory
if sys.argv[1] == "keep":
    keep_memory()
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
def touch():
    for _ in range(3):
        np.ones(48 << 20, np.uint8)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
held = rss()
give_back_memory()
print(faults, held - rss())
"""


def test_commands_keep_memory_and_can_release_it():
    import platform
    import subprocess
    import sys

    if platform.libc_ver()[0] != "glibc":
        pytest.skip("only for glibc")
    faults, given = {}, {}
    for how in ("keep", "default"):
        done = subprocess.run(
            [sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True
        )
        faults[how], given[how] = map(int, done.stdout.split())
    assert faults["keep"] < 0.05 * faults["default"]
    assert given["keep"] > 40 << 20
