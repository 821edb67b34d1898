"""Photos -> Visualization, for people who want one call."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchprism import checks
from patchprism.backbones import Backbone, find_record, load_backbone
from patchprism.backbones.base import DTYPES, check_device, resolve_device
from patchprism.batching import bytes_for, free_memory
from patchprism.checks import apply_checks, optional
from patchprism.errors import OptionError, PhotoError, PrismError
from patchprism.extract import TOKEN_CHECKS, Photos, TokenOptions, check_batch_size, extract, photo_names
from patchprism.features import PatchFeatures
from patchprism.framing import DEFAULT_SIZE, FRAMING_CHECKS, MAX_SIZE, PRESETS, Framing
from patchprism.images import value_range
from patchprism.prism import MASK_OPTIONS, PRISM_CHECKS, Prism
from patchprism.reading import reading
from patchprism.visualization import Failure, Visualization
from patchprism.words import none_could

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from patchprism.backbones import BackboneRecord
    from patchprism.checks import Check

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
        preset = self.preset or "default"
        mean = record.mean if self.mean is None else self.mean
        std = record.std if self.std is None else self.std
        missing = [name for name, each in (("mean", mean), ("std", std)) if each is None]
        if missing and preset != "seed":
            raise OptionError(
                f"the files of {record.name} do not say how its photos are normalised (preprocessor_config.json is "
                f"missing): give {' and '.join(missing)}, as its authors state them (--mean R,G,B and --std R,G,B, of "
                "colours from 0 to 1)"
            )
        framing = Framing.preset(
            preset,
            size=DEFAULT_SIZE if self.size is None else self.size,
            patch_size=record.patch_size,
            mean=(0.5, 0.5, 0.5) if mean is None else mean,
            std=(0.5, 0.5, 0.5) if std is None else std,
        )
        given = {name: value for name in ("mean", "std") if (value := getattr(self, name)) is not None}
        check_memory(framing.size, record, self.device)
        return replace(framing, **given) if given else framing

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
        If it does not, by the estimate that batches are made by (:mod:`patchprism.batching`).
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

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def visualize(
    photos: Iterable[Any],
    *,
    model: str | None = None,
    weights: str | None = None,
    preset: str | None = None,
    size: int | None = None,
    range: tuple[float, float] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    threshold: float | str | None = None,
    foreground: str | None = None,
    foreground_component: int | None = None,
    scaling: str | None = None,
    components: tuple[int, int, int] | None = None,
    space: str | None = None,
    mask_threshold: float | None = None,
    mask_side: str | None = None,
    opening: int = 0,
    closing: int = 0,
    layer: int | Sequence[int] | None = None,
    facet: str | None = None,
    final_norm: bool | None = None,
    token_norm: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
    batch_size: int | None = None,
    prism: Prism | None = None,
    force: bool = False,
    backbone: Backbone | None = None,
    errors: str = "raise",
    fetch_from: Sequence[str] = (),
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Visualization:
    """Colour photos by the principal components of their patch features.

    Parameters
    ----------
    photos : iterable of path, PIL.Image.Image or array
        Files, folders and patterns among the paths; arrays as :func:`~patchprism.images.read_photo` takes them.
        One photo may come alone; an array of four dimensions is a photo a row.
        Or one feature store: no network is needed then, and the store settles model and framing.
    model : str, default="dinov2_vits14"
        A registered name.
    weights : str, optional
        File, address or ``hf:REPO``; by default looked for in the caches, then downloaded.
    preset : {"default", "seed"}
    size : int, default=448
        The photo's shorter edge as the network sees it, in pixels.
    range : (low, high), optional
        The values that are black and white in photos that do not hold 8 bits; see
        :func:`~patchprism.images.read_photo`. By default the prism's, where one is given.
    mean, std : sequence of three float, optional
        Normalisation of RGB in [0, 1]: ``(value - mean) / std``. By default the model's, or the preset's.
    threshold : float in [0, 1], "auto" or "otsu"
    foreground : {"auto", "object", "pca", "above", "below", "none"}
    foreground_component : {1, 2, 3}
    scaling : {"minmax", "percentile", "sigmoid"}
    components : tuple of three int
    space : {"rgb", "oklab"}
        See :class:`~patchprism.prism.Prism`. Defaults are the preset's: ``"auto"`` for both, or 0.6 and
        ``"above"`` of the seed.
    mask_threshold, mask_side, opening, closing
        Which patches are shown as foreground, without touching the fit; see
        :class:`~patchprism.prism.Prism`. They may be given beside a prism, and then replace its own.
    layer : int or sequence of int, default=-1
        Block whose tokens are taken, counted from 0, or from the end with negative numbers. The tokens of
        several blocks lie side by side.
    facet : {"token", "query", "key", "value"}
        What is taken of that block, where the model has it.
    final_norm : bool, default=True
        Whether the network's final norm is applied to the tokens, of earlier blocks too.
    token_norm : {"none", "l2"}
        ``"l2"`` gives each token unit length before anything is fitted.
    device, dtype : str
        See :func:`~patchprism.backbones.load_backbone`.
    batch_size : int, optional
        Photos a forward pass, at most. Colours do not depend on it.
    prism : Prism, optional
        Colour with this one instead of fitting. It brings its own model and framing.
    force : bool
        Use the prism even where model, weights, framing or dtype differ from those it was fitted on.
    backbone : Backbone, optional
        Use this one, already loaded, instead of ``model``, ``weights``, ``device`` and ``dtype``.
    errors : {"raise", "report"}
        What a photo that cannot be read does: raise, or be listed in ``failures`` while the others are done.
    fetch_from : sequence of str
        Buckets and hosts, like ``"s3://bucket"``, where photos that a feature store names by addresses are read,
        beside the one where the store itself lies.
    progress : callable, optional
        Called as ``progress(stage, done, total or None)``.

    Returns
    -------
    Visualization

    Raises
    ------
    PatchPrismError
        One of its children: an option, a photo, a model, its weights or the prism cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    >>> view = visualize([photo], model="efficientnet_lite2", size=64)
    >>> view.colors[0].shape
    (4, 6, 3)
    """
    errors = checks.choice("errors", errors, allowed=ERRORS)
    force = checks.flag("force", force)
    fetch_from = checks.texts("fetch_from", fetch_from)
    checks.callback("progress", progress)
    check_backbone("backbone", backbone)
    settings = Settings(
        model=backbone.record.name if backbone else model,
        weights=weights,
        preset=preset,
        size=size,
        range=range,
        mean=mean,
        std=std,
        threshold=threshold,
        foreground=foreground,
        foreground_component=foreground_component,
        scaling=scaling,
        components=components,
        space=space,
        mask_threshold=mask_threshold,
        mask_side=mask_side,
        opening=opening,
        closing=closing,
        layer=layer,
        facet=facet,
        final_norm=final_norm,
        token_norm=token_norm,
        device=device,
        dtype=str(backbone.dtype).removeprefix("torch.") if backbone else dtype,
        batch_size=batch_size,
    )
    if prism is not None and not isinstance(prism, Prism):
        checks.refuse("prism", "a Prism, as Prism.load reads one", prism)
    photos = several(photos)
    tell = progress or (lambda *_: None)
    from patchprism.inputs import store_among

    store = store_among(photos)
    if store is not None:
        if backbone is not None:
            raise OptionError("backbone is not needed with a feature store")
        from patchprism.streaming.view import view_store

        return view_store(
            store, settings=settings, prism=prism, force=force, fetch_from=fetch_from, tell=tell
        )
    if fetch_from:
        raise OptionError("fetch_from is for a feature store; photos that are named are read anyway")
    settings = settings.resolved(prism)
    watch = Stopwatch()
    # Everything that can be refused is refused before anything heavy is loaded.
    to_fit = None if prism else settings.prism()
    if prism:
        prism = with_mask(prism, settings.mask_options())
    options = settings.token_options()
    framing = settings.framing(backbone.record if backbone else find_record(str(settings.model)))
    with reading() as heard:
        sources = list_photos(photos)
    job = Photos(sources, photo_names(sources), range=settings.range)
    if backbone is None:
        tell("load model", 0, None)
        with watch("load model"):
            backbone = load_backbone(
                str(settings.model),
                weights=settings.weights,
                device=settings.device,
                dtype=settings.dtype or "auto",
                progress=tell,
            )
        tell("load model", 1, 1)
    origin = describe_origin(backbone, settings, framing)
    if prism and not force:
        check_origin(prism, origin)
    failures: dict[int, PhotoError] = {}
    done: dict[int, Any] = {}
    with watch("read photos and run network"):
        report = failures.__setitem__ if errors == "report" else None
        for each in extract(job, backbone, framing, batch_size=batch_size, failed=report, options=options):
            done[each.index] = each
            tell("photos", len(done) + len(failures), len(job))
    failed = [Failure(job.names[i], failures[i].reason) for i in sorted(failures)]
    if not done:
        raise PhotoError(
            failed[0].photo,
            none_could(failed[0].reason, len(failed)),
        )
    order = sorted(done)
    features = PatchFeatures([done[i].tokens for i in order], [job.names[i] for i in order])
    if to_fit:
        with watch("fit prism"):
            prism = to_fit.fit(features)
        prism.origin = origin
    assert prism is not None
    with watch("colour"):
        parts = [
            prism.split(tokens, name=name) for name, tokens in zip(features.names, features, strict=True)
        ]
    return Visualization(
        photos=job.subset(order),
        framing=framing,
        features=features,
        prism=prism,
        parts=parts,
        crops=[done[i].crop for i in order],
        sizes=[done[i].size for i in order],
        record=backbone.record,
        weights=backbone.weights,
        settings=asdict(settings) | {"device": str(backbone.device), "dtype": origin["dtype"]},
        fitted_here=to_fit is not None,
        failures=failed,
        seconds=watch.seconds,
        origin=origin,
        plain=[job.names[i] for i in order if done[i].plain],
        notes=heard.notes,
    )


def several(photos: Any) -> Sequence[Any]:
    """What was given as photos, as a sequence: one that came alone, too, and what can be gone through only once.

    Raises
    ------
    OptionError
        If it is nothing of the kind.
    """
    from PIL import Image

    alone = (str, os.PathLike, bytes, bytearray, Image.Image)
    if isinstance(photos, alone) or hasattr(photos, "read") or getattr(photos, "ndim", 1) in (2, 3):
        return [as_text(photos)]
    wanted = "photos must be paths, images or arrays"
    if isinstance(photos, Mapping):
        raise OptionError(f"{wanted}, got {type(photos).__name__}: pass its values", option="photos")
    if isinstance(photos, Set):
        # The order of the photos decides names of files, and the last bit of the colours.
        raise OptionError(
            f"{wanted} in an order, which a {type(photos).__name__} has not: sort them", option="photos"
        )
    try:
        members = iter(photos)
    except TypeError:
        raise OptionError(f"{wanted}, got {type(photos).__name__}", option="photos") from None
    return [as_text(photo) for photo in members]


def as_text(photo: Any) -> Any:
    """A photo's path as text, where it is a path object of bytes; anything else as it is."""
    if isinstance(photo, os.PathLike) and isinstance(os.fspath(photo), bytes):
        return os.fsdecode(photo)
    return photo


def list_photos(photos: Sequence[Any]) -> list[Any]:
    """Photos with folders and patterns among the paths replaced by the files they mean, each once.

    Of what folders and patterns bring, files that an earlier job wrote are left out.
    """
    from patchprism.folders import is_remote, local_path
    from patchprism.paths import find_photos

    if isinstance(photos, (str, os.PathLike)):
        photos = [photos]
    listed: list[Any] = []
    seen: set[Any] = set()
    for photo in photos:
        if not isinstance(photo, (str, os.PathLike)):
            listed.append(photo)
            continue
        if is_remote(photo):
            raise PhotoError(
                os.fspath(photo),
                "addresses are read by render, fit and features; copy the photo to this machine",
            )
        for path in find_photos([local_path(photo)]):
            key = Path(os.path.realpath(path))  # Path.resolve raises on links that go in circles
            if key not in seen:
                seen.add(key)
                listed.append(path)
    if not listed:
        raise PhotoError("photos", "none were given")
    return listed


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
    prism = copy.copy(prism)
    for name, value in changed.items():
        setattr(prism, name, value)
    prism.check_options()
    return prism


def check_backbone(name: str, value: Any) -> None:
    """Refuse what is no backbone."""
    if value is not None and not isinstance(value, Backbone):
        checks.refuse(name, "a Backbone, as load_backbone gives one", value)


def describe_origin(backbone: Backbone, settings: Settings, framing: Framing) -> dict[str, Any]:
    """What features depend on, as a prism keeps it: JSON values."""
    return {
        "model": backbone.record.name,
        "weights_source": backbone.weights.source,
        "weights_sha256": backbone.weights.sha256,
        **({"weights_taken_from": taken} if (taken := backbone.weights.taken_from) else {}),
        "preset": settings.preset,
        "framing": framing.to_dict(),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        **({"range": list(settings.range)} if settings.range else {}),
        **settings.token_options().origin(backbone),
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
