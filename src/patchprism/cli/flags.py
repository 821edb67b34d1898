"""Replace names of the library's parameters in error messages with the flags of the commands."""

from __future__ import annotations

import re
from functools import cache

from patchprism.cli.console import as_typed
from patchprism.errors import OptionError, PatchPrismError, PrismError

# Parameters of the library whose option has another name.
_CALLED = {"layers": "layer", "models": "model", "lens": "lenses"}
# Quoted text is matched so that it is skipped, because it is a value, except in ``name='value'``.
_MENTIONED = re.compile(
    r"""(?<![\w/.?&=\\-])(?P<name>[a-z]+(?:_[a-z]+)*)=(?P<value>True\b|False\b|'[^']*'|\([^()]*\)|[\w.:-]+(?:,[\w.:-]+)*)"""
    r"""|(?<!\w)'[^']*'(?!\w)|"[^"]*"|(?<![\w/.?&=\\-])(?P<alone>[a-z]+(?:_[a-z]+)+)(?![\w/.=\\-])"""
)


def named_by_flags(error: PatchPrismError) -> str:
    """The message of an error with flags instead of parameters.

    A parameter is recognised by its position: at the beginning of an :class:`~patchprism.errors.OptionError`, as
    ``name='value'`` in any error, or by the underscore in it in errors about options and prisms.

    Examples
    --------
    >>> from patchprism.errors import OptionError
    >>> named_by_flags(OptionError("mask_threshold needs a mask_side with foreground='none'"))
    '--mask-threshold needs a --mask-side with --foreground none'
    """
    found = flags()
    of_option = isinstance(error, OptionError)
    words_alone = isinstance(error, OptionError | PrismError)

    def named(match: re.Match[str]) -> str:
        name, value = match["name"] or match["alone"], match["value"]
        # In other errors, a word without a value may be the name of a file.
        flag = found.get(_CALLED.get(name, name)) if name and (value or words_alone) else None
        if flag is None:
            return match[0]
        if value in ("True", "False"):
            return flag if value == "True" else flag.replace("--", "--no-", 1)
        return f"{flag} {as_typed(value)}" if value else flag

    message = str(error)
    first = re.match(r"[a-z]+(?=[ :])", message) if of_option else None
    if first:
        return found.get(_CALLED.get(first[0], first[0]), first[0]) + _MENTIONED.sub(
            named, message[first.end() :]
        )
    return _MENTIONED.sub(named, message)


@cache
def flags() -> dict[str, str]:
    """The flag of each option of all commands, by parameter. An option has the same flag in all commands."""
    from typer.main import get_command

    from patchprism.cli.app import app

    commands = getattr(get_command(app), "commands", {}).values()
    return {
        parameter.name: max(parameter.opts, key=len)
        for command in commands
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden
    }
