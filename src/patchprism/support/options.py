"""Options. Each is declared once, as a field of a dataclass, with its default, its check and its help text."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from patchprism.support import checks
from patchprism.support.checks import optional

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchprism.support.checks import Check

    Parse = Callable[[str, str], Any]

# The groups of ``--help-all``.
INPUT, MODEL, FIT, OUTPUT = "Input", "Model", "Foreground and colours", "Output"
LENSES, SCALE, FIGURES = "Lenses", "Many photos", "Figures"

_KEY = "option"


@dataclass(frozen=True, kw_only=True)
class Option:
    """Properties of an option besides its default.

    Attributes
    ----------
    check : callable
        ``check(name, value)`` returns the plain value, or raises an OptionError.
    help : str
        Text for ``--help``.
    metavar : str, optional
        Placeholder of the value in ``--help``.
    flag : str
        Flag on the command line; several are separated by spaces. By default the name with dashes.
    panel : str, optional
        The group of ``--help-all`` that it belongs to.
    parse : callable, optional
        ``parse(name, text)`` converts text from the command line to the value. By default the text is the value.
    """

    check: Check
    help: str = ""
    metavar: str | None = None
    flag: str = ""
    panel: str | None = None
    parse: Parse | None = None

    def flags(self, name: str) -> list[str]:
        """The command-line flags of an option of this name."""
        return self.flag.split() or [f"--{name.replace('_', '-')}"]


def option(
    default: Any = MISSING,
    *,
    check: Check,
    help: str = "",
    metavar: str | None = None,
    flag: str = "",
    panel: str | None = None,
    parse: Parse | None = None,
) -> Any:
    """A dataclass field for an option; the parameters are explained at :class:`Option`."""
    properties = Option(check=check, help=help, metavar=metavar, flag=flag, panel=panel, parse=parse)
    return field(default=default, metadata={_KEY: properties})


def option_of(each: Field[Any]) -> Option | None:
    """The properties of a field, if it is an option."""
    found: Option | None = each.metadata.get(_KEY)
    return found


def same(source: type, name: str, **changes: Any) -> Any:
    """A copy of a field of another class, with changes to its properties."""
    found = _field(source, name)
    return field(default=found.default, metadata={_KEY: replace(found.metadata[_KEY], **changes)})


def left_open(source: type, name: str, **changes: Any) -> Any:
    """A copy of a field whose default is None, for "not given"; its help names the default of the other class."""
    found = _field(source, name)
    properties, default = replace(found.metadata[_KEY], **changes), found.default
    if default not in (MISSING, None) and not isinstance(default, bool):
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        known = "" if "Default: " in properties.help else f" Default: {shown}."
        properties = replace(properties, help=properties.help + known)
    return field(default=None, metadata={_KEY: replace(properties, check=optional(properties.check))})


def _field(source: type, name: str) -> Field[Any]:
    return next(each for each in fields(source) if each.name == name)


def check_options(options: Any) -> None:
    """Check each option of a dataclass, frozen or not, and replace it with its plain value.

    Raises
    ------
    OptionError
        If a value is not allowed.
    """
    for each in fields(options):
        if found := option_of(each):
            object.__setattr__(options, each.name, found.check(each.name, getattr(options, each.name)))


class Checked:
    """Base class of dataclasses of options: the options are checked when an instance is created."""

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self)


def numbers(wanted: str, kind: type = float, *, count: int | None = None, repeat: bool = False) -> Parse:
    """A parser of comma-separated numbers.

    Parameters
    ----------
    wanted : str
        Description of the expected value, for errors.
    kind : type
        int or float.
    count : int, optional
        Required number of values; by default any.
    repeat : bool
        Whether a single number may stand for all.

    Examples
    --------
    >>> numbers("three numbers like 0.485,0.456,0.406", count=3, repeat=True)("std", "0.5")
    (0.5, 0.5, 0.5)
    """

    def parse(name: str, text: str) -> tuple[Any, ...]:
        try:
            found = tuple(kind(part) for part in text.split(","))
        except ValueError:
            checks.refuse(name, wanted, text)
        if count and repeat and len(found) == 1:
            found *= count
        if count and len(found) != count:
            checks.refuse(name, wanted, text)
        return found

    return parse


def number_or_word(kind: type) -> Parse:
    """A parser of a number; other text stays as it is, for the check."""

    def parse(name: str, text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            return text

    return parse
