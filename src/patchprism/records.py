"""JSON that others can read, and JSON that came from elsewhere: what is written is valid, what is read is checked."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from patchprism.backbones import BackboneRecord

# Deeper than anything that is written here; json itself would end in a RecursionError only when it writes it again.
MAX_DEPTH = 32
MAX_DIGITS = 100
MAX_TEXT = 4096
MAX_COUNT = 1 << 53
MAX_WIDTH = 1 << 16
MAX_LAYERS = 4096
MAX_PIXELS = 178_956_970  # of a photo; the bound of images.MAX_PIXELS
_DTYPES = ("float32", "bfloat16", "float16")
_FACETS = ("token", "query", "key", "value")


def to_json(value: Any, **options: Any) -> str:
    """JSON text of a value, always valid: NaN and infinities, which JSON lacks, become ``null``.

    Parameters
    ----------
    value : Any
        JSON values; NumPy numbers and arrays, tuples and paths are accepted as well.
    **options
        Of :func:`json.dumps`.

    Raises
    ------
    TypeError
        If it holds anything else.

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
    raise TypeError(f"{type(value).__name__} is no JSON value")


def from_json(text: str | bytes) -> Any:
    """The value of JSON text that came from elsewhere.

    Raises
    ------
    ValueError
        If it is not valid JSON, names a key twice, holds NaN or an infinity or a number of absurd length, or is
        nested too deep.

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


# ---------------------------------------------------------------- fields


def is_whole(value: Any, least: int = 0, most: int = MAX_COUNT) -> bool:
    """Whether a value is a whole number within bounds; True and False are none."""
    return type(value) is int and least <= value <= most


def is_number(value: Any, least: float = -math.inf, most: float = math.inf) -> bool:
    """Whether a value is a finite number within bounds; True and False are none."""
    return type(value) in (int, float) and math.isfinite(value) and least <= value <= most


def is_text(value: Any, most: int = MAX_TEXT) -> bool:
    """Whether a value is a string of bounded length."""
    return isinstance(value, str) and len(value) <= most


def check_origin(origin: Any) -> None:
    """Refuse the origin of features, as a prism or a feature store keeps it, where a field makes no sense.

    Every field may be absent, and fields that PatchPrism does not know may be there.

    Raises
    ------
    ValueError
        Naming the field and its value.
    """
    from patchprism.errors import OptionError
    from patchprism.extract import TOKEN_NORMS
    from patchprism.framing import PRESETS, Framing

    if not isinstance(origin, dict):
        raise ValueError(f"its origin is {_short(origin)}, not an object")

    def layers(value: Any) -> bool:
        several = value if isinstance(value, list) else [value]
        return 0 < len(several) <= MAX_LAYERS and all(is_whole(n, -MAX_LAYERS, MAX_LAYERS) for n in several)

    def sample(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and set(value) == {"photos", "of", "seed"}
            and is_whole(value["photos"], 1)
            and is_whole(value["of"], value["photos"])
            and type(value["seed"]) is int
        )

    allowed = {
        "model": is_text,
        "weights_source": is_text,
        "weights_sha256": is_text,
        "preset": lambda value: is_text(value) and value in PRESETS,
        "dtype": lambda value: is_text(value) and value in _DTYPES,
        "layer": layers,
        "facet": lambda value: is_text(value) and value in _FACETS,
        "final_norm": lambda value: isinstance(value, bool),
        "token_norm": lambda value: is_text(value) and value in TOKEN_NORMS,
        "framing": lambda value: isinstance(value, dict),
        "sample": sample,
    }
    for name, fits in allowed.items():
        if name in origin and not fits(origin[name]):
            raise ValueError(f"its origin says {name} {_short(origin[name])}")
    if "framing" in origin:
        given = origin["framing"]
        # A prism of somebody's own features may say a part of it.
        rest = {
            "patch_size": 1,
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "crop": "cover",
            "interpolation": "bicubic",
        }
        try:
            framing = Framing.from_dict({"size": given.get("patch_size", 1), **rest, **given})
        except (OptionError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"its framing is none ({error})") from error
        if max(framing.size, framing.patch_size) ** 2 > MAX_PIXELS:
            raise ValueError(f"its framing is none (size {_short(framing.size)})")


def check_model(record: Any) -> None:
    """Refuse the record of a model, as a feature store keeps it, where a field is missing or makes no sense.

    Raises
    ------
    ValueError
        Naming the field and its value.
    """
    from patchprism.backbones import BackboneRecord

    if not isinstance(record, dict):
        raise ValueError(f"model is {_short(record)}, not an object")

    def three(value: Any, least: float) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(is_number(n, least, 1e6) for n in value)

    allowed = {
        "patch_size": lambda value: is_whole(value, 1, 1 << 13),
        "width": lambda value: is_whole(value, 0, MAX_WIDTH),  # 0: a function's, before its first call
        "mean": lambda value: three(value, -1e6),
        "std": lambda value: three(value, 1e-9),
    }
    for field in fields(BackboneRecord):
        name = field.name
        if name not in record:
            raise ValueError(f"its model record lacks {name!r}")
        usual = is_text if field.type == "str" else is_whole
        if not allowed.get(name, usual)(record[name]):
            raise ValueError(f"its model record makes no sense: {name} {_short(record[name])}")


def record_from(record: Any) -> BackboneRecord:
    """A model's record as :func:`check_model` passes it; raises as that does."""
    from patchprism.backbones import BackboneRecord

    check_model(record)
    values: dict[str, Any] = {field.name: record[field.name] for field in fields(BackboneRecord)}
    return BackboneRecord(**values | {name: tuple(values[name]) for name in ("mean", "std")})


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
