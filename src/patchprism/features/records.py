"""Check the origin of features and the record of a model that were read from a file."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from patchprism.photos.plans import MAX_PIXELS
from patchprism.support.checks import short_repr
from patchprism.support.json_values import is_number, is_text, is_whole

if TYPE_CHECKING:
    from patchprism.backbones import BackboneRecord

MAX_WIDTH = 1 << 16
MAX_LAYERS = 4096
_DTYPES = ("float32", "bfloat16", "float16")
# Fields of a model's record that stores of earlier versions do not have.
_LATER = ("open_repo", "layer", "about")
_FACETS = ("token", "query", "key", "value")


def check_origin(origin: Any) -> None:
    """Refuse the origin of features in a prism or a feature store if a field is invalid.

    Fields may be missing, and unknown fields are allowed.

    Raises
    ------
    ValueError
        If a field is invalid; the message names the field and its value.
    """
    from patchprism.errors import OptionError
    from patchprism.features.options import REFINES, TOKEN_NORMS
    from patchprism.photos.framing import PRESETS, Framing

    if not isinstance(origin, dict):
        raise ValueError(f"its origin is {short_repr(origin)}, not an object")

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
        "tile": lambda value: is_whole(value, 1, MAX_PIXELS),
        "refine": lambda value: is_whole(value) and value in REFINES,
        "framing": lambda value: isinstance(value, dict),
        "sample": sample,
    }
    for name, fits in allowed.items():
        if name in origin and not fits(origin[name]):
            raise ValueError(f"its origin says {name} {short_repr(origin[name])}")
    if "framing" in origin:
        given = origin["framing"]
        # A prism of the user's own features may have only some of the keys.
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
            raise ValueError(f"its framing is not valid ({error})") from error
        if max(framing.size, framing.patch_size) ** 2 > MAX_PIXELS:
            raise ValueError(f"its framing is not valid (size {short_repr(framing.size)})")


def check_model(record: Any) -> None:
    """Refuse the record of a model in a feature store if a field is missing or invalid.

    Raises
    ------
    ValueError
        If a field is missing or invalid; the message names the field.
    """
    from patchprism.backbones import BackboneRecord

    if not isinstance(record, dict):
        raise ValueError(f"model is {short_repr(record)}, not an object")

    def three(value: Any, least: float) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(is_number(n, least, 1e6) for n in value)

    allowed = {
        "patch_size": lambda value: is_whole(value, 1, 1 << 13),
        "width": lambda value: is_whole(value, 0, MAX_WIDTH),  # 0: a user's function that was not yet called
        "mean": lambda value: three(value, -1e6),
        "std": lambda value: three(value, 1e-9),
        "layer": lambda value: is_whole(value, -MAX_LAYERS, MAX_LAYERS),
    }
    for field in fields(BackboneRecord):
        name = field.name
        if name not in record:
            if name in _LATER:
                continue
            raise ValueError(f"its model record lacks {name!r}")
        usual = is_text if field.type == "str" else is_whole
        if not allowed.get(name, usual)(record[name]):
            raise ValueError(f"its model record is not valid: {name} {short_repr(record[name])}")


def record_from(record: Any) -> BackboneRecord:
    """The record of a model, after :func:`check_model`, whose errors it raises."""
    from patchprism.backbones import BackboneRecord

    check_model(record)
    values: dict[str, Any] = {
        field.name: record[field.name] for field in fields(BackboneRecord) if field.name in record
    }
    return BackboneRecord(**values | {name: tuple(values[name]) for name in ("mean", "std")})
