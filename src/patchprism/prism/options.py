"""The options of a prism, each with its default and its check."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Self

from patchprism.errors import OptionError
from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.options import FIT, check_options, number_or_word, numbers, option

FOREGROUNDS = ("auto", "object", "mask", "pca", "above", "below", "none")
SCALINGS = ("minmax", "percentile", "sigmoid")
SPACES = ("rgb", "oklab")
SIGNS = ("stable", "largest")
MASK_SIDES = ("above", "below", "none")
MAX_MORPHOLOGY = 16
# Number of components of each PCA that a prism keeps. Three make a picture; the others can be chosen later.
KEPT_COMPONENTS = 8


@dataclass(eq=False, repr=False, kw_only=True)
class PrismOptions:
    """The options of a prism, described at :class:`~patchprism.Prism`."""

    threshold: float | str = option(
        "auto",
        check=partial(checks.number, low=0, high=1, words=("auto", "otsu")),
        metavar="auto|otsu|FLOAT",
        help="Score (0 to 1) that separates foreground from background. With auto, it is fitted to "
        "the photos.",
        panel=FIT,
        parse=number_or_word(float),
    )
    foreground: str = option(
        "auto",
        check=partial(checks.choice, allowed=FOREGROUNDS),
        metavar="METHOD",
        help="How to find the foreground: auto, object, mask, pca, above, below or none. With "
        "object, it is learned from what differs from the photos' borders; with mask, from "
        "masks or a head. With pca, the first component is the score, and the borders decide "
        "its side; above and below take that side of the component. With none, all patches are "
        "kept. With auto, it is mask if there are masks or a head, and object otherwise.",
        panel=FIT,
    )
    foreground_component: int = option(
        1,
        check=partial(checks.integer, low=1, high=3),
        metavar="1|2|3",
        help="Component that --foreground pca, above and below use as the score.",
        panel=FIT,
    )
    scaling: str = option(
        "minmax",
        check=partial(checks.choice, allowed=SCALINGS),
        metavar="minmax|percentile|sigmoid",
        help="How components become colours. The range of each component is its minimum and maximum "
        "(minmax) or its 1st and 99th percentiles (percentile); sigmoid applies a sigmoid to "
        "the whitened components.",
        panel=FIT,
    )
    components: tuple[int, int, int] = option(
        (1, 2, 3),
        check=partial(checks.three_components, most=KEPT_COMPONENTS),
        metavar="R,G,B",
        help=f"Components shown as red, green and blue, from 1 to {KEPT_COMPONENTS}; a negative "
        "number inverts the component.",
        panel=FIT,
        parse=numbers("three numbers like 1,2,3", int, count=3),
    )
    space: str = option(
        "rgb",
        check=partial(checks.choice, allowed=SPACES),
        metavar="rgb|oklab",
        help="Colour space of the components: red, green and blue, or OKLab, in which equal steps "
        "look equal.",
        panel=FIT,
    )
    signs: str = option("stable", check=partial(checks.choice, allowed=SIGNS))
    mask_threshold: float | None = option(
        None,
        check=optional(partial(checks.number, low=0, high=1)),
        metavar="FLOAT",
        help="Show the foreground at this threshold; the colours stay as fitted at --threshold.",
        panel=FIT,
    )
    mask_side: str | None = option(
        None,
        check=optional(partial(checks.choice, allowed=MASK_SIDES)),
        metavar="above|below|none",
        help="Show this side of the threshold as foreground instead of the fitted side.",
        panel=FIT,
    )
    opening: int = option(
        0,
        check=partial(checks.integer, low=0, high=MAX_MORPHOLOGY),
        metavar="N",
        help="Remove specks from the shown foreground, by N steps of morphological opening.",
        panel=FIT,
    )
    closing: int = option(
        0,
        check=partial(checks.integer, low=0, high=MAX_MORPHOLOGY),
        metavar="N",
        help="Fill holes in the shown foreground, by N steps of morphological closing.",
        panel=FIT,
    )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name, for scikit-learn's ``clone``; ``deep`` has no effect."""
        return {name: getattr(self, name) for name in DEFAULTS}

    def set_params(self, **params: Any) -> Self:
        """Set options by name; their values are checked by the next fit or use.

        Raises
        ------
        OptionError
            If there is no option of that name. In this case, no option is changed.
        """
        for name in params:
            if name not in DEFAULTS:
                raise OptionError(
                    f"{type(self).__name__} has no option {name!r}; it has {', '.join(DEFAULTS)}"
                )
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def check_options(self) -> None:
        """Check all options, and replace their values with plain values. A fit also calls this.

        Raises
        ------
        OptionError
            If a value is not allowed, or the options for the shown foreground do not fit together.
        """
        check_options(self)
        threshold, side = self.mask_threshold, self.mask_side
        if self.foreground == "none" and side in ("above", "below") and threshold is None:
            raise OptionError(f"mask_side {side!r} needs a mask_threshold with foreground='none'")
        if self.foreground == "none" and side is None and threshold is not None:
            raise OptionError("mask_threshold needs a mask_side with foreground='none'")

    def check_fit(self) -> None:
        """:meth:`check_options`, and refuse a ``foreground_component`` that the fit would not use.

        Raises
        ------
        OptionError
            As for :meth:`check_options`, or if the component would not be used.
        """
        self.check_options()
        if self.foreground_component != 1 and self.foreground in ("auto", "object", "mask"):
            raise OptionError(
                f"foreground_component {self.foreground_component} needs foreground='pca', foreground='above' or "
                f"foreground='below': {self.foreground} does not use a component",
                option="foreground_component",
            )


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(PrismOptions)}
# Options that can be changed after fitting, with the values that keep the fitted foreground.
MASK_OPTIONS = {name: DEFAULTS[name] for name in ("mask_threshold", "mask_side", "opening", "closing")}
# Options that a fit determines; the signs come from the preset.
FIT_OPTIONS = {name: DEFAULTS[name] for name in DEFAULTS if name not in (*MASK_OPTIONS, "signs")}


def check_taught(foreground: str) -> None:
    """Refuse values of ``foreground`` that cannot be combined with masks or a head.

    Raises
    ------
    OptionError
        If it is neither ``"auto"`` nor ``"mask"``.
    """
    if foreground not in ("auto", "mask"):
        raise OptionError(
            f"foreground must be 'auto' or 'mask' with masks or a head, got {foreground!r}",
            option="foreground",
        )
