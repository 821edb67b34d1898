"""Write JSON that is always valid, and check JSON that comes from other programs."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

# Our own files are less deeply nested. Python reads much deeper JSON, and then cannot write it (RecursionError).
MAX_DEPTH = 32
MAX_DIGITS = 100
MAX_TEXT = 4096
MAX_COUNT = 1 << 53


def to_json(value: Any, **options: Any) -> str:
    """JSON text of a value, always valid: NaN and infinities, which JSON lacks, become ``null``.

    Parameters
    ----------
    value : Any
        JSON values; NumPy numbers and arrays, tuples and paths are accepted as well.
    **options
        Passed to :func:`json.dumps`.

    Raises
    ------
    TypeError
        If the value contains anything else.

    Examples
    --------
    >>> to_json({"a": float("inf"), "b": np.float32(0.5), "c": (1, 2)})
    '{"a": null, "b": 0.5, "c": [1, 2]}'
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, dict):
        return {_finite(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return _finite(value.tolist())
    if hasattr(value, "__fspath__"):
        return str(value.__fspath__())
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def from_json(text: str | bytes) -> Any:
    """The value of JSON text that another program may have written.

    Raises
    ------
    ValueError
        If it is not valid JSON, has a key twice, contains NaN, an infinity or a number of more than 100 digits, or
        is nested too deeply.

    Examples
    --------
    >>> from_json('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    ValueError: the key 'a' appears twice
    """
    try:
        value = json.loads(
            text,
            parse_constant=_no_constant,
            parse_int=_whole,
            parse_float=_number,
            object_pairs_hook=_distinct,
        )
    except RecursionError:
        raise ValueError("nested too deep") from None
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError("nested too deep")
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:40]!r} appears twice")
    return found


def is_whole(value: Any, least: int = 0, most: int = MAX_COUNT) -> bool:
    """Whether a value is a whole number within bounds; True and False do not count as numbers."""
    return type(value) is int and least <= value <= most


def is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether a value is a finite number within bounds; True and False do not count as numbers."""
    return type(value) in (int, float) and math.isfinite(value) and least <= value <= most


def is_text(value: Any, most: int = MAX_TEXT) -> bool:
    """Whether a value is a string of bounded length."""
    return isinstance(value, str) and len(value) <= most
