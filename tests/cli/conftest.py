"""Running the command line in this process: torch is imported once, not once a test."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that runs ``patchprism ARGS`` as a shell would and gives its :class:`Result`."""
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
