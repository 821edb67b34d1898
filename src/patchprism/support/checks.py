"""Checks of the values of options. Every option has one of these checks.

A check accepts the numbers, dtypes and devices of NumPy and torch, and returns plain Python values, which can be
written to reports and files. If a value is not allowed, it raises an :class:`~patchprism.errors.OptionError` that
names the parameter, the value and what is allowed. Importing this module loads nothing heavy.
"""

from __future__ import annotations

import math
import numbers
import os
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from patchprism.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Check = Callable[[str, Any], Any]

# The largest count that all libraries that we use accept.
MAX_COUNT = 2**31 - 1
# scikit-learn's largest seed minus one, because a second run adds 1 to the seed.
MAX_SEED = 2**32 - 2
# The limit of Linux in bytes; the limit of macOS is 1024.
MAX_PATH = 4096
# The smallest normal float32: pixels are divided by standard deviations in float32.
MIN_POSITIVE = 2.0**-126
DEVICES = ("auto", "cpu", "cuda", "mps")
# Number formats that a network computes in.
DTYPES = ("auto", "float32", "bfloat16", "float16")
_SHOWN = 100


def short_repr(value: object) -> str:
    """A value as an error message shows it: its ``repr`` on one line, shortened.

    Examples
    --------
    >>> short_repr("a\\nb"), short_repr(10**5000), len(short_repr("x" * 1000))
    ("'a\\\\nb'", 'int', 100)
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number with too many digits, or any object whose ``repr`` fails
        return type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}...{text[-1]}"


def refuse(name: str, wanted: str, value: object) -> NoReturn:
    """Raise the OptionError that says what a parameter must be."""
    _refuse(name, wanted, value, "")


def _refuse(name: str, wanted: str, value: object, meant: str) -> NoReturn:
    hint = f"; did you mean {meant}?" if meant else ""
    raise OptionError(f"{name} must be {wanted}, got {short_repr(value)}{hint}", option=name)


def optional(check: Check) -> Check:
    """A check that also accepts None."""
    return partial(_unless_none, check)


def _unless_none(check: Check, name: str, value: Any) -> Any:
    return None if value is None else check(name, value)


def number(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, words: tuple[str, ...] = ()
) -> Any:
    """A finite number from ``low`` to ``high``, as a float, or one of ``words``."""
    given = _plain(value)
    if isinstance(given, str) and given in words:
        return str.__str__(given)
    if isinstance(given, (numbers.Real, Decimal)) and not isinstance(given, bool):
        try:
            found = float(given)
        except (OverflowError, ValueError):  # too large; a signalling NaN
            found = math.nan
        if math.isfinite(found) and low <= found <= high:
            return found
    percent = (low, high) == (0, 1) and isinstance(given, (int, float)) and 5 <= given <= 100
    _refuse(
        name, f"{_or(words)}a number{_range(low, high, given)}", value, f"{given / 100:g}" if percent else ""
    )


def integer(
    name: str, value: Any, *, low: float = -math.inf, high: float = math.inf, words: tuple[str, ...] = ()
) -> Any:
    """A whole number from ``low`` to ``high``, as an int, or one of ``words``."""
    given = _plain(value)
    if isinstance(given, str) and given in words:
        return str.__str__(given)
    if isinstance(given, numbers.Integral) and not isinstance(given, bool) and low <= given <= high:  # type: ignore[operator]
        return int(given)
    refuse(name, f"{_or(words)}a whole number{_range(low, high, given)}", value)


def layers(name: str, value: Any, *, low: float = -math.inf, high: float = math.inf) -> Any:
    """One layer as a whole number, or several as a tuple."""
    given = _plain(value)
    if isinstance(given, numbers.Integral):
        return integer(name, given, low=low, high=high)
    found = [integer(name, each, low=low, high=high) for each in _listed(name, value, "whole numbers")]
    if not found:
        raise OptionError(f"{name} must name at least one layer, got none", option=name)
    return tuple(found) if len(found) > 1 else found[0]


def three_numbers(
    name: str, value: Any, *, positive: bool = False, most: float = math.inf
) -> tuple[float, float, float]:
    """Three finite numbers between ``-most`` and ``most``, as floats."""
    words = f"three {'positive ' if positive else ''}numbers"
    found = _listed(name, value, words)
    try:
        red, green, blue = (number(name, each, low=-most, high=most) for each in found)
    except ValueError:  # this includes OptionError
        refuse(name, words, value)
    if positive and min(red, green, blue) < MIN_POSITIVE:
        refuse(name, words, value)
    return red, green, blue


def two_ends(name: str, value: Any) -> tuple[float, float]:
    """Two finite numbers, the lower one first, as floats."""
    words = "two numbers, black and white, the lower one first"
    found = _listed(name, value, words)
    try:
        low, high = (number(name, each) for each in found)
    except ValueError:
        refuse(name, words, value)
    if not low < high or math.isinf(high - low):
        refuse(name, words, value)
    return low, high


def three_components(name: str, value: Any, *, most: int) -> tuple[int, int, int]:
    """Three component numbers from 1 to ``most``; a negative number inverts the component."""
    words = f"three whole numbers from 1 to {most} (negative: inverted)"
    found = _listed(name, value, words)
    try:
        red, green, blue = (integer(name, each, low=-most, high=most) for each in found)
    except ValueError:
        refuse(name, words, value)
    if not red or not green or not blue:
        refuse(name, words, value)
    return red, green, blue


def seed(name: str, value: Any) -> int:
    """A random seed."""
    return int(integer(name, value, low=0, high=MAX_SEED))


def flag(name: str, value: Any) -> bool:
    """True or False."""
    given = _plain(value)
    if not isinstance(given, bool):
        refuse(name, "True or False", value)
    return given


def choice(name: str, value: Any, *, allowed: Sequence[str]) -> str:
    """One of several words."""
    given = _plain(value)
    if not isinstance(given, str) or given not in allowed:
        refuse(name, f"one of {', '.join(allowed)}", value)
    return str.__str__(given)


def text(name: str, value: Any) -> str:
    """A non-empty text."""
    given = _plain(value)
    if not isinstance(given, str) or not given:
        refuse(name, "a text that is not empty", value)
    return str.__str__(given)


def texts(name: str, value: Any) -> tuple[str, ...]:
    """A sequence of texts, or a single text."""
    if isinstance(value, str):
        return (text(name, value),)
    return tuple(text(name, each) for each in _listed(name, value, "texts"))


def path(name: str, value: Any) -> str:
    """A path or an address as text; path objects, also those whose path is bytes, are accepted."""
    given = value if isinstance(value, (str, os.PathLike)) else _plain(value)
    if not isinstance(given, (str, os.PathLike)):
        refuse(name, "a path", value)
    found = os.fsdecode(given)
    try:
        length = len(os.fsencode(found))
    except UnicodeEncodeError:  # half of a surrogate pair, which no file name can contain
        length = 0
    if "\0" in found or not 0 < length <= MAX_PATH:
        refuse(name, f"a path of 1 to {MAX_PATH} bytes without NUL", value)
    return str.__str__(found)


def callback(name: str, value: Any) -> None:
    """Refuse a value that is neither None nor callable."""
    if value is not None and not callable(value):
        refuse(name, "callable", value)


def device(name: str, value: Any) -> str:
    """The name of a device; torch's device objects are accepted. The machine need not have the device."""
    given = str(value) if _is_torch(value, "device") else _plain(value)
    if not isinstance(given, str):
        refuse(name, "the name of a device, like cpu or cuda:1", value)
    if given.split(":")[0] not in DEVICES:
        refuse(name, f"one of {', '.join(DEVICES)}", value)
    return str.__str__(given)


def dtype(name: str, value: Any, *, allowed: Sequence[str]) -> str:
    """The name of a dtype; dtype objects of torch and NumPy are accepted."""
    given = str(value).removeprefix("torch.") if _is_torch(value, "dtype") else _plain(value)
    if not isinstance(given, str):
        # np.dtype("float32") has a name, np.float32 a __name__
        given = getattr(given, "name", None) or getattr(given, "__name__", None)
    if not isinstance(given, str) or given not in allowed:
        refuse(name, f"one of {', '.join(allowed)}", value)
    return str.__str__(given)


def _plain(value: Any) -> Any:
    """The Python value of a NumPy or torch scalar or 0-d array; anything else unchanged."""
    if not isinstance(value, (str, bytes)) and getattr(value, "ndim", None) == 0:
        try:
            return value.item()
        except Exception:  # a tensor on the meta device, or a type that has no Python value
            return value
    return value


def _is_torch(value: Any, kind: str) -> bool:
    # Checked by name, so that torch need not be imported.
    return type(value).__module__ == "torch" and type(value).__name__ == kind


def _listed(name: str, value: Any, words: str) -> list[Any]:
    """The members of a sequence, array or iterator; texts, sets and mappings are refused."""
    if isinstance(value, (str, bytes, set, frozenset, dict)):
        refuse(name, words, value)
    try:
        members: Iterable[Any] = iter(value)
        return [each for each, _ in zip(members, range(1000), strict=False)]  # some iterators never end
    except Exception:
        refuse(name, words, value)


def _or(words: tuple[str, ...]) -> str:
    return f"{', '.join(map(repr, words))} or " if words else ""


def _range(low: float, high: float, given: Any) -> str:
    if math.isinf(low) and math.isinf(high):
        return ""
    # The upper limit is mentioned only if the value exceeds it.
    near = high < MAX_COUNT or (isinstance(given, (int, float)) and given > high)
    if math.isinf(high) or not near:
        return f" of at least {low}"
    return f" from {low} to {high}"
