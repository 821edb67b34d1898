"""Which threads are limited, and that the others are not."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from patchprism.threads import leave_the_cores, one_blas_thread


def threads_of(api):
    info = pytest.importorskip("threadpoolctl").threadpool_info()
    found = [each["num_threads"] for each in info if each["user_api"] == api]
    if not found:
        pytest.skip(f"no library of {api} here")
    return found


def test_only_the_thread_that_asks_leaves_the_cores():
    before = torch.get_num_threads()
    if before < 2:
        pytest.skip("one core")
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


def test_numpys_threads_come_back():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = threads_of("blas")
    with one_blas_thread():
        assert min(threads_of("blas")) == 1
    assert threads_of("blas") == before
