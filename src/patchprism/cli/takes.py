"""Pass dataclasses of options to commands: their fields become flags of the command."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchprism.cli.naming import naming_options
from patchprism.support.options import Option, option_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_KINDS: dict[Any, type] = {"str": str, "int": int, "float": float, "bool": bool, "tuple[str, ...]": list[str]}


@dataclass(frozen=True)
class Some:
    """Some options of a dataclass; the others keep their defaults."""

    options: type
    names: frozenset[str]


def only(options: type, *names: str) -> Some:
    """Only these options of a dataclass."""
    return Some(options, frozenset(names))


def without(options: type, *names: str) -> Some:
    """All options of a dataclass except these."""
    return Some(options, frozenset(each.name for each in fields(options)) - set(names))


def takes(**groups: type | Some) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command that has dataclasses of options as parameters. It receives them with checked values.

    Parameters
    ----------
    **groups
        For each such parameter of the command, the dataclass, or some of its options (:func:`only`,
        :func:`without`). The flags come after the command's own parameters, in this order, and the dataclasses are
        created in this order.

    Examples
    --------
    >>> from patchprism.support import checks
    >>> from patchprism.support.options import Checked, option
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Speed(Checked):
    ...     batch_size: int = option(8, check=checks.integer, help="Maximum batch size.")
    >>> @takes(speed=Speed)
    ... def command(photo: str, speed: Speed) -> None:
    ...     print(photo, speed)
    >>> command("a.png", batch_size=3)
    a.png Speed(batch_size=3)
    """
    parts = {name: each if isinstance(each, Some) else without(each) for name, each in groups.items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            each for each in signature(command, eval_str=True).parameters.values() if each.name not in parts
        ]

        def run(*arguments: Any, **given: Any) -> None:
            made = {name: _made(part, given) for name, part in parts.items()}
            its_own = {each.name: given[each.name] for each in own if each.name in given}
            with naming_options([*own, *flags], given):
                command(*arguments, **its_own, **made)

        run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
        flags = [_flag(each, found) for part in parts.values() for each, found in _options(part)]
        # Typer reads the parameters of a command from its signature.
        run.__signature__ = signature(command).replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def _options(part: Some) -> Iterable[tuple[Field[Any], Option]]:
    for each in fields(part.options):
        found = option_of(each)
        if found is not None and each.name in part.names:
            yield each, found


def _made(part: Some, given: dict[str, Any]) -> Any:
    """The dataclass with the given values; other options keep their defaults."""
    values = {}
    for each, found in _options(part):
        value = given.get(each.name)
        if value is not None:
            values[each.name] = found.parse(each.name, value) if found.parse else value
    return part.options(**values)


def _flag(each: Field[Any], found: Option) -> Parameter:
    """The parameter of an option in the signature of a command."""
    # With a parser of our own, Typer passes the text.
    kind: Any = str if found.parse else _KINDS[str(each.type).removesuffix(" | None")]
    default = None if kind == list[str] else each.default
    info = typer.Option(
        *found.flags(each.name), metavar=found.metavar, help=found.help, rich_help_panel=found.panel
    )
    wanted: Any = kind | None if default is None else kind
    annotation: Any = Annotated[wanted, info]
    return Parameter(each.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
