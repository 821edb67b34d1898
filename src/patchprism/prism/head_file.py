"""The file of a head: safetensors, with its classes and origin as JSON in the metadata.

Layout, version 1. Tensors, both float64: ``weights`` (K, D) and ``bias`` (K,). The metadata has one entry,
``patchprism_head``: a JSON object with ``version``, ``classes`` (K names, the background first), ``C``, ``n_photos``,
``n_patches`` (one number per class) and ``origin`` (what the tokens depend on, as in a prism's file). The same head
always gives the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import HeadError, OptionError, PatchPrismError
from patchprism.features.records import MAX_WIDTH, check_origin
from patchprism.support import checks
from patchprism.support.folders import address_text, check_content, local_copy, system_reason
from patchprism.support.json_values import from_json, is_number, is_text, is_whole, to_json

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

VERSION = 1
ENTRY = "patchprism_head"
# Class numbers are stored in 8 bits, in which 255 means unlabelled.
MAX_CLASSES = 255
MAX_NAME = 100
MAX_HEADER = 1 << 20
MAX_VALUE = 1e12


def head_bytes(header: dict[str, Any], weights: Float64, bias: Float64) -> bytes:
    """The content of a head's file.

    Raises
    ------
    HeadError
        If its ``origin`` has values that could not be read again.
    """
    from safetensors.numpy import save

    try:
        text = to_json({"version": VERSION, **header}, sort_keys=True)
        check_origin(from_json(text)["origin"])
    except (TypeError, ValueError, RecursionError) as error:
        raise HeadError(f"this head's origin cannot be saved: {error}") from error
    tensors = {"weights": np.ascontiguousarray(weights), "bias": np.ascontiguousarray(bias)}
    return save(tensors, {ENTRY: text})


def read_head(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Float64, Float64]:
    """Header, weights and intercepts of a head's file; errors as for :meth:`Head.load <patchprism.Head.load>`."""
    name = address_text(checks.path("path", path))
    try:
        with local_copy(name) as copy:
            if not copy.is_file():
                raise HeadError(f"{name}: no such head file{', but a folder' if copy.is_dir() else ''}")
            check_content(copy)
            return _read(copy, name)
    except FileNotFoundError as error:
        raise HeadError(f"{name}: no such head file") from error
    except OSError as error:
        raise HeadError(f"{name}: cannot be read ({system_reason(error)})") from error
    except PatchPrismError:
        raise
    except Exception as error:
        # safetensors raises exceptions of several kinds, which all mean the same here
        raise HeadError(f"{name}: not a head, or damaged ({error})") from error


def default_names(count: int) -> tuple[str, ...]:
    """Default names of ``count`` classes, the background first."""
    if count == 2:
        return ("background", "object")
    return ("background", *(f"class {number}" for number in range(1, count)))


def class_names(value: Any, name: str = "classes") -> tuple[str, ...]:
    """Check names of classes, the background first.

    Raises
    ------
    OptionError
        If there are fewer than two or more than 255, or if names are equal, empty, too long, or not printable.
    """
    names = tuple(checks.texts(name, value))
    if not 2 <= len(names) <= MAX_CLASSES:
        raise OptionError(
            f"{name} must be 2 to {MAX_CLASSES} names, the background first, got {len(names)}", option=name
        )
    for each in names:
        if not each.strip() or len(each) > MAX_NAME or not each.isprintable():
            checks.refuse(name, f"printable names of up to {MAX_NAME} characters", each)
    if len(set(names)) < len(names):
        raise OptionError(f"{name} must differ, got {checks.short_repr(names)}", option=name)
    return names


def _read(path: Path, name: str) -> tuple[dict[str, Any], Float64, Float64]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get(ENTRY)
        if text is None:
            raise HeadError(f"{name}: a safetensors file, but not a head, which `patchprism teach` writes")
        if len(text) > MAX_HEADER:
            raise HeadError(f"{name}: damaged head, its header has {len(text):,} characters")
        header = from_json(text)
        if not isinstance(header, dict):
            raise HeadError(f"{name}: damaged head, its header is not a JSON object")
        version = header.get("version")
        if not is_whole(version, 1, VERSION):
            raise HeadError(
                f"{name}: head of version {checks.short_repr(version)}, this PatchPrism reads up to version {VERSION}: "
                "upgrade it"
            )
        try:
            check_header(header)
            check_origin(header.get("origin"))
        except (ValueError, OptionError) as error:
            raise HeadError(f"{name}: damaged head, its header does not fit ({error})") from error
        # The shapes are checked before any tensor is read, because a small file may declare large tensors.
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        kinds = {file.get_slice(key).get_dtype() for key in shapes}
        count = len(header["classes"])
        width = shapes.get("weights", (0, 0))[-1]
        if (
            shapes != {"weights": (count, width), "bias": (count,)}
            or not 1 <= width <= MAX_WIDTH
            or kinds != {"F64"}
        ):
            raise HeadError(
                f"{name}: damaged head, its tensors are {checks.short_repr(shapes)} of {sorted(kinds)}"
            )
        weights, bias = file.get_tensor("weights"), file.get_tensor("bias")
    # The comparison also fails for NaN.
    if not all((np.abs(each) <= MAX_VALUE).all() for each in (weights, bias)):
        raise HeadError(f"{name}: damaged head, its weights are out of range, or NaN")
    return header, weights, bias


def check_header(header: Any) -> None:
    """Refuse an invalid header of a head; its version and origin are checked elsewhere.

    Raises
    ------
    ValueError
        If an entry is invalid; the message names the entry.
    OptionError
        If the names of the classes are not allowed.
    """
    if not isinstance(header, dict):
        raise ValueError(f"head {checks.short_repr(header)}")
    names, counts = header.get("classes"), header.get("n_patches")
    if not isinstance(names, list) or not all(is_text(each) for each in names):
        raise ValueError(f"classes {checks.short_repr(names)}")
    class_names(names)
    if not is_number(header.get("C"), 1e-6, 1e6):
        raise ValueError(f"C {checks.short_repr(header.get('C'))}")
    if not is_whole(header.get("n_photos"), 1):
        raise ValueError(f"n_photos {checks.short_repr(header.get('n_photos'))}")
    if not isinstance(counts, list) or len(counts) != len(names) or not all(is_whole(n, 1) for n in counts):
        raise ValueError(f"n_patches {checks.short_repr(counts)}")
