"""How a photo becomes model input: resize, crop, normalise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from patchprism.errors import OptionError, PhotoError
from patchprism.photos.plans import MAX_PIXELS, plan_center, plan_cover
from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.options import INPUT, check_options, numbers, option
from patchprism.support.surroundings import own_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from patchprism.photos.plans import Plan
    from patchprism.support.checks import Check


DEFAULT_SIZE = 448
PRESETS = ("default", "seed")

# The largest float32. Pixels have this dtype.
LARGEST = (2 - 2**-23) * 2.0**127
MAX_SIZE = math.isqrt(MAX_PIXELS)
# Checks the option `range` of `read_photo`: the values that are black and white.
check_range: Check = optional(checks.two_ends)
_RGB = numbers("three numbers like 0.485,0.456,0.406", count=3, repeat=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Framed:
    """A photo as the backbone sees it.

    Attributes
    ----------
    pixels : torch.Tensor, shape (3, H, W), float32
        Normalised model input, contiguous, on the CPU.
    crop : tuple of float
        The part of the photo that the pixels show: left, top, right and bottom in the photo's pixels. (0, 0) is the
        outer corner of its first pixel, and (W, H) that of its last.
    grid : tuple of int
        Rows and columns of patches (h, w).
    shown : np.ndarray, shape (H, W, 3), uint8, or None
        The same crop before normalisation, for figures. None if it was not requested.
    plain : bool
        Whether the photo has a single colour, or is noise.
    enlargement : int
        Factor by which overlapping patches increase the rows and columns of the pixels.
    """

    pixels: torch.Tensor
    crop: tuple[float, float, float, float]
    grid: tuple[int, int]
    shown: NDArray[np.uint8] | None
    plain: bool = False
    enlargement: int = 1


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How photos are resized, cropped and normalised.

    Two framings are equal if they frame every photo in the same way. ``to_dict`` and ``from_dict`` convert a framing
    to and from JSON values, for example for the file of a prism.

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
        ``"cover"`` keeps the shape of the photo: it is scaled by one factor, and less than half a patch is cut off so
        that both sides are multiples of the patch size. ``"center"`` is the square crop of the preset ``"seed"``, out
        of a slightly larger photo.
    interpolation : {"bicubic", "bilinear"}, default "bicubic"
        Both are antialiased and work on floats.
    stride : int, optional
        Pixels from one patch to the next; it must divide ``patch_size``, which is the default. With a smaller stride,
        patches overlap (Amir et al., "Deep ViT Features as Dense Visual Descriptors", 2021). The grid then has
        ``patch_size / stride`` times as many rows and columns, and each patch is centred on its cell. The overlapping
        patches are laid side by side in a larger picture, so the network processes them like any other patches, and
        interpolates its position embedding to their grid.

    Raises
    ------
    OptionError
        If an option has a value that is not allowed.
    """

    size: int = option(
        check=partial(checks.integer, low=1, high=MAX_SIZE),
        metavar="PIXELS",
        help=f"Shorter edge of the photo as model input, in pixels. Default: {DEFAULT_SIZE}.",
        panel=INPUT,
    )
    patch_size: int = option(check=partial(checks.integer, low=1, high=MAX_SIZE))
    mean: tuple[float, float, float] = option(
        check=partial(checks.three_numbers, most=LARGEST),
        metavar="R,G,B",
        help="Mean of red, green and blue (0 to 1) that normalises the photos. Default: the model's.",
        panel=INPUT,
        parse=_RGB,
    )
    std: tuple[float, float, float] = option(
        check=partial(checks.three_numbers, positive=True, most=LARGEST),
        metavar="R,G,B",
        help="Standard deviation of red, green and blue (0 to 1) that normalises the photos. "
        "Default: the model's.",
        panel=INPUT,
        parse=_RGB,
    )
    crop: Literal["cover", "center"] = option(
        "cover", check=partial(checks.choice, allowed=("cover", "center"))
    )
    interpolation: Literal["bicubic", "bilinear"] = option(
        "bicubic", check=partial(checks.choice, allowed=("bicubic", "bilinear"))
    )
    stride: int | None = option(
        None,
        check=checks.optional(partial(checks.integer, low=1, high=MAX_SIZE)),
        metavar="PIXELS",
        help="Distance between neighbouring patches in pixels; it must divide the patch size. A "
        "smaller stride makes patches overlap and the grid finer. Default: the patch size.",
        panel=INPUT,
    )

    def __post_init__(self) -> None:
        """Check the options; lists, which JSON gives, become tuples."""
        check_options(self)
        if self.stride is not None and self.patch_size % self.stride:
            allowed = [str(each) for each in range(1, self.patch_size) if self.patch_size % each == 0]
            raise OptionError(
                f"stride must divide the patch size {self.patch_size} ({', '.join(allowed)}), got {self.stride}",
                option="stride",
            )
        if self.stride == self.patch_size:
            object.__setattr__(self, "stride", None)
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
        stride: int | None = None,
    ) -> Framing:
        """The framing of a preset.

        Parameters
        ----------
        name : {"default", "seed"}
            ``"default"`` keeps the shape of the photo. ``"seed"`` reproduces the blog post that the project started
            from: a square crop, bilinear interpolation, and a mean and standard deviation of 0.5 instead of the
            backbone's.
        size : int, default 448
            See `Framing`.
        patch_size : int
            The backbone's patch size.
        mean, std : sequence of float
            The backbone's normalisation, which the preset ``"seed"`` does not use.
        stride : int, optional
            See `Framing`.

        Raises
        ------
        OptionError
            If there is no such preset, or an option is not allowed.
        """
        if checks.choice("preset", name, allowed=PRESETS) == "default":
            mean, std = checks.three_numbers("mean", mean), checks.three_numbers("std", std)
            return cls(size=size, patch_size=patch_size, mean=mean, std=std, stride=stride)
        half = (0.5, 0.5, 0.5)
        return cls(
            size=size,
            patch_size=patch_size,
            mean=half,
            std=half,
            crop="center",
            interpolation="bilinear",
            stride=stride,
        )

    @property
    def cell(self) -> int:
        """Pixels from one patch to the next."""
        return self.stride or self.patch_size

    @property
    def enlargement(self) -> int:
        """Factor by which the stride increases the number of rows and columns."""
        return self.patch_size // self.cell

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON values; without a stride if patches do not overlap."""
        options = {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }
        return {key: value for key, value in options.items() if (key, value) != ("stride", None)}

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Framing:
        """Make a framing from the values of ``to_dict``.

        Raises
        ------
        OptionError
            If an option is missing, unknown or not allowed.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(options, Mapping) or set(options) | {"stride"} != known:
            raise OptionError(f"a framing has the options {sorted(known)}, got {checks.short_repr(options)}")
        return cls(**options)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of a photo of ``height`` by ``width`` pixels.

        Raises
        ------
        PhotoError
            If the photo cannot be framed.
        """
        plan = self._plan(height, width, "photo")
        return plan.box_height // self.cell, plan.box_width // self.cell

    def covered(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part that the pixels show, as shares of the photo's width and height.

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
            RGB, as `patchprism.read_photo` returns it.
        name : str, default "photo"
            Name of the photo in errors.
        show : bool, default True
            Whether the result includes ``shown``.

        Returns
        -------
        Framed

        Raises
        ------
        PhotoError
            If the photo is not such an array, or is so elongated that it would become too large (preset ``"seed"``).
        """
        import torch

        from patchprism.photos.resizing import check_photo, is_plain, overlapping, resize, to_bytes

        check_photo(photo, name)
        height, width = photo.shape[:2]
        plan = self._plan(height, width, name)
        with own_settings():
            unit = resize(photo, plan, self.interpolation)
            shown = to_bytes(unit) if show else None
            mean = torch.tensor(self.mean, dtype=torch.float32)[:, None, None]
            std = torch.tensor(self.std, dtype=torch.float32)[:, None, None]
            pixels = unit.sub_(mean).div_(std)
            if self.stride:
                pixels = overlapping(pixels, self.patch_size, self.stride)
        across, down = width / plan.width, height / plan.height
        return Framed(
            pixels=pixels,
            crop=(
                plan.left * across,
                plan.top * down,
                (plan.left + plan.box_width) * across,
                (plan.top + plan.box_height) * down,
            ),
            grid=(plan.box_height // self.cell, plan.box_width // self.cell),
            shown=shown,
            plain=is_plain(photo),
            enlargement=self.enlargement,
        )

    def show(self, photo: NDArray[np.uint8], *, name: str = "photo") -> NDArray[np.uint8]:
        """The picture that :meth:`apply` returns as ``shown``, (H, W, 3) uint8."""
        shown = self.apply(photo, name=name).shown
        assert shown is not None
        return shown

    def _plan(self, height: int, width: int, name: str) -> Plan:
        if height < 1 or width < 1:
            raise PhotoError(name, f"has no pixels ({width} x {height})")
        plan = (
            plan_center(height, width, self.size)
            if self.crop == "center"
            else plan_cover(height, width, self.size, self.patch_size)
        )
        if plan.height * plan.width > MAX_PIXELS:
            hint = "the default preset keeps its shape" if self.crop == "center" else "choose a smaller size"
            raise PhotoError(
                name, f"{width} x {height} pixels would be resized to {plan.width} x {plan.height}; {hint}"
            )
        return plan
