"""Threads of the libraries below: where more of them cost more than they bring."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import cache
from typing import Any

# Rounds. libgomp's own choice is 300,000 while it knows of no more threads than cores, of other processes it never
# knows; else 1,000.
_SPINS = "3000"
_MANY_NUMBERS = 100_000_000


def spin_less() -> None:
    """Let OpenMP's threads sleep sooner while they wait for each other; only for processes that we start.

    By default they spin for milliseconds, which takes the cores from other threads and processes, including those
    they wait for. Settings of the user are kept. Call this before torch is imported, because libgomp, which torch
    uses on Linux, reads the variable only once.

    Measured with efficientnet_lite2 at 448 on two cores: docs/scaling.md, "Two commands on one machine".
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def leave_the_cores() -> None:
    """From now on, torch's operators use only the calling thread, if they are called from it.

    For threads that work beside the network. OpenMP gives every thread that calls it threads of its own, as
    many as there are cores, and these wait by spinning: they take the cores from the network.
    """
    import torch

    torch.get_num_threads()  # torch sets its own number at a thread's first call
    _controller("openmp").limit(limits=1)


def few_threads(numbers: int) -> Any:
    """A context manager for light work on each of many tensors: torch's operators keep to one thread here.

    The threads of a short loop wait for each other longer than they work. Checking and packing the 85 tensors of a
    ViT-S/14 took 0.06 s of processor time with one thread; with two, from 0.26 to 0.8 s.

    Parameters
    ----------
    numbers : int
        How many numbers the tensors hold; from 100 million on, all threads are used.
    """
    if numbers >= _MANY_NUMBERS:
        return nullcontext()
    import torch

    torch.get_num_threads()  # torch sets its own number at a thread's first call
    return _controller("openmp").limit(limits=1)


def one_blas_thread() -> Any:
    """A context manager: NumPy's linear algebra keeps to one thread.

    For small products, and for ``eigh``: on busy cores OpenBLAS's threads wait for each other, spinning, many
    times as long as they work.
    """
    return _controller("blas").limit(limits=1)


def one_thread() -> Any:
    """A context manager: NumPy and scikit-learn keep to one thread, for many short calls.

    Import what you use of scikit-learn before the first call, which looks for the libraries that are loaded. The
    search takes 3 ms once torch is loaded, and ``threadpoolctl.threadpool_limits`` repeats it each time.
    """
    return _controller(None).limit(limits=1)


@cache
def _controller(kind: str | None) -> Any:
    """The controller of the libraries of a kind, or of all, made at the first call."""
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController()
    return found if kind is None else found.select(user_api=kind)
