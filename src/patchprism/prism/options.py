"""The options of a prism: each is declared once, with its default and its check."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from patchprism.errors import OptionError
from patchprism.prism.colors import SCALINGS, SPACES
from patchprism.support import checks
from patchprism.support.checks import apply_checks, optional

if TYPE_CHECKING:
    from patchprism.support.checks import Check

FOREGROUNDS = ("auto", "object", "pca", "above", "below", "none")
SIGNS = ("stable", "largest")
MASK_SIDES = ("above", "below", "none")
MAX_MORPHOLOGY = 16
# Components kept of each PCA; three make a picture, the rest are for looking further.
KEPT_COMPONENTS = 8

PRISM_CHECKS: dict[str, Check] = {
    "threshold": partial(checks.number, low=0, high=1, words=("auto", "otsu")),
    "foreground": partial(checks.choice, allowed=FOREGROUNDS),
    "foreground_component": partial(checks.integer, low=1, high=3),
    "scaling": partial(checks.choice, allowed=SCALINGS),
    "components": partial(checks.three_components, most=KEPT_COMPONENTS),
    "space": partial(checks.choice, allowed=SPACES),
    "signs": partial(checks.choice, allowed=SIGNS),
    "mask_threshold": optional(partial(checks.number, low=0, high=1)),
    "mask_side": optional(partial(checks.choice, allowed=MASK_SIDES)),
    "opening": partial(checks.integer, low=0, high=MAX_MORPHOLOGY),
    "closing": partial(checks.integer, low=0, high=MAX_MORPHOLOGY),
}


@dataclass(eq=False, repr=False, kw_only=True)
class PrismOptions:
    """The options of :class:`~patchprism.Prism`, which describes them."""

    threshold: float | str = "auto"
    foreground: str = "auto"
    foreground_component: int = 1
    scaling: str = "minmax"
    components: tuple[int, int, int] = (1, 2, 3)
    space: str = "rgb"
    signs: str = "stable"
    mask_threshold: float | None = None
    mask_side: str | None = None
    opening: int = 0
    closing: int = 0

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options by name, as scikit-learn's ``clone`` asks for them; ``deep`` changes nothing."""
        return {name: getattr(self, name) for name in DEFAULTS}

    def set_params(self, **params: Any) -> Self:
        """Set options by name; their values are checked by the next fit or use.

        Raises
        ------
        OptionError
            If there is no option of that name; nothing is set then.
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
        """Refuse an option whose value is not allowed, and keep the others as plain values; a fit does it too.

        Raises
        ------
        OptionError
            If there is one.
        """
        apply_checks(self, PRISM_CHECKS)
        threshold, side = self.mask_threshold, self.mask_side
        if self.foreground == "none" and side in ("above", "below") and threshold is None:
            raise OptionError(f"mask_side {side!r} needs a mask_threshold with foreground='none'")
        if self.foreground == "none" and side is None and threshold is not None:
            raise OptionError("mask_threshold needs a mask_side with foreground='none'")


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(PrismOptions)}
# Options that may be changed after fitting, and what leaves the fitted foreground as it is.
MASK_OPTIONS = {name: DEFAULTS[name] for name in ("mask_threshold", "mask_side", "opening", "closing")}
