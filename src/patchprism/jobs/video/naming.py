"""Names of numbered pictures: one counter such as ``%04d``; every other character is literal."""

from __future__ import annotations

import re
from dataclasses import dataclass

from patchprism.errors import OptionError

_MARK = re.compile(r"%%|%0?(\d*)d")
# A 64-bit number has no more digits.
_MAX_DIGITS = 19


@dataclass(frozen=True, kw_only=True)
class Counter:
    """A name with a number in it.

    Parameters
    ----------
    before, after : str
        The text before and after the number.
    digits : int
        Minimum number of digits, filled with zeros.
    """

    before: str
    after: str
    digits: int

    def name(self, number: int) -> str:
        """The name with this number.

        Examples
        --------
        >>> counter_in("50%_%04d.png", "out").name(7)
        '50%_0007.png'
        """
        return f"{self.before}{number:0{self.digits}d}{self.after}"

    def number(self, name: str) -> int | None:
        """The number in a name of this kind; None in any other name."""
        found = re.fullmatch(f"{re.escape(self.before)}([0-9]+){re.escape(self.after)}", name)
        return int(found[1]) if found and len(found[1]) <= _MAX_DIGITS else None


def counter_in(name: str, what: str) -> Counter | None:
    """The counter in a file name, if there is one; ``%%`` means ``%``, as in FFmpeg.

    Parameters
    ----------
    name : str
        The name without the folder.
    what : str
        Name of the pattern in errors.

    Raises
    ------
    OptionError
        If there are several counters, or one has more digits than any number.

    Examples
    --------
    >>> counter_in("100%%_%d.png", "out")
    Counter(before='100%_', after='.png', digits=1)
    >>> counter_in("50%_off.png", "out") is None
    True
    """
    marks = [found for found in _MARK.finditer(name) if found[0] != "%%"]
    if not marks:
        return None
    if len(marks) > 1:
        raise OptionError(
            f"{what} must contain exactly one counter such as %04d, got {len(marks)} in {name!r}"
        )
    digits = int(marks[0][1] or 1)
    if digits > _MAX_DIGITS:
        raise OptionError(f"{what} must contain a counter of at most {_MAX_DIGITS} digits, got {name!r}")
    before, after = name[: marks[0].start()], name[marks[0].end() :]
    return Counter(before=before.replace("%%", "%"), after=after.replace("%%", "%"), digits=digits)
