"""The file of a prism: safetensors, with the options and the origin as JSON in its metadata.

Layout, version 1. Tensors (float64 but for the histogram, int64) are the learned arrays of
:class:`~patchprism.prism.Prism`, without the trailing underscore. The metadata has one entry,
``patchprism``: a JSON object with ``version``, ``options``, ``learned`` (numbers and words) and ``origin``.
The same prism always gives the same bytes.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism import checks
from patchprism.errors import OptionError, PatchPrismError, PrismError
from patchprism.files import atomic_write
from patchprism.fitting import OTSU_BINS

if TYPE_CHECKING:
    from patchprism.prism import Prism

VERSION = 1

_SCALARS = ("threshold", "side", "n_photos", "n_patches", "n_foreground", "border_share")
# Axis names of each tensor; equal names must have equal lengths.
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


def save_prism(prism: Prism, path: str | os.PathLike[str]) -> None:
    """Write a prism; as :meth:`Prism.save <patchprism.prism.Prism.save>`."""
    path = checks.path("path", path)
    content = prism_bytes(prism)
    with atomic_write(path) as part:
        part.write_bytes(content)


def prism_bytes(prism: Prism) -> bytes:
    """The content of a prism's file.

    Raises
    ------
    PrismError
        If the prism is not fitted.
    """
    from safetensors.numpy import save

    from patchprism.prism import MASK_OPTIONS

    if not hasattr(prism, "object_range_"):
        raise PrismError("this prism is not fitted yet: there is nothing to save")
    learned = {name: getattr(prism, f"{name}_") for name in _SCALARS}
    if math.isnan(learned["threshold"]):
        learned["threshold"] = None  # JSON has no NaN
    header = {
        "version": VERSION,
        "options": {
            "threshold": prism.threshold,
            "foreground": prism.foreground,
            "scaling": prism.scaling,
            "components": list(prism.components),
            # Absent means rgb: files of the first version lack it, and stay the same bytes.
            **({"space": prism.space} if prism.space != "rgb" else {}),
            # Only where they are set: most prisms show what they were fitted on.
            **{
                name: getattr(prism, name)
                for name, unset in MASK_OPTIONS.items()
                if getattr(prism, name) != unset
            },
        },
        "learned": learned,
        "origin": prism.origin,
    }
    tensors = {name: np.ascontiguousarray(getattr(prism, f"{name}_")) for name in _TENSORS}
    # One metadata entry: safetensors keeps several in no fixed order.
    return save(tensors, {"patchprism": json.dumps(header, sort_keys=True)})


def load_prism(path: str | os.PathLike[str]) -> Prism:
    """Read a prism; as :meth:`Prism.load <patchprism.prism.Prism.load>`."""
    name = path = checks.path("path", path)
    try:
        if not Path(path).is_file():
            raise PrismError(f"{name}: no such prism file")
        header, tensors = _read(path)
    except PatchPrismError:
        raise
    except (
        Exception
    ) as error:  # safetensors raises its own, struct's and the system's; all mean one thing here
        raise PrismError(f"{name}: not a prism, or damaged ({error})") from error
    return _build(name, header, tensors)


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get("patchprism")
        if text is None:
            raise PrismError(f"{os.fspath(path)}: a safetensors file, but not a prism")
        header = json.loads(text)
        version = header["version"]
        if version != VERSION:
            raise PrismError(
                f"{os.fspath(path)}: prism of version {version}, this PatchPrism reads version {VERSION}: upgrade it"
            )
        missing = sorted(set(_TENSORS) - set(file.keys()))
        if missing:
            raise PrismError(f"{os.fspath(path)}: not a whole prism, it lacks {', '.join(missing)}")
        return header, {name: file.get_tensor(name) for name in _TENSORS}


def _build(name: str, header: dict[str, Any], tensors: dict[str, np.ndarray[Any, Any]]) -> Prism:
    from patchprism.prism import Prism

    lengths = {"2": 2, "3": 3, "b": OTSU_BINS}
    for key, axes in _TENSORS.items():
        array = tensors[key]
        dtype = np.int64 if key == "score_histogram" else np.float64
        expected = tuple(
            lengths.setdefault(axis, array.shape[i] if i < array.ndim else -1) for i, axis in enumerate(axes)
        )
        if array.shape != expected or array.dtype != dtype or not np.isfinite(array).all():
            raise PrismError(
                f"{name}: damaged prism, tensor {key} has shape {array.shape}, {array.dtype}, or NaN"
            )
    try:
        options, learned = header["options"], header["learned"]
        prism = Prism(**{**options, "components": tuple(options["components"])})
        prism.origin = dict(header["origin"])
        for key in _SCALARS:
            setattr(prism, f"{key}_", learned[key])
        prism.threshold_ = float("nan") if prism.threshold_ is None else float(prism.threshold_)
        for key, array in tensors.items():
            setattr(prism, f"{key}_", array)
        prism.check_options()
        prism.border_share_ = {side: float(prism.border_share_[side]) for side in ("above", "below")}
        for key in ("n_photos", "n_patches", "n_foreground"):
            setattr(prism, f"{key}_", int(learned[key]))
    except (KeyError, TypeError, ValueError, OptionError) as error:
        raise PrismError(f"{name}: damaged prism, its header does not fit ({error})") from error
    if prism.side_ not in ("above", "below", "none") or lengths["k"] < 3 or not lengths["D"]:
        raise PrismError(f"{name}: damaged prism, side {prism.side_!r}, {lengths['k']} components")
    if math.isnan(prism.threshold_) != (prism.side_ == "none"):
        raise PrismError(f"{name}: damaged prism, side {prism.side_!r} with threshold {prism.threshold_}")
    return prism
