"""Numbers in sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A count with its noun, in the singular or plural.

    Examples
    --------
    >>> counted(1, "photo"), counted(2000, "photo")
    ('1 photo', '2,000 photos')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def none_could(reason: str, count: int) -> str:
    """The reason of a failed photo, with the remark that all ``count`` photos failed.

    Examples
    --------
    >>> none_could("is empty", 1)
    'is empty (nothing was done)'
    >>> none_could("is empty", 2)
    'is empty (none of 2 photos could be read, nothing was done)'
    """
    return f"{reason} ({f'none of {count:,} photos could be read, ' if count > 1 else ''}nothing was done)"
