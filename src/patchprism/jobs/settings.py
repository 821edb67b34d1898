"""Settings of a job: what decides its colours, with every check and default."""

from __future__ import annotations

import copy
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from patchprism.backbones import Backbone
from patchprism.backbones.devices import DTYPES, check_device, resolve_device
from patchprism.errors import OptionError, PrismError
from patchprism.features.batching import bytes_for
from patchprism.features.extraction import (
    TOKEN_CHECKS,
    TokenOptions,
    check_batch_size,
)
from patchprism.photos.framing import DEFAULT_SIZE, FRAMING_CHECKS, MAX_SIZE, PRESETS, Framing
from patchprism.photos.images import value_range
from patchprism.prism.estimator import Prism
from patchprism.prism.options import MASK_OPTIONS, PRISM_CHECKS
from patchprism.support import checks
from patchprism.support.checks import apply_checks, optional
from patchprism.support.memory import free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patchprism.backbones import BackboneRecord, Identity
    from patchprism.support.checks import Check


DEFAULT_MODEL = "dinov2_vits14"


ERRORS = ("raise", "report")


# What a preset says where the user says nothing; the framing's part of it is in Framing.preset.
PRESET_OPTIONS: dict[str, dict[str, Any]] = {
    "default": {"threshold": "auto", "foreground": "auto"},
    "seed": {"threshold": 0.6, "foreground": "above"},
}


# A prism that says nothing of these was fitted with their defaults.
TOKEN_DEFAULTS = asdict(TokenOptions())


# None is for the preset, or a prism, to say.
_OPEN_CHECKS: dict[str, Check] = {
    "model": checks.text,
    "weights": checks.path,
    "preset": partial(checks.choice, allowed=PRESETS),
    "size": partial(checks.integer, low=1, high=MAX_SIZE),
    "mean": FRAMING_CHECKS["mean"],
    "std": FRAMING_CHECKS["std"],
    "range": checks.two_ends,
    "dtype": partial(checks.dtype, allowed=DTYPES),
    "batch_size": check_batch_size,
    # The preset settles how signs are fixed.
    **{name: check for name, check in PRISM_CHECKS.items() if name != "signs"},
    **TOKEN_CHECKS,
}


SETTING_CHECKS: dict[str, Check] = {
    **{name: optional(check) for name, check in _OPEN_CHECKS.items()},
    **{name: PRISM_CHECKS[name] for name in ("opening", "closing")},
    "device": check_device,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the colours of a job. ``None`` leaves a choice to the preset, or to a prism that is given.

    Attributes are those of :func:`visualize` with the same names.
    """

    model: str | None = None
    weights: str | None = None
    preset: str | None = None
    size: int | None = None
    range: tuple[float, float] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    threshold: float | str | None = None
    foreground: str | None = None
    foreground_component: int | None = None
    scaling: str | None = None
    components: tuple[int, int, int] | None = None
    space: str | None = None
    mask_threshold: float | None = None
    mask_side: str | None = None
    opening: int = 0
    closing: int = 0
    layer: int | Sequence[int] | None = None
    facet: str | None = None
    final_norm: bool | None = None
    token_norm: str | None = None
    device: str = "auto"
    dtype: str | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is not allowed, whatever else is given."""
        apply_checks(self, SETTING_CHECKS)

    def resolved(self, prism: Prism | None = None) -> Settings:
        """The same with every choice made.

        A prism brings its own model, tokens, framing and dtype for what is left open, and its fit cannot be changed.

        Raises
        ------
        OptionError
            If a preset is not known, or a setting of the fit is given beside a prism.
        """
        origin = prism.origin if prism else {}
        if prism:
            for name in ("threshold", "foreground", "foreground_component", "scaling", "components", "space"):
                if getattr(self, name) is not None:
                    raise OptionError(f"{name} is settled by the prism; fit anew to change it")
        preset = self.preset or origin.get("preset") or "default"
        chosen = PRESET_OPTIONS[preset]
        # The network's own, or the preset's, unless a prism of the same says otherwise.
        same = self.model in (None, origin.get("model")) and self.preset in (None, origin.get("preset"))
        framed: dict[str, Any] = origin.get("framing", {}) if same else {}
        return replace(
            self,
            mean=framed.get("mean") if self.mean is None else self.mean,
            std=framed.get("std") if self.std is None else self.std,
            model=self.model or origin.get("model") or DEFAULT_MODEL,
            preset=preset,
            size=origin.get("framing", {}).get("size") or DEFAULT_SIZE if self.size is None else self.size,
            range=self.range or _range_of(origin),
            threshold=chosen["threshold"] if self.threshold is None else self.threshold,
            foreground=self.foreground or chosen["foreground"],
            foreground_component=self.foreground_component or 1,
            scaling=self.scaling or "minmax",
            components=self.components or (1, 2, 3),
            space=self.space or "rgb",
            dtype=self.dtype or origin.get("dtype") or "auto",
            **{
                name: origin.get(name, default) if getattr(self, name) is None else getattr(self, name)
                for name, default in TOKEN_DEFAULTS.items()
            },
        )

    def for_tokens(self) -> dict[str, Any]:
        """Every setting that tokens may depend on: all but the options of the prism."""
        own = signature(Prism).parameters
        return {name: value for name, value in asdict(self).items() if name not in own}

    def token_options(self) -> TokenOptions:
        """Which tokens of the backbone are taken, once resolved; they are checked."""
        return TokenOptions(**{name: getattr(self, name) for name in TOKEN_DEFAULTS})

    def framing(self, record: BackboneRecord) -> Framing:
        """The framing for a backbone, once resolved.

        Raises
        ------
        OptionError
            If an option is not allowed, or mean and deviation are neither given nor known of the model.
        """
        framing = record.framing(
            size=self.size, preset=self.preset or "default", mean=self.mean, std=self.std
        )
        check_memory(framing.size, record, self.device)
        return framing

    def prism(self) -> Prism:
        """The prism to fit, once resolved; its options are checked."""
        prism = Prism(
            # The seed's script had scikit-learn's signs, those of near ties too.
            signs="largest" if self.preset == "seed" else "stable",
            threshold="auto" if self.threshold is None else self.threshold,
            foreground=self.foreground or "auto",
            foreground_component=self.foreground_component or 1,
            scaling=self.scaling or "minmax",
            components=self.components or (1, 2, 3),
            space=self.space or "rgb",
            **self.mask_options(),
        )
        prism.check_options()
        return prism

    def mask_options(self) -> dict[str, Any]:
        """The options of a prism that do not touch its fit."""
        return {name: getattr(self, name) for name in MASK_OPTIONS}


def check_memory(size: int, record: BackboneRecord, device: str) -> None:
    """Refuse a size at which not even one square photo fits into this machine's memory.

    Raises
    ------
    OptionError
        If it does not, by the estimate that batches are made by (:mod:`patchprism.features.batching`).
    """
    needed, free = bytes_for(size, record), free_memory()
    # Only where much is needed is torch imported to ask for the device; a GPU has a memory of its own.
    if needed > free and resolve_device(device).type == "cpu":
        raise OptionError(
            f"size {size} needs about {needed / 1e9:,.0f} GB of memory for one photo, and {free / 1e9:,.1f} GB are "
            "free; choose a smaller size",
            option="size",
        )


class Stopwatch:
    """Seconds spent in each stage of a job, by name."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = {} if seconds is None else seconds

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def with_mask(prism: Prism, options: dict[str, Any]) -> Prism:
    """A prism that shows another foreground, where an option asks for one; the fit is shared.

    Raises
    ------
    OptionError
        If an option is not allowed.
    """
    changed = {name: value for name, value in options.items() if value != MASK_OPTIONS[name]}
    if not changed:
        return prism
    prism = copy.copy(prism).set_params(**changed)
    prism.check_options()
    return prism


def check_backbone(name: str, value: Any) -> None:
    """Refuse what is no backbone."""
    if value is not None and not isinstance(value, Backbone):
        checks.refuse(name, "a Backbone, as load_backbone gives one", value)


def describe_origin(network: Identity, settings: Settings, framing: Framing) -> dict[str, Any]:
    """What features depend on, as a prism keeps it: JSON values."""
    return {
        "model": network.record.name,
        "weights_source": network.weights.source,
        "weights_sha256": network.weights.sha256,
        **({"weights_taken_from": taken} if (taken := network.weights.taken_from) else {}),
        "preset": settings.preset,
        "framing": framing.to_dict(),
        "dtype": network.dtype,
        **({"range": list(settings.range)} if settings.range else {}),
        **settings.token_options().origin(network.record),
    }


def _range_of(origin: dict[str, Any]) -> tuple[float, float] | None:
    """The range of the photos that a prism was fitted on."""
    try:
        return value_range(origin.get("range"))
    except OptionError as error:
        raise PrismError(f"the prism is damaged: {error}") from error


def check_origin(prism: Prism, origin: dict[str, Any]) -> None:
    """Refuse a prism that was fitted on other features than these.

    Raises
    ------
    PrismError
        If model, weights, dtype, tokens or framing differ; the message names the first that does.
    """
    if not prism.origin:
        return  # fitted on somebody's own features: what they were is the user's to know
    for key, word in (
        ("model", "model"),
        ("weights_sha256", "weights"),
        ("dtype", "dtype"),
        ("layer", "layer"),
        ("facet", "facet"),
        ("final_norm", "final_norm"),
        ("token_norm", "token_norm"),
        ("framing", "framing"),
    ):
        fitted, here = prism.origin.get(key, TOKEN_DEFAULTS.get(key)), origin[key]
        if fitted == here:
            continue
        if isinstance(fitted, dict):
            key = next(name for name in here if fitted.get(name) != here[name])
            word, fitted, here = f"framing ({key})", fitted.get(key), here[key]
        raise PrismError(
            f"the prism was fitted with another {word}: {fitted}, now {here}; --force uses it anyway"
        )
