"""Commands that take dataclasses of options: their fields become the command's flags."""

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
    """Some of a dataclass's options; the others keep their defaults."""

    options: type
    names: frozenset[str]


def only(options: type, *names: str) -> Some:
    """A dataclass of which a command takes only these options."""
    return Some(options, frozenset(names))


def without(options: type, *names: str) -> Some:
    """A dataclass of which a command takes all options but these."""
    return Some(options, frozenset(each.name for each in fields(options)) - set(names))


def takes(**groups: type | Some) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Have a command take the options of dataclasses, ready and checked.

    Parameters
    ----------
    **groups
        For parameters of the command: the dataclass, or some of its options (:func:`only`, :func:`without`). The
        flags come in this order, after the command's own, and the dataclasses are put together in this order.

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
        flags = [
            flag for part in parts.values() for each, said in _options(part) for flag in _flags(each, said)
        ]
        # Typer reads what a command takes from its signature.
        run.__signature__ = signature(command).replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def _options(part: Some) -> Iterable[tuple[Field[Any], Option]]:
    for each in fields(part.options):
        said = option_of(each)
        if said is not None and each.name in part.names:
            yield each, said


def _made(part: Some, given: dict[str, Any]) -> Any:
    """The dataclass, of what was given."""
    values = {}
    for each, said in _options(part):
        value = given.get(each.name)
        if value is not None:
            values[each.name] = said.parse(each.name, value) if said.parse else value
    return part.options(**values)


def _kind(each: Field[Any], said: Option) -> Any:
    """Typer's parser for the texts of an option."""
    return str if said.parse else _KINDS[str(each.type).removesuffix(" | None")]


def _flags(each: Field[Any], said: Option) -> Iterable[Parameter]:
    """The parameter of an option, and that of its old spelling."""
    kind = _kind(each, said)
    default = None if kind == list[str] else each.default
    yield _parameter(
        each.name,
        kind,
        default,
        typer.Option(
            *said.flags(each.name),
            metavar=said.metavar,
            help=said.help,
            rich_help_panel=said.panel,
        ),
    )


def _parameter(name: str, kind: Any, default: Any, info: Any) -> Parameter:
    wanted: Any = kind | None if default is None else kind
    annotation: Any = Annotated[wanted, info]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
