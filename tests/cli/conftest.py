"""Run the command line in this process, so that torch is imported only once."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Result:
    """The result of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs ``patchprism ARGS`` like a shell and returns its :class:`Result`."""
    from patchprism.cli import main

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["patchprism", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call
