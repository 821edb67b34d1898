"""The network of a job: what is known about it, and how it is loaded where it is needed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from patchprism.backbones import Identity, find_record, load_backbone
from patchprism.backbones.catalog import EMBEDDED_MODEL
from patchprism.backbones.choice import choose_model, explain_choice
from patchprism.backbones.devices import cpu_flags, resolve_device, resolve_dtype
from patchprism.backbones.weights import obtain_weights
from patchprism.features.batching import patches_for, patches_per_batch
from patchprism.jobs.cost import explain_cost
from patchprism.jobs.run import no_progress
from patchprism.jobs.settings import describe_origin
from patchprism.support.memory import free_memory
from patchprism.support.reading import Note

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchprism.backbones import Backbone, BackboneRecord, WeightsOrigin
    from patchprism.features.options import TokenOptions
    from patchprism.jobs.coloring import Coloring
    from patchprism.jobs.engines import Engine
    from patchprism.jobs.run import Run, Tell
    from patchprism.jobs.settings import Settings
    from patchprism.photos.framing import Framing
    from patchprism.support.folders import Folder

# File in a work folder with the name of the network.
MODEL_FILE = "model.json"
NETWORK_STAGE = "read photos and run network"
# If the network takes longer than this many seconds, a faster dtype is suggested.
_LONG_S = 60
# Features of processors, by their Linux names, that make bfloat16 fast.
_AMX, _AMD = "amx_bf16", {"AuthenticAMD", "avx512_bf16"}


@dataclass(frozen=True)
class Network:
    """A backbone that is known, but not loaded yet.

    Attributes
    ----------
    record, weights, framing
        Record and weights of the backbone, and framing of photos for it.
    origin : dict
        Values that a prism keeps.
    load : callable
        Returns the backbone; can be pickled unless the backbone is already loaded.
    batch_patches : int or None
        Patches per batch on this machine; None if each worker determines it.
    options : TokenOptions
        Which tokens of the backbone are used.
    settings : dict
        Every setting that tokens may depend on.
    """

    record: BackboneRecord
    weights: WeightsOrigin
    framing: Framing
    origin: dict[str, Any]
    load: Callable[[], Backbone]
    batch_patches: int | None
    options: TokenOptions
    settings: dict[str, Any]


def with_model(settings: Settings, run: Run, coloring: Coloring, *, kept: str = "") -> Settings:
    """The same settings with a model: if none is named, that of the run's backbone, or one that is available.

    Parameters
    ----------
    settings : Settings
    run : Run
        Gets a note if another network than the usual one was chosen.
    coloring : Coloring
        Its prism or head determines the model.
    kept : str
        Name of the network of the run that is resumed; empty if there is none.
    """
    if settings.model or settings.weights or coloring.model:
        return settings
    if run.backbone is not None:
        return replace(settings, model=run.backbone.record.name)
    model = kept if kept == EMBEDDED_MODEL else choose_model()
    if said := explain_choice(model):
        run.notes.append(Note("", said))
    return replace(settings, model=model)


def notes_on_network(run: Run, weights: WeightsOrigin) -> list[Note]:
    """Notes about the network of a job: how it was chosen, and the terms of downloaded weights."""
    return [*run.notes, *([Note("", weights.notice)] if weights.notice else [])]


def warn_of_cost(network: Network, run: Run, n_photos: int) -> None:
    """Warn, before the network runs, of a job whose network takes many times as long as by default."""
    text = explain_cost(network.framing, network.record, network.options.tile, n_photos)
    if text:
        run.warn(text)


def about_dtype(run: Run, dtype: str, device: str | None, *, seconds: float | None = None) -> list[Note]:
    """Notes about the speed of a network that has run on this machine's CPU.

    Parameters
    ----------
    run : Run
        Its stopwatch tells how long the network took.
    dtype : str
        ``"float32"``, ``"bfloat16"`` or ``"float16"``.
    device : str or None
        Where it ran.
    seconds : float, optional
        How long the network took, if the stopwatch has no stage for it.
    """
    if device != "cpu" or not run.engine.local:
        return []
    if dtype == "float16":
        # Measured with a ViT-S/14: 5 times slower on one processor, 31 times on another (with AVX-512 BF16, no AMX).
        text = "dtype float16 is for GPUs: on CPUs it is no faster than float32, and on some it is 30 times slower"
        return [Note("", text)]
    what = "running the network"
    if seconds is None:
        what, seconds = "reading photos and running the network", run.watch.seconds.get(NETWORK_STAGE, 0.0)
    flags = cpu_flags() if dtype == "bfloat16" or seconds > _LONG_S else frozenset()
    # With AVX-512 BF16, AMD's processors take 0.77 of float32's time: too little to suggest it, too much to advise
    # against it.
    if dtype == "bfloat16" and flags and _AMX not in flags and not flags >= _AMD:
        return [Note("", "dtype bfloat16 is hardly faster than float32 on this CPU, which has no AMX")]
    if dtype == "float32" and _AMX in flags:
        text = (
            f"{what} took {seconds:,.0f} s; on this CPU, which has AMX, a ViT runs about 3 times as fast "
            "with dtype='bfloat16', and its tokens change slightly"
        )
        return [Note("", text)]
    return []


def kept_model(work: Folder) -> str:
    """Name of the network of the unfinished run in this folder; empty if there is none."""
    try:
        found = json.loads(work.read(MODEL_FILE))
        return str(found["model"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def load_network(settings: Settings, tell: Tell, *, download: bool = True) -> Backbone:
    """The backbone that resolved settings name, loaded."""
    tell("load model", 0, None)
    loaded = load_backbone(
        str(settings.model),
        weights=settings.weights,
        device=settings.device,
        dtype=settings.dtype or "auto",
        progress=tell,
        download=download,
    )
    tell("load model", 1, 1)
    loaded.check_overlap(settings.framing(loaded.record))
    return loaded


def open_network(settings: Settings, *, backbone: Backbone | None, engine: Engine, tell: Tell) -> Network:
    """The network that resolved settings name. Its weights are found or downloaded; workers load it."""
    if backbone is not None:
        framing = settings.framing(backbone.record)
        backbone.check_overlap(framing)
        settings = settings.fitting(framing, backbone.record)
        # Values that the model does not provide were given by the user, and are kept with the tokens.
        record = replace(
            backbone.record,
            mean=backbone.record.mean or framing.mean,
            std=backbone.record.std or framing.std,
        )
        origin = describe_origin(backbone.identity, settings, framing)
        patches = patches_per_batch(backbone) if engine.local else None
        return Network(
            record,
            backbone.weights,
            framing,
            origin,
            partial(_same, backbone),
            patches,
            settings.token_options(),
            _token_settings(settings, engine),
        )
    load = partial(load_network, settings, no_progress)
    if ":" in str(settings.model) or settings.weights is not None:
        # Only the loaded network knows the values of adapters and of a user's files.
        opened = open_network(settings, backbone=load_network(settings, tell), engine=engine, tell=tell)
        return opened if engine.local else replace(opened, load=load)
    record = find_record(str(settings.model))
    framing = settings.framing(record)
    settings = settings.fitting(framing, record)
    options, of_tokens = settings.token_options(), _token_settings(settings, engine)
    dtype = resolve_dtype(settings.dtype or "auto")
    weights = obtain_weights(record, settings.weights, progress=tell)
    known = Identity(record=record, weights=weights, dtype=str(dtype).removeprefix("torch."))
    origin = describe_origin(known, settings, framing)
    if not engine.local:
        return Network(record, weights, framing, origin, load, None, options, of_tokens)
    device = resolve_device(settings.device)
    if device.type == "cuda":
        loaded = load_network(settings, tell)
        patches = patches_per_batch(loaded)
        return Network(record, weights, framing, origin, partial(_same, loaded), patches, options, of_tokens)
    patches = patches_for(record, kind=device.type, itemsize=dtype.itemsize, free=free_memory())
    return Network(record, weights, framing, origin, load, patches, options, of_tokens)


def _token_settings(settings: Settings, engine: Engine) -> dict[str, Any]:
    found = settings.for_tokens()
    if engine.local:  # the meaning of "auto", which only the workers of another engine know
        found["device"] = resolve_device(settings.device).type
    return found


def _same(backbone: Backbone) -> Backbone:
    return backbone
