"""Settings of a job, which determine its colours, with all checks and defaults."""

from __future__ import annotations

import copy
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from patchprism.backbones.catalog import DEFAULT_MODEL, EMBEDDED_MODEL, RECORDS
from patchprism.errors import HeadError, OptionError, PrismError
from patchprism.features.batching import bytes_for
from patchprism.features.options import DEFAULT_TILE, TokenOptions, check_batch_size
from patchprism.photos.framing import DEFAULT_SIZE, PRESETS, Framing, check_range
from patchprism.prism.options import DEFAULTS, FIT_OPTIONS, MASK_OPTIONS, PrismOptions
from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.memory import free_memory
from patchprism.support.options import INPUT, MODEL, Checked, left_open, numbers, option, same

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patchprism.backbones import BackboneRecord, Identity
    from patchprism.prism.estimator import Prism
    from patchprism.prism.head import Head


ERRORS = ("raise", "report")


# Values of the presets for options that the user leaves out; those of the framing are in Framing.preset.
PRESET_OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "seed": {"threshold": 0.6, "foreground": "above"},
}


# A prism that does not record these options was fitted with their defaults.
TOKEN_DEFAULTS = asdict(TokenOptions())


@dataclass(frozen=True, kw_only=True)
class Settings(Checked):
    """Settings that determine the colours of a job. ``None`` means the value of the preset or of a given prism.

    Attributes are those of :func:`visualize` with the same names.
    """

    preset: str | None = option(
        None,
        check=optional(partial(checks.choice, allowed=PRESETS)),
        metavar="default|seed",
        help="Set of defaults: default keeps each photo's shape and finds the foreground by itself; "
        "seed repeats the DINOv2 blog post (square crop, foreground above a score of 0.6).",
        panel=INPUT,
    )
    size: int | None = left_open(Framing, "size")
    stride: int | None = left_open(Framing, "stride")
    range: tuple[float, float] | None = option(
        None,
        check=check_range,
        metavar="LOW,HIGH",
        help="Values shown as black and white, for photos with more than 8 bits; for example 0,4095 "
        "for 12-bit values in a 16-bit file. Default: the whole range of the file's number "
        "format, or the prism's range.",
        panel=INPUT,
        parse=numbers("two numbers like 0,4095", count=2),
    )
    mean: Sequence[float] | None = left_open(Framing, "mean")
    std: Sequence[float] | None = left_open(Framing, "std")
    model: str | None = option(
        None,
        check=optional(checks.text),
        flag="--model -m",
        metavar="NAME",
        help="Model: a name from `patchprism models`, hf:REPO, hf:FOLDER or timm:NAME. A prism, head "
        f"or feature store brings its own model. {EMBEDDED_MODEL} is used if the default cannot "
        f"be downloaded. Default: {DEFAULT_MODEL}.",
        panel=MODEL,
    )
    weights: str | None = option(
        None,
        check=optional(checks.path),
        metavar="FILE|URL|hf:REPO",
        help="File, URL or Hugging Face repository to load the weights from. Default: the local "
        "cache, then the official address.",
        panel=MODEL,
    )
    layer: int | Sequence[int] | None = left_open(TokenOptions, "layer")
    facet: str | None = left_open(TokenOptions, "facet")
    final_norm: bool | None = left_open(TokenOptions, "final_norm")
    token_norm: str | None = left_open(TokenOptions, "token_norm")
    tile: int | None = left_open(TokenOptions, "tile")
    refine: int | None = left_open(TokenOptions, "refine")
    device: str = option(
        "auto",
        check=checks.device,
        metavar="auto|cpu|cuda|mps",
        help="Device to run the model on; auto uses a GPU if there is one.",
        panel=MODEL,
    )
    dtype: str | None = option(
        None,
        check=optional(partial(checks.dtype, allowed=checks.DTYPES)),
        metavar="auto|float32|bfloat16|float16",
        help="Number format of the model's computations; auto is float32.",
        panel=MODEL,
    )
    batch_size: int | None = option(
        None,
        check=check_batch_size,
        metavar="N",
        help="Maximum batch size. It does not change the colours.",
        panel=MODEL,
    )
    threshold: float | str | None = left_open(PrismOptions, "threshold")
    foreground: str | None = left_open(PrismOptions, "foreground")
    foreground_component: int | None = left_open(PrismOptions, "foreground_component")
    scaling: str | None = left_open(PrismOptions, "scaling")
    components: tuple[int, int, int] | None = left_open(PrismOptions, "components")
    space: str | None = left_open(PrismOptions, "space")
    mask_threshold: float | None = same(PrismOptions, "mask_threshold")
    mask_side: str | None = same(PrismOptions, "mask_side")
    opening: int = same(PrismOptions, "opening")
    closing: int = same(PrismOptions, "closing")

    def resolved(
        self, prism: Prism | None = None, *, head: Head | None = None, record: BackboneRecord | None = None
    ) -> Settings:
        """The same settings with every choice made.

        Options that are left open get the model, tokens, framing and dtype of the prism or the head. Options of the
        fit cannot be changed if a prism is given. The default layer is in ``record``, the record of a loaded backbone,
        or else in that of the model.

        Raises
        ------
        OptionError
            If a preset is not known, or an option of the fit is given together with a prism.
        """
        origin = prism.origin if prism else head.origin if head else {}
        if prism:
            for name in FIT_OPTIONS:
                if getattr(self, name) is not None:
                    raise OptionError(f"{name} is fixed by the prism; fit again to change it")
        preset = self.preset or origin.get("preset") or "default"
        open_to = FIT_OPTIONS | PRESET_OPTIONS[preset]
        model = self.model or origin.get("model") or (record.name if record else DEFAULT_MODEL)
        known = record or RECORDS.get(model)
        tokens = TOKEN_DEFAULTS | ({"layer": known.layer} if known else {})
        open_to |= {name: origin.get(name, default) for name, default in tokens.items()}
        # Framing options are those of the prism or head, unless another model or preset is requested.
        alike = self.model in (None, origin.get("model")) and self.preset in (None, origin.get("preset"))
        framed: dict[str, Any] = origin.get("framing", {}) if alike else {}
        return replace(
            self,
            stride=framed.get("stride") if self.stride is None else self.stride,
            mean=framed.get("mean") if self.mean is None else self.mean,
            std=framed.get("std") if self.std is None else self.std,
            model=model,
            preset=preset,
            size=origin.get("framing", {}).get("size") or DEFAULT_SIZE if self.size is None else self.size,
            range=self.range or _range_of(origin),
            dtype=self.dtype or origin.get("dtype") or "auto",
            **{name: value for name, value in open_to.items() if getattr(self, name) is None},
        )

    def for_tokens(self) -> dict[str, Any]:
        """Every setting that tokens may depend on: all but the options of the prism."""
        return {name: value for name, value in asdict(self).items() if name not in DEFAULTS}

    def token_options(self) -> TokenOptions:
        """The options of the backbone's tokens, once resolved; they are checked."""
        return TokenOptions(**{name: getattr(self, name) for name in TOKEN_DEFAULTS})

    def framing(self, record: BackboneRecord) -> Framing:
        """The framing for a backbone, once resolved.

        Raises
        ------
        OptionError
            If an option is not allowed, a stride and a refinement together make a grid finer than the pixels, or mean
            and deviation are neither given nor known for the model.
        """
        framing = record.framing(
            size=self.size,
            preset=self.preset or "default",
            mean=self.mean,
            std=self.std,
            stride=self.stride,
        )
        if framing.stride is not None and (self.refine or 1) > framing.stride:
            raise OptionError(
                f"refine {self.refine} with stride={framing.stride} makes a grid that is finer than the pixels; choose "
                "a smaller refine or a larger stride",
                option="refine",
            )
        check_memory(framing, record, self.device, self.fitting(framing, record).tile)
        return framing

    def fitting(self, framing: Framing, record: BackboneRecord) -> Settings:
        """The same settings with a tile, if none was chosen and a square photo would not fit into the memory."""
        if self.tile is not None or framing.size <= DEFAULT_TILE:
            return self
        from patchprism.backbones.devices import resolve_device

        needed = bytes_for(framing.size * framing.enlargement, record)
        if needed <= free_memory() or resolve_device(self.device).type != "cpu":
            return self
        return replace(self, tile=DEFAULT_TILE)

    def prism(self) -> Prism:
        """The prism to fit, once resolved; its options are checked."""
        from patchprism.prism.estimator import Prism

        prism = Prism(
            # The seed's script used scikit-learn's signs, also in near ties.
            signs="largest" if self.preset == "seed" else "stable",
            **{name: value for name in FIT_OPTIONS if (value := getattr(self, name)) is not None},
            **self.mask_options(),
        )
        prism.check_fit()
        return prism

    def mask_options(self) -> dict[str, Any]:
        """The options of a prism that do not affect its fit."""
        return {name: getattr(self, name) for name in MASK_OPTIONS}


def check_memory(framing: Framing, record: BackboneRecord, device: str, tile: int | None) -> None:
    """Refuse a size, a stride or a tile at which not even one square photo fits into this machine's memory.

    Raises
    ------
    OptionError
        If it does not, by the estimate that also determines batches (:mod:`patchprism.features.batching`).
    """
    from patchprism.backbones.devices import resolve_device

    free, size = free_memory(), framing.size * framing.enlargement
    window = size if tile is None else min(tile * framing.enlargement, size)
    needed = bytes_for(window, record)
    if window < size:  # the pixels and the tokens of the whole photo are held as well
        needed += 4 * (3 * size**2 + (size // framing.patch_size) ** 2 * record.width)
    # torch is imported to find the device only if much memory is needed; a GPU has its own memory.
    if needed > free and resolve_device(device).type == "cpu":
        stride = f" with stride {framing.stride}" if framing.stride else ""
        raise OptionError(
            f"size {framing.size}{stride} needs about {needed / 1e9:,.0f} GB of memory for one photo, and "
            f"{free / 1e9:,.1f} GB are free; choose a smaller size{' or a larger stride' if stride else ''}",
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
    """A prism that shows another foreground, if an option requests it; the fit is shared.

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
    """Refuse anything that is not a backbone."""
    from patchprism.backbones import Backbone

    if value is not None and not isinstance(value, Backbone):
        checks.refuse(name, "a Backbone, as load_backbone gives one", value)


def describe_origin(network: Identity, settings: Settings, framing: Framing) -> dict[str, Any]:
    """Everything that features depend on, as JSON values, in the format of a prism's ``origin``."""
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
        return check_range("range", origin.get("range"))  # type: ignore[no-any-return]
    except OptionError as error:
        raise PrismError(f"the prism is damaged: {error}") from error


# The keys of ``origin`` that a prism and a head keep, and their names in messages.
_TOKENS = (
    ("model", "model"),
    ("weights_sha256", "weights"),
    ("layer", "layer"),
    ("facet", "facet"),
    ("final_norm", "final_norm"),
    ("token_norm", "token_norm"),
)


def check_origin(prism: Prism, origin: dict[str, Any]) -> None:
    """Refuse a prism that was fitted on other features than these.

    Raises
    ------
    PrismError
        If model, weights, dtype, tokens or framing differ; the message names the first that does.
    """
    keys = (*_TOKENS[:2], ("dtype", "dtype"), *_TOKENS[2:], ("tile", "tile"), ("refine", "refine"))
    differs = _difference(prism.origin, origin, keys, framing=None)
    if differs:
        raise PrismError(f"the prism was fitted with another {differs}; force=True uses it anyway")


def check_head(head: Head, origin: dict[str, Any]) -> None:
    """Refuse a head that was taught with other tokens. Photos of another size are allowed.

    Raises
    ------
    HeadError
        If model, weights, tokens, or the normalisation of pixels differ; the message names the first that does.
    """
    differs = _difference(head.origin, origin, _TOKENS, framing=("mean", "std"))
    if differs:
        raise HeadError(f"the head was taught with another {differs}; force=True uses it anyway")


def is_taught_on(head: Head, origin: dict[str, Any]) -> bool:
    """Whether a head was taught with tokens of this origin."""
    return not head.origin or not _difference(head.origin, origin, _TOKENS, framing=("mean", "std"))


def _difference(
    fitted_on: dict[str, Any],
    origin: dict[str, Any],
    keys: Sequence[tuple[str, str]],
    *,
    framing: tuple[str, ...] | None,
) -> str:
    """The first difference between two origins. ``framing`` names the framing options to compare; None means all."""
    if not fitted_on:
        return ""  # fitted on the user's own features, about which nothing is recorded
    for key, word in keys:
        fitted, here = (each.get(key, TOKEN_DEFAULTS.get(key)) for each in (fitted_on, origin))
        if fitted != here:
            return f"{word}: {fitted}, now {here}"
    fitted, here = fitted_on.get("framing"), origin["framing"]
    if not isinstance(fitted, dict):
        return "" if fitted == here else f"framing: {fitted}, now {here}"
    for key in here | fitted if framing is None else framing:
        if fitted.get(key) != here.get(key):
            # Without a stride, patches do not overlap: the stride is the patch size.
            usual = "patch_size" if key == "stride" else key
            was, now = (
                each.get(usual) if each.get(key) is None else each.get(key) for each in (fitted, here)
            )
            return f"framing ({key}): {was}, now {now}"
    return ""
