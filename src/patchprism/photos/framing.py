"""How a photo becomes model input: resize, crop, normalise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from patchprism.errors import OptionError, PhotoError
from patchprism.support import checks
from patchprism.support.arrays import to_uint8
from patchprism.support.options import INPUT, check_options, numbers, option
from patchprism.support.surroundings import own_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray


DEFAULT_SIZE = 448
PRESETS = ("default", "seed")

# A photo longer than this many times its width gets no more patches than one of just this shape.
MAX_ELONGATION = 16
# The most pixels that a photo may have, resized; the same bound as for reading (Pillow's).
MAX_RESIZED_PIXELS = 178_956_970
# What pixels can hold.
LARGEST = float(np.finfo(np.float32).max)
MAX_SIZE = math.isqrt(MAX_RESIZED_PIXELS)
# Rows are resized in strips of about this many pixels: they stay in the processor's cache, and a photo of
# 12 megapixels is framed in 40 % of the time of one call over the whole (65 ms for 160 on two cores).
_STRIP_PIXELS = 1 << 18
_RGB = numbers("three numbers like 0.485,0.456,0.406", count=3, repeat=True)


class _Plan(NamedTuple):
    """Sizes in pixels: the photo resized, and the box cut out of it."""

    height: int
    width: int
    top: int
    left: int
    box_height: int
    box_width: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Framed:
    """A photo as the backbone sees it.

    Attributes
    ----------
    pixels : torch.Tensor, shape (3, H, W), float32
        Normalised model input, contiguous, on the CPU.
    crop : tuple of float
        Left, top, right and bottom of what the pixels cover, in the photo's pixel coordinates: (0, 0) is the
        outer corner of its first pixel, (W, H) that of its last.
    grid : tuple of int
        Rows and columns of patches (h, w).
    shown : np.ndarray, shape (H, W, 3), uint8, or None
        The same crop before it was normalised: what a figure shows. None where it was not asked for.
    plain : bool
        Whether nothing is in the photo: it is of one colour, or noise.
    """

    pixels: torch.Tensor
    crop: tuple[float, float, float, float]
    grid: tuple[int, int]
    shown: NDArray[np.uint8] | None
    plain: bool = False


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How photos are resized, cropped and normalised.

    Two framings are equal when they frame every photo alike. ``to_dict`` and ``from_dict`` carry one through
    JSON, so that a prism file knows how its photos were framed.

    Parameters
    ----------
    size : int
        ``crop="cover"``: the photo's shorter edge, rounded to the nearest multiple of the patch size.
        ``crop="center"``: side of the square; a multiple of the patch size.
    patch_size : int
        Side of the backbone's patches in pixels.
    mean, std : tuple of float
        Normalisation of RGB in [0, 1].
    crop : {"cover", "center"}, default "cover"
        ``"cover"`` keeps the photo's shape: both sides to the nearest multiple of the patch size, less
        than half a patch cut off, scaled alike in both directions.
        ``"center"`` is the seed's square crop out of a slightly larger photo.
    interpolation : {"bicubic", "bilinear"}, default "bicubic"
        Both antialiased, on floats.

    Raises
    ------
    OptionError
        If an option is not as above.
    """

    size: int = option(
        check=partial(checks.integer, low=1, high=MAX_SIZE),
        metavar="PIXELS",
        help=f"Shorter edge of the photo as the network sees it, in pixels. Default: {DEFAULT_SIZE}.",
        panel=INPUT,
    )
    patch_size: int = option(check=partial(checks.integer, low=1, high=MAX_SIZE))
    mean: tuple[float, float, float] = option(
        check=partial(checks.three_numbers, most=LARGEST),
        metavar="R,G,B",
        help="Mean of red, green and blue (0 to 1) that the network expects. Default: the model's.",
        panel=INPUT,
        parse=_RGB,
    )
    std: tuple[float, float, float] = option(
        check=partial(checks.three_numbers, positive=True, most=LARGEST),
        metavar="R,G,B",
        help="Standard deviation of red, green and blue (0 to 1) that the network expects. Default: the model's.",
        panel=INPUT,
        parse=_RGB,
    )
    crop: Literal["cover", "center"] = option(
        "cover", check=partial(checks.choice, allowed=("cover", "center"))
    )
    interpolation: Literal["bicubic", "bilinear"] = option(
        "bicubic", check=partial(checks.choice, allowed=("bicubic", "bilinear"))
    )

    def __post_init__(self) -> None:
        """Refuse what cannot frame; lists, as JSON gives them, become tuples."""
        check_options(self)
        if self.crop == "center" and self.size % self.patch_size:
            below = self.size // self.patch_size * self.patch_size
            near = [str(edge) for edge in (below, below + self.patch_size) if edge]
            raise OptionError(
                f"size must be a multiple of the patch size {self.patch_size} for a centre crop, "
                f"got {self.size}: nearest {'is' if len(near) == 1 else 'are'} {' and '.join(near)}"
            )

    @classmethod
    def preset(
        cls,
        name: str,
        *,
        size: int = DEFAULT_SIZE,
        patch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> Framing:
        """The framing that a preset names.

        Parameters
        ----------
        name : {"default", "seed"}
            ``"default"`` keeps the photo's shape. ``"seed"`` does what the post that the project starts from
            did: a square crop, bilinear, and a mean and deviation of 0.5 in place of the backbone's.
        size : int, default 448
            See `Framing`.
        patch_size : int
            The backbone's.
        mean, std : sequence of float
            The backbone's; the seed's preset has its own.

        Raises
        ------
        OptionError
            If there is no such preset, or an option is not allowed.
        """
        if checks.choice("preset", name, allowed=PRESETS) == "default":
            mean, std = checks.three_numbers("mean", mean), checks.three_numbers("std", std)
            return cls(size=size, patch_size=patch_size, mean=mean, std=std)
        half = (0.5, 0.5, 0.5)
        return cls(
            size=size, patch_size=patch_size, mean=half, std=half, crop="center", interpolation="bilinear"
        )

    def to_dict(self) -> dict[str, Any]:
        """The options as plain JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Framing:
        """The framing that ``to_dict`` described.

        Raises
        ------
        OptionError
            If an option is missing, unknown or not allowed.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(options, Mapping) or set(options) != known:
            raise OptionError(f"a framing has the options {sorted(known)}, got {checks.said(options)}")
        return cls(**options)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that a photo of ``height`` by ``width`` pixels gets.

        Raises
        ------
        PhotoError
            If the photo cannot be framed.
        """
        plan = self._plan(height, width, "photo")
        return plan.box_height // self.patch_size, plan.box_width // self.patch_size

    def covered(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what the pixels cover, as shares of a photo's width and height.

        Raises
        ------
        PhotoError
            If a photo of ``height`` by ``width`` pixels cannot be framed.
        """
        plan = self._plan(height, width, "photo")
        return (
            plan.left / plan.width,
            plan.top / plan.height,
            (plan.left + plan.box_width) / plan.width,
            (plan.top + plan.box_height) / plan.height,
        )

    def apply(self, photo: NDArray[np.uint8], *, name: str = "photo", show: bool = True) -> Framed:
        """Frame a photo.

        Parameters
        ----------
        photo : np.ndarray, shape (H, W, 3), uint8
            RGB, as `patchprism.read_photo` gives it.
        name : str, default "photo"
            What to call it in errors.
        show : bool, default True
            Whether ``shown`` is wanted too.

        Returns
        -------
        Framed

        Raises
        ------
        PhotoError
            If the photo is no such array, or is so elongated that it grows beyond all bounds (seed preset).
        """
        import torch

        if (
            not isinstance(photo, np.ndarray)
            or photo.dtype != np.uint8
            or photo.ndim != 3
            or photo.shape[2] != 3
        ):
            shape, dtype = getattr(photo, "shape", None), getattr(photo, "dtype", type(photo).__name__)
            raise PhotoError(
                name, f"must be an array (H, W, 3) of uint8 to be framed, got {shape} of {dtype}"
            )
        height, width = photo.shape[:2]
        plan = self._plan(height, width, name)
        with own_settings():
            unit = _resize(photo, plan, self.interpolation)
            shown = to_uint8(unit.permute(1, 2, 0).contiguous().numpy()) if show else None
            mean = torch.tensor(self.mean, dtype=torch.float32)[:, None, None]
            std = torch.tensor(self.std, dtype=torch.float32)[:, None, None]
            pixels = unit.sub_(mean).div_(std)
        across, down = width / plan.width, height / plan.height
        return Framed(
            pixels=pixels,
            crop=(
                plan.left * across,
                plan.top * down,
                (plan.left + plan.box_width) * across,
                (plan.top + plan.box_height) * down,
            ),
            grid=(plan.box_height // self.patch_size, plan.box_width // self.patch_size),
            shown=shown,
            plain=is_plain(photo),
        )

    def show(self, photo: NDArray[np.uint8], *, name: str = "photo") -> NDArray[np.uint8]:
        """What :meth:`apply` gives as ``shown``, (H, W, 3) uint8."""
        shown = self.apply(photo, name=name).shown
        assert shown is not None
        return shown

    def _plan(self, height: int, width: int, name: str) -> _Plan:
        if height < 1 or width < 1:
            raise PhotoError(name, f"has no pixels ({width} x {height})")
        plan = (
            _plan_center(height, width, self.size)
            if self.crop == "center"
            else self._plan_cover(height, width)
        )
        if plan.height * plan.width > MAX_RESIZED_PIXELS:
            hint = "the default preset keeps its shape" if self.crop == "center" else "choose a smaller size"
            raise PhotoError(
                name, f"{width} x {height} pixels would be resized to {plan.width} x {plan.height}; {hint}"
            )
        return plan

    def _plan_cover(self, height: int, width: int) -> _Plan:
        patch = self.patch_size
        rows, columns, squeezed = _cover_grid(height, width, max(1, _divide(self.size, patch)))
        box_height, box_width = rows * patch, columns * patch
        # Scaled alike in both directions until the box is covered. The tighter side fits exactly; the other
        # is rounded down, or rounding could cut off half a patch. Integers, so that no rounding error can.
        if squeezed:
            tall, wide = box_height, box_width
        elif box_height * width >= box_width * height:
            tall, wide = box_height, max(box_width, width * box_height // height)
        else:
            tall, wide = max(box_height, height * box_width // width), box_width
        return _Plan(tall, wide, (tall - box_height) // 2, (wide - box_width) // 2, box_height, box_width)


def _cover_grid(height: int, width: int, short: int) -> tuple[int, int, bool]:
    """Rows, columns, and whether the shape was given up; ``short`` patches on the shorter edge at most."""
    shorter, longer = min(height, width), max(height, width)
    budget = MAX_ELONGATION * short * short
    fewer = max(1, min(short, math.isqrt(budget * shorter // longer) + 1))
    while fewer > 1 and fewer * _divide(longer * fewer, shorter) > budget:
        fewer -= 1
    more = _divide(longer * fewer, shorter)
    # Even one row of patches is too many: the shape is given up, and the whole squeezed into the budget.
    squeezed = more > budget
    more = min(more, budget)
    return (fewer, more, squeezed) if height <= width else (more, fewer, squeezed)


def _plan_center(height: int, width: int, size: int) -> _Plan:
    edge = size + int(size * 0.01) * 10
    if height <= width:
        tall, wide = edge, int(edge * width / height)
    else:
        tall, wide = int(edge * height / width), edge
    return _Plan(tall, wide, round((tall - size) / 2.0), round((wide - size) / 2.0), size, size)


def _resize(photo: NDArray[np.uint8], plan: _Plan, interpolation: str) -> torch.Tensor:
    """The box of the resized photo, (3, h, w) float32 in [0, 1].

    Equal to the last bit to one ``interpolate`` over the whole photo, which goes across and then down as
    well; but what the box leaves out is not computed further, nor a resizing to the same size.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = photo.shape[:2]
    # torch warns of arrays that it must not write to, such as frames that a decoder lends.
    source = torch.from_numpy(np.require(photo, requirements=["C", "W"]))
    columns = slice(plan.left, plan.left + plan.box_width)
    if (plan.height, plan.width) == (height, width):  # most videos of a network's own size
        box = source[plan.top : plan.top + plan.box_height, columns].permute(2, 0, 1)
        return box.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    across = torch.empty((3, height, plan.box_width), dtype=torch.float32)
    rows = max(1, _STRIP_PIXELS // max(width, plan.width))
    for start in range(0, height, rows):
        strip = source[start : start + rows].permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
        resized = interpolate(
            strip[None],
            size=(strip.shape[1], plan.width),
            mode=interpolation,
            antialias=True,
            align_corners=False,
        )
        across[:, start : start + rows] = resized[0, :, :, columns]
    box = torch.empty((3, plan.box_height, plan.box_width), dtype=torch.float32)
    for channel in range(3):
        resized = interpolate(
            across[None, channel : channel + 1],
            size=(plan.height, plan.box_width),
            mode=interpolation,
            antialias=True,
            align_corners=False,
        )
        box[channel] = resized[0, 0, plan.top : plan.top + plan.box_height]
    # Bicubic interpolation swings beyond the values that it interpolates.
    return box.clamp_(0.0, 1.0)


def is_plain(photo: NDArray[np.uint8]) -> bool:
    """Whether nothing is in a photo, (H, W, 3): it is of one colour, no channel differing by more than 2, or noise.

    Noise is where neighbouring pixels have nothing in common: their brightness correlates by less than 0.1, in a
    part of 256 x 256. Photos have 0.8 and more, and few of sharp textures less than 0.5.
    """
    height, width = photo.shape[:2]
    # Nearly all photos show in a few pixels that they are not of one colour.
    some = photo[:: max(1, height // 16), :: max(1, width // 16)]
    if all(int((part.max((0, 1)) - part.min((0, 1))).max()) <= 2 for part in (some, photo)):
        return True
    top, left = max(0, height - 256) // 2, max(0, width - 256) // 2
    grey = photo[top : top + 256, left : left + 256].mean(axis=2)
    if min(grey.shape) < 16:
        return False
    grey -= grey.mean()
    size = float((grey**2).mean())
    across, down = float((grey[:, 1:] * grey[:, :-1]).mean()), float((grey[1:] * grey[:-1]).mean())
    # Specks on a plain ground, such as stars, do not correlate either; noise is everywhere.
    everywhere = float(np.median(np.abs(grey))) > 0.25 * size**0.5
    return everywhere and max(abs(across), abs(down)) < 0.1 * size


def _divide(numerator: int, denominator: int) -> int:
    """The nearest whole number, halves up: a photo halfway between two grids loses less than half a patch."""
    return (2 * numerator + denominator) // (2 * denominator)
