"""Errors about files that options gave name the options: ``--prism 'dogs.prism': the file is empty``."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from typer.models import OptionInfo

from patchprism.errors import OutputError, PatchPrismError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from inspect import Parameter

# Options whose files or folders a command writes.
_WRITTEN = ("--out", "--flat", "--json", "--html", "--save-prism")
# Placeholders of options that take a path.
_PATH = re.compile(r"\b(?:FILE|DIR|STORE|OUT)\b")


@contextmanager
def naming_options(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> Iterator[None]:
    """Have errors in the block that begin with the path of an option name the option.

    Parameters
    ----------
    parameters : sequence of Parameter
        A command's parameters, annotated for Typer.
    given : mapping of str to value
        Their values.
    """
    try:
        yield
    except PatchPrismError as error:
        for flag, path in _paths(parameters, given):
            if flag in _WRITTEN or not isinstance(error, OutputError):
                error.name_option(flag, path)
        raise
    except OSError as error:  # a name that is too long, for example
        from patchprism.support.folders import system_reason  # not needed to start a command

        for flag, path in _paths(parameters, given):
            if error.filename is not None and os.fsdecode(error.filename) == path:
                raise PatchPrismError(f"{flag} {path!r}: {system_reason(error)}") from error
        raise


def _paths(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The paths that were given, with the flags of their options."""
    for each in parameters:
        info = each.annotation.__metadata__[0]
        # --model takes hf:FOLDER.
        takes_path = each.name == "model" or _PATH.search(info.metavar or "")
        if isinstance(info, OptionInfo) and takes_path:
            value = given.get(each.name) or ()
            for path in [value] if isinstance(value, str) else value:
                # The first name of an annotated option is where Typer keeps the default of others.
                names = (str(info.default), *(info.param_decls or ()))
                yield max(names, key=len), path
