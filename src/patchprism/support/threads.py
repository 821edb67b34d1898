"""Limit the threads of torch and NumPy where more threads make the work slower."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cache
from typing import Any

# Rounds of spinning. libgomp's default is 300,000 if it has at most as many threads as there are cores (it does not
# count those of other processes), and 1,000 otherwise.
_SPINS = "3000"
_MANY_NUMBERS = 100_000_000


def spin_less() -> None:
    """Make OpenMP's threads sleep sooner while they wait for each other. Call it only in processes that we start.

    By default they spin for milliseconds, which keeps the cores from other threads and processes, including those
    that they wait for. Settings of the user are kept. Call this before torch is imported, because libgomp, which
    torch uses on Linux, reads the variable only once.

    Measured with efficientnet_lite2 at 448 on two cores: docs/scaling.md, "Two commands on one machine".
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def leave_the_cores() -> None:
    """From now on, torch's operators that the calling thread calls run only in that thread.

    This is for threads that run beside the network. OpenMP starts as many threads as there are cores for every
    thread that calls it, and these spin while they wait, which keeps the cores from the network.
    """
    import torch

    torch.get_num_threads()  # torch sets its own number at a thread's first call
    _controller("openmp").limit(limits=1)


def few_threads(numbers: int) -> Any:
    """A context manager in which torch's operators use one thread, for light work on many tensors.

    In a short loop, threads wait for each other longer than they work. Checking and packing the 85 tensors of a
    ViT-S/14 took 0.06 s of processor time with one thread, and 0.26 to 0.8 s with two.

    Parameters
    ----------
    numbers : int
        How many numbers the tensors contain; from 100 million on, all threads are used.
    """
    if numbers >= _MANY_NUMBERS:
        return nullcontext()
    import torch

    torch.get_num_threads()  # torch sets its own number at a thread's first call
    return _controller("openmp").limit(limits=1)


def one_blas_thread() -> Any:
    """A context manager in which NumPy's linear algebra uses one thread.

    This is for small products and for ``eigh``. On busy cores, OpenBLAS's threads spend many times longer spinning
    while they wait for each other than they spend working.
    """
    return _controller("blas").limit(limits=1)


def one_thread() -> Any:
    """A context manager in which NumPy and scikit-learn use one thread, for many short calls.

    Import what you use of scikit-learn before the first call, because that call searches for the loaded libraries.
    If torch is loaded, the search takes 3 ms, and ``threadpoolctl.threadpool_limits`` would repeat it each time.
    """
    return _controller(None).limit(limits=1)


@cache
def _controller(kind: str | None) -> Any:
    """The controller of the loaded libraries of a kind ("openmp" or "blas") or of all, created at the first call."""
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController()
    return found if kind is None else found.select(user_api=kind)
