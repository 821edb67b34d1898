"""The file of a prism: safetensors, with the options and the origin as JSON in its metadata.

Layout, version 3. The tensors (float64; the histogram is int64) are the learned arrays of :class:`~patchprism.Prism`,
without the trailing underscore. ``direction`` exists only if the foreground was found with a direction, and
``head_weights`` and ``head_bias`` only if a head found it. The metadata has one entry, ``patchprism``: a JSON object
with ``version``, ``options``, ``learned`` (numbers and words; the entry of a head is described in
:mod:`patchprism.prism.head_file`) and ``origin``. The same prism always gives the same bytes.

Version 1 had no direction, and its foreground ``"auto"`` is now called ``"pca"``. Version 2 had no head; a prism
without a head is still written as version 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError, PatchPrismError, PrismError
from patchprism.features.records import MAX_WIDTH, check_origin
from patchprism.photos.paths import PHOTO_SUFFIXES, VIDEO_SUFFIXES
from patchprism.prism.foreground import VERSION as LABELS_VERSION
from patchprism.prism.head import Head
from patchprism.prism.head_file import MAX_CLASSES, check_header
from patchprism.prism.options import DEFAULTS, KEPT_COMPONENTS, PrismOptions
from patchprism.prism.passes import OTSU_BINS
from patchprism.support import checks
from patchprism.support.folders import address_text, check_content, local_copy, system_reason
from patchprism.support.json_values import from_json, is_number, is_whole, to_json

if TYPE_CHECKING:
    import os

VERSION = 3

_SCALARS = ("threshold", "side", "n_photos", "n_patches", "n_foreground", "border_share")
# Values that exist only with a direction or a head.
_VOTES = ("n_voters", "agreement")
# Names of the axes of each tensor, one letter per axis; axes with the same name must have the same length.
_TENSORS = {
    "scene_mean": "D",
    "scene_components": "kD",
    "scene_variance": "k",
    "scene_ratio": "k",
    "score_range": "2",
    "object_mean": "D",
    "object_components": "kD",
    "object_variance": "k",
    "object_ratio": "k",
    "object_range": "2k",
    "all_range": "23",
    "score_histogram": "b",
}
_DIRECTION = {"direction": "D"}
_HEAD = {"head_weights": "cD", "head_bias": "c"}
LEARNED = (*_SCALARS, *_VOTES, *_TENSORS, *_DIRECTION, "head")
# Options that every file contains. The others are written only if they differ from their defaults. Files of version 1
# have no ``space``, which means rgb.
_ALWAYS = {"threshold", "foreground", "scaling", "components"}
MAX_HEADER = 1 << 20
# The numbers of a fit on valid tokens cannot exceed this limit, and its square is far from infinity.
MAX_VALUE = 1e60


@dataclass(frozen=True, eq=False)
class State:
    """The content of a prism's file. The keys of ``learned`` are the names in ``LEARNED``."""

    options: PrismOptions
    learned: dict[str, Any]
    origin: dict[str, Any]


def prism_bytes(state: State) -> bytes:
    """The content of a prism's file.

    Raises
    ------
    PrismError
        If its ``origin`` has values that could not be read again.
    """
    from safetensors.numpy import save

    direction, head = state.learned["direction"] is not None, state.learned["head"]
    learned = {name: state.learned[name] for name in _SCALARS}
    if math.isnan(learned["threshold"]):
        learned["threshold"] = None  # JSON has no NaN
    if direction:
        learned |= {name: state.learned[name] for name in _VOTES} | {"labels_version": LABELS_VERSION}
    if head is not None:
        learned |= {name: state.learned[name] for name in _VOTES} | {"head": head.header()}
        if math.isnan(learned["agreement"]):
            learned["agreement"] = None
    header = {
        "version": VERSION if head is not None else VERSION - 1,
        "options": {
            name: list(value) if name == "components" else value
            for name, value in state.options.get_params().items()
            if name in _ALWAYS or value != DEFAULTS[name]
        },
        "learned": learned,
        "origin": state.origin,
    }
    names = _TENSORS | _DIRECTION if direction else _TENSORS
    tensors = {name: state.learned[name] for name in names}
    if head is not None:
        tensors |= {"head_weights": head.weights_, "head_bias": head.bias_}
    try:
        text = to_json(header, sort_keys=True)
        check_origin(from_json(text)["origin"])
    except (TypeError, ValueError, RecursionError) as error:
        raise PrismError(f"this prism's origin cannot be saved: {error}") from error
    # Only one metadata entry, because safetensors writes several entries in no fixed order.
    return save({name: np.ascontiguousarray(each) for name, each in tensors.items()}, {"patchprism": text})


def read_prism(path: str | os.PathLike[str]) -> State:
    """The content of a prism's file; raises the errors of :meth:`Prism.load <patchprism.Prism.load>`."""
    name = address_text(checks.path("path", path))
    try:
        with local_copy(name) as copy:
            if not copy.is_file():
                raise PrismError(f"{name}: {_no_file(copy)}")
            check_content(copy)
            header, tensors = _read(copy, name)
    except FileNotFoundError as error:
        raise PrismError(f"{name}: no such prism file") from error
    except OSError as error:
        raise PrismError(f"{name}: cannot be read ({system_reason(error)})") from error
    except PatchPrismError:
        raise
    except Exception as error:
        # safetensors raises exceptions of several kinds, which all mean the same here
        advice = _advice(Path(name)) or f" ({error})"
        raise PrismError(f"{name}: not a prism, or damaged{advice}") from error
    return _checked(name, header, tensors)


def _no_file(path: Path) -> str:
    """Advice for a path without a file."""
    if (path / "prism.safetensors").is_file():
        return f"a folder; give the prism inside, {path / 'prism.safetensors'}"
    return "no such prism file, but a folder" if path.is_dir() else "no such prism file"


def _advice(path: Path) -> str:
    """Advice for a file that is not a prism, from its name."""
    suffix = path.suffix.lower()
    if suffix in (*PHOTO_SUFFIXES, *VIDEO_SUFFIXES):
        kind = "photo" if suffix in PHOTO_SUFFIXES else "clip"
        return f"; {kind}s are given without an option, and prism=FILE is a prism from `patchprism fit`"
    return "; give weights as weights=FILE" if suffix in (".pth", ".pt", ".ckpt") else ""


def _read(path: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get("patchprism")
        if text is None:
            raise PrismError(f"{name}: a safetensors file, but not a prism (give weights as weights=FILE)")
        if len(text) > MAX_HEADER:
            raise PrismError(f"{name}: damaged prism, its header has {len(text):,} characters")
        header = from_json(text)
        if not isinstance(header, dict):
            raise PrismError(f"{name}: damaged prism, its header is not a JSON object")
        version = header.get("version")
        if not is_whole(version, 1, VERSION):
            raise PrismError(
                f"{name}: prism of version {checks.short_repr(version)}, this PatchPrism reads up to "
                f"version {VERSION}: upgrade it"
            )
        there = set(file.keys())
        names = _TENSORS | _DIRECTION if version != 1 and "direction" in there else _TENSORS
        if version == VERSION and there & set(_HEAD):
            names = names | _HEAD
        missing = sorted(set(names) - there)
        if missing:
            raise PrismError(f"{name}: incomplete prism, it lacks {', '.join(missing)}")
        # The shapes are checked before any tensor is read, because a small file may declare large tensors.
        _check_shapes(name, {key: file.get_slice(key) for key in names})
        return header, {key: file.get_tensor(key) for key in names}


def _check_shapes(name: str, slices: dict[str, Any]) -> None:
    lengths = {"2": 2, "3": 3, "b": OTSU_BINS}
    for key, axes in (_TENSORS | _DIRECTION | _HEAD).items():
        if key not in slices:
            continue
        shape, dtype = tuple(slices[key].get_shape()), slices[key].get_dtype()
        expected = tuple(
            lengths.setdefault(axis, shape[i] if i < len(shape) else -1) for i, axis in enumerate(axes)
        )
        if shape != expected or dtype != ("I64" if key == "score_histogram" else "F64"):
            raise PrismError(f"{name}: damaged prism, tensor {key} has shape {shape} of {dtype}")
    if not 2 <= lengths.get("c", 2) <= MAX_CLASSES:
        raise PrismError(f"{name}: damaged prism, a head of {lengths['c']} classes")
    if not 3 <= lengths["k"] <= KEPT_COMPONENTS or not 1 <= lengths["D"] <= MAX_WIDTH:
        raise PrismError(f"{name}: damaged prism, {lengths['k']} components of width {lengths['D']}")


def _check_tensors(name: str, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    for key, array in tensors.items():
        least = 0 if key.endswith(("_variance", "_ratio", "histogram")) else -MAX_VALUE
        most = 1 + 1e-6 if key.endswith(("_ratio", "_components")) else MAX_VALUE
        # The comparison also fails for NaN.
        if not ((array >= max(least, -most)) & (array <= most)).all():
            raise PrismError(f"{name}: damaged prism, tensor {key} has values out of range, or NaN")
    for key in ("score_range", "object_range", "all_range"):
        low, high = tensors[key]
        if not np.all(low <= high):
            raise PrismError(f"{name}: damaged prism, tensor {key} ends before it starts")
    if any(int(count) > (1 << 53) for count in tensors["score_histogram"]):
        raise PrismError(f"{name}: damaged prism, tensor score_histogram counts too many patches")


def _checked(name: str, header: dict[str, Any], tensors: dict[str, np.ndarray[Any, Any]]) -> State:
    _check_tensors(name, tensors)
    try:
        options = _checked_options(header.get("options"))
        heads = {key: tensors.pop(key) for key in _HEAD if key in tensors}
        learned = _checked_learned(
            header.get("learned"), with_direction="direction" in tensors, with_head=bool(heads)
        )
        if heads:
            if len(learned["head"]["classes"]) != len(heads["head_bias"]):
                raise ValueError(f"{len(heads['head_bias'])} classes with other names")
            learned["head"] = Head.of(
                learned["head"] | {"origin": header.get("origin")}, heads["head_weights"], heads["head_bias"]
            )
        if header["version"] == 1 and options.foreground == "auto":
            options.foreground = "pca"
        if "direction" in tensors and not tensors["direction"].any():
            raise ValueError("a direction of zeros")
        check_origin(header.get("origin"))
        options.check_options()
        if max(abs(c) for c in options.components) > len(tensors["object_variance"]):
            raise ValueError(f"components {options.components}")
    except (ValueError, OptionError) as error:
        raise PrismError(f"{name}: damaged prism, its header does not fit ({error})") from error
    return State(options, {"direction": None, "head": None} | learned | tensors, header["origin"])


def _checked_options(options: Any) -> PrismOptions:
    """The options in a header; their values are checked later."""
    if not isinstance(options, dict):
        raise ValueError("it has no options")
    if not _ALWAYS <= set(options) <= set(DEFAULTS):
        raise ValueError(f"options {checks.short_repr(sorted(options))}")
    for key, value in options.items():
        several = isinstance(value, list) and key == "components"
        several = several and all(is_whole(each, -MAX_WIDTH, MAX_WIDTH) for each in value)
        if not (several or isinstance(value, str) or is_number(value)):
            raise ValueError(f"{key} {checks.short_repr(value)}")
    if not isinstance(options["components"], list):
        raise ValueError(f"components {checks.short_repr(options['components'])}")
    return PrismOptions(**options | {"components": tuple(options["components"])})


def _checked_learned(learned: Any, *, with_direction: bool, with_head: bool) -> dict[str, Any]:
    wanted = {*_SCALARS, *_VOTES, "labels_version"} if with_direction else set(_SCALARS)
    if with_head:
        wanted = wanted | {*_VOTES, "head"}
    if not isinstance(learned, dict) or set(learned) != wanted:
        found = set(learned) if isinstance(learned, dict) else set()
        raise ValueError(f"learned: {', '.join(sorted(wanted ^ found))[:200]}")
    side, threshold = learned["side"], learned["threshold"]
    shares = learned["border_share"]
    if side not in ("above", "below", "none"):
        raise ValueError(f"side {checks.short_repr(side)}")
    if (threshold is None) != (side == "none") or not (threshold is None or is_number(threshold, 0, 1)):
        raise ValueError(
            f"side {side!r} with threshold {'nan' if threshold is None else checks.short_repr(threshold)}"
        )
    if (
        not isinstance(shares, dict)
        or set(shares) != {"above", "below"}
        or not all(is_number(share, 0, 1) for share in shares.values())
    ):
        raise ValueError(f"border_share {checks.short_repr(shares)}")
    if with_direction and not (
        is_whole(learned["n_voters"], 1)
        and is_number(learned["agreement"], 0, 1)
        and is_whole(learned["labels_version"], 1)
        and side != "below"
    ):
        raise ValueError("a direction without votes")
    if with_head:
        if with_direction or side == "below":
            raise ValueError("a head beside a direction, or below its threshold")
        if learned["agreement"] is None:
            learned["agreement"] = math.nan
        elif not is_number(learned["agreement"], 0, 1):
            raise ValueError(f"agreement {checks.short_repr(learned['agreement'])}")
        if not is_whole(learned["n_voters"], 1):
            raise ValueError(f"n_voters {checks.short_repr(learned['n_voters'])}")
        check_header(learned["head"])
    votes = with_direction or with_head
    counts = learned["n_photos"], learned["n_foreground"], learned["n_patches"]
    if not all(is_whole(count, 1) for count in counts) or not counts[0] <= counts[2] >= counts[1]:
        raise ValueError(f"counts {checks.short_repr(counts)}")
    return {
        **{name: learned[name] for name in _SCALARS},
        "threshold": float("nan") if threshold is None else float(threshold),
        "border_share": {side: float(shares[side]) for side in ("above", "below")},
        "n_voters": learned["n_voters"] if votes else 0,
        "agreement": float(learned["agreement"]) if votes else float("nan"),
        "head": learned.get("head"),
    }
