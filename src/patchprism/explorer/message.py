"""The message: everything that the page of the explorer needs, as bytes with a version.

Layout of version 5: ``PPRISMX`` and the version, in eight bytes; the length of the header as a little-endian uint32;
the header as JSON in UTF-8; the buffers, one after another. docs/explorer.md describes every field.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, get_args

import numpy as np

from patchprism.errors import PatchPrismError
from patchprism.support.json_values import MAX_COUNT, from_json, is_whole, to_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 5
MAGIC = b"PPRISMX" + bytes([VERSION])

Kind = Literal["raw", "deflate", "float32", "int32", "int16", "int8"]
DTYPES = {"float32": "<f4", "int32": "<i4", "int16": "<i2", "int8": "i1"}


class MessageError(PatchPrismError, ValueError):
    """The bytes are not a message, or a message of another version."""


class BufferInfo(TypedDict):
    """The place and the format of a buffer."""

    kind: Kind
    shape: list[int]
    offset: int
    length: int


class ModelInfo(TypedDict):
    """The network."""

    name: str
    width: int
    patch_size: int
    weights: str


class FitInfo(TypedDict):
    """How the prism was fitted."""

    fitted_here: bool
    threshold: float | None
    threshold_from: str
    method: str
    side: str
    side_reason: str
    scaling: str
    components: list[int]
    space: str
    n_foreground: int


class MaskInfo(TypedDict):
    """The foreground that is shown first; None means that of the fit."""

    threshold: float | None
    side: str | None
    opening: int
    closing: int


class PcaInfo(TypedDict):
    """One of the two PCAs: the values of each component."""

    explained: list[float]
    deviation: list[float]
    step: list[float]


class RangeInfo(TypedDict):
    """The values of each component that become 0 and 1."""

    low: list[float]
    high: list[float]


class TokensInfo(TypedDict):
    """Reduced tokens: cosine(a, b) is about the sum of scale**2 * code_a * code_b over the dimensions."""

    dims: int
    width: int
    tolerance: float
    error: dict[str, float]


class PhotoInfo(TypedDict):
    """One photo."""

    name: str
    source: str
    size: list[int]
    grid: list[int]
    crop: list[float]


class LayersInfo(TypedDict):
    """The network's number of layers, and those that are shown, counted from 0."""

    depth: int
    shown: list[int]


class ReferenceInfo(TypedDict):
    """The fit that colours are turned to agree with: its components, counted from 1, and what scales their values."""

    model: str
    layers: LayersInfo | None
    components: list[int]
    deviation: list[float]
    ranges: dict[str, RangeInfo]


class TurnInfo(TypedDict):
    """How colours are turned to agree with those of another fit; see :class:`~patchprism.lenses.turning.Turn`."""

    rotation: list[list[float]]
    center: list[float]
    target: list[float]
    residual: float
    shuffled: float
    shifted: float | None
    patches: int
    reference: ReferenceInfo


class CarriedInfo(TypedDict):
    """The layers of a file, and how the colours of each (outer key) are turned to agree with those of each other.

    The buffer ``layer-N`` contains the message of a layer, without photos. The layer that the file opens with has none.
    """

    layers: list[int]
    turns: dict[str, dict[str, TurnInfo | None]]


class CommandInfo(TypedDict):
    """Parts of the command that reproduces a view."""

    input: list[str] | None
    options: list[list[str]]
    threshold: str
    foreground: str
    prism: str | None
    files: bool


class ClustersInfo(TypedDict):
    """Clusters in a single file: the numbers of clusters, and the choice of "auto"."""

    counts: list[int]
    auto: dict[str, Any]


class AttentionInfo(TypedDict):
    """The attention of the class token: its layer, and the weight that is drawn brightest in each photo."""

    layer: int
    tops: list[float]


class Header(TypedDict):
    """The header of a message."""

    version: int
    patchprism: str
    title: str
    model: ModelInfo
    layers: LayersInfo | None
    carried: CarriedInfo | None
    fit: FitInfo
    mask: MaskInfo
    scene: PcaInfo
    object: PcaInfo
    ranges: dict[str, RangeInfo]
    all_range: RangeInfo
    tokens: TokensInfo
    photos: list[PhotoInfo]
    hints: list[str]
    failures: list[dict[str, str]]
    command: CommandInfo
    origin: dict[str, Any]
    palette: list[str]
    stored: int | None
    no_photos: bool
    clusters: NotRequired[ClustersInfo]
    attention: NotRequired[AttentionInfo]
    buffers: NotRequired[dict[str, BufferInfo]]


@dataclass
class Message:
    """A header and its buffers.

    Attributes
    ----------
    header : Header
    parts : dict of str to (info, bytes)
        Encoded buffers by name.
    """

    header: Header
    parts: dict[str, tuple[Kind, tuple[int, ...], bytes]] = field(default_factory=dict)

    def add(self, name: str, kind: Kind, value: Any) -> None:
        """Encode a buffer and add it.

        Parameters
        ----------
        name : str
        kind : {"raw", "deflate", "float32", "int32", "int16", "int8"}
            ``"raw"`` and ``"deflate"`` take bytes, the others arrays; all but ``"raw"`` are deflated.
        """
        if kind in ("raw", "deflate"):
            shape, content = (len(value),), value
        else:
            array = np.asarray(value).astype(DTYPES[kind])
            shape, content = array.shape, array.tobytes()
        self.parts[name] = kind, shape, content if kind == "raw" else zlib.compress(content, 6)

    def array(self, name: str) -> NDArray[Any]:
        """A buffer, decoded as in the page."""
        kind, shape, content = self.parts[name]
        data = content if kind == "raw" else zlib.decompress(content)
        return np.frombuffer(data, DTYPES.get(kind, "u1")).reshape(shape)

    def to_bytes(self) -> bytes:
        """The message as bytes."""
        infos: dict[str, BufferInfo] = {}
        offset = 0
        for name, (kind, shape, content) in self.parts.items():
            infos[name] = {"kind": kind, "shape": list(shape), "offset": offset, "length": len(content)}
            offset += len(content)
        header = {**self.header, "buffers": infos}
        text = to_json(header, ensure_ascii=False, separators=(",", ":"))
        encoded = text.encode("utf-8", "replace")  # names of files may be invalid UTF-8
        return b"".join(
            [
                MAGIC,
                struct.pack("<I", len(encoded)),
                encoded,
                *(content for _, _, content in self.parts.values()),
            ]
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Message:
        """Decode a message.

        Raises
        ------
        MessageError
            If the bytes are not a message, have another version, or are cut short.
        """
        if content[:7] != MAGIC[:7] or len(content) < 12:
            raise MessageError("not an explorer message")
        if content[7] != VERSION:
            raise MessageError(
                f"explorer message of version {content[7]}, this PatchPrism reads version {VERSION}"
            )
        (length,) = struct.unpack_from("<I", content, 8)
        try:
            header = from_json(content[12 : 12 + length])
            infos: dict[str, BufferInfo] = header.pop("buffers")
            if not all(_is_buffer(info) for info in infos.values()):
                raise ValueError("its buffers are not valid")
            start = 12 + length
            parts = {
                name: (
                    info["kind"],
                    tuple(info["shape"]),
                    content[start + info["offset"] : start + info["offset"] + info["length"]],
                )
                for name, info in infos.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MessageError(f"damaged explorer message ({error})") from error
        if any(len(part[2]) != infos[name]["length"] for name, part in parts.items()):
            raise MessageError("explorer message is cut short")
        return cls(header, parts)


def _is_buffer(info: Any) -> bool:
    return (
        isinstance(info, dict)
        and info.get("kind") in get_args(Kind)
        and isinstance(info.get("shape"), list)
        and all(is_whole(n, 0, MAX_COUNT) for n in [*info["shape"], info.get("offset"), info.get("length")])
    )
