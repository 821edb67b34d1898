"""Parameters of the library as flags of the commands: the one place that knows both names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchprism.errors import OptionError

# Where a command calls a parameter something else than the library does.
_CALLED = {"overlay_alpha": "overlay", "layers": "layer", "models": "model", "lens": "lenses"}


def named_by_flag(error: OptionError) -> str:
    """The message of an error, with the flag in the place of the parameter that it begins with."""
    message, option = str(error), error.option
    flag = flags().get(_CALLED.get(option, option))
    if not flag or not message.startswith(f"{option} "):
        return message
    return flag + message.removeprefix(option)


def flags() -> dict[str, str]:
    """The flag of every option of all commands, by its parameter; an option has one flag in all of them."""
    from typer.main import get_command

    from patchprism.cli.app import app

    commands = getattr(get_command(app), "commands", {}).values()
    return {
        parameter.name: max(parameter.opts, key=len)
        for command in commands
        for parameter in command.params
        if parameter.param_type_name == "option"
    }
