"""Visualization -> message."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.explorer.message import (
    VERSION,
    CommandInfo,
    FitInfo,
    Header,
    MaskInfo,
    Message,
    PcaInfo,
    PhotoInfo,
    RangeInfo,
    TokensInfo,
)
from patchprism.explorer.reduced import OFFSET_STEP, TOLERANCE
from patchprism.explorer.spectrum import BANDS
from patchprism.explorer.tokens import (
    NORM_STEP,
    Known,
    known_axes,
    known_values,
    log_norms,
    reduce_tokens,
)
from patchprism.fitting import ObjectHistogram, ObjectRange
from patchprism.prism import grid_steps
from patchprism.prism_file import prism_bytes
from patchprism.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from patchprism.fitting import PassT
    from patchprism.prism import Prism
    from patchprism.visualization import Visualization

# A photo in the page: about the resolution that the network saw, in few enough bytes that ten make 300 kB.
PREVIEW_BYTES = 24_000
PREVIEW_LONGEST = 1400
# The message of ten photos: as text, with the page around it, 1.92 MB. Tokens take what the rest leaves.
PAGE_BYTES = 1_575_000
FULL_PAGE = 10
LEAST_PHOTO_BYTES = 40_000
_QUALITIES = (80, 70, 60, 50, 40, 30)


def build_message(
    view: Visualization,
    *,
    title: str | None = None,
    prism_path: str | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Message:
    """All that the page needs to show a visualization.

    Parameters
    ----------
    view : Visualization
    title : str, optional
        By default the photos' number and the model.
    prism_path : str, optional
        The prism's file, where it was not fitted on these photos; for the command.
    progress : callable, optional
        Called as ``progress(stage, done, total)``; may raise to stop the work.

    Returns
    -------
    Message
    """
    from patchprism import __version__

    tell = progress or (lambda *_: None)
    title = title or f"{counted(len(view), 'photo')} through {view.record.name}"
    prism, record = view.prism, view.record
    scene_steps, object_steps = grid_steps(prism.scene_variance_), grid_steps(prism.object_variance_)
    # The object PCA of all patches, not of the foreground alone: the page's mask may be any.
    scene = np.concatenate([_rows(prism.scene_components(tokens)) for tokens in view.features])
    object_ = np.concatenate([prism.object_components(_rows(tokens)) for tokens in view.features])
    summary = prism.summary()
    photos = [
        PhotoInfo(
            name=Path(name).name, source=name, size=list(size), grid=list(part.score.shape), crop=list(crop)
        )
        for name, size, part, crop in zip(view.names, view.sizes, view.parts, view.crops, strict=True)
    ]
    low, high = prism.score_range_
    header = Header(
        version=VERSION,
        patchprism=__version__,
        title=title.encode("utf-8", "replace").decode(),  # a shell's bytes may be no text
        model={
            "name": record.name,
            "width": record.width,
            "patch_size": record.patch_size,
            "weights": view.weights.source,
        },
        fit=FitInfo(
            fitted_here=view.fitted_here,
            threshold=summary["threshold"],
            threshold_from=summary["threshold_from"],
            side=prism.side_,
            side_reason=summary["side_reason"],
            scaling=prism.scaling,
            components=list(prism.components),
            space=prism.space,
            n_foreground=prism.n_foreground_,
        ),
        mask=MaskInfo(
            threshold=prism.mask_threshold,
            side=prism.mask_side,
            opening=prism.opening,
            closing=prism.closing,
        ),
        scene=_pca(prism.scene_ratio_, prism.scene_variance_, scene_steps),
        object=_pca(prism.object_ratio_, prism.object_variance_, object_steps),
        # What is without variance scores 0.5: low and high are then the same.
        score=[float(low), float(high if prism.scene_variance_[0] else low)],
        ranges=_ranges(view),
        all_range=_range(prism.all_range_),
        tokens=TokensInfo(
            dims=0,
            width=view.features.width,
            offset_step=OFFSET_STEP,
            norm_step=NORM_STEP,
            tolerance=TOLERANCE,
            bands=[edge * edge for edge in BANDS],
            shrink=[],
            error={},
        ),
        photos=photos,
        failures=[{"photo": Path(f.photo).name, "reason": f.reason} for f in view.failures],
        command=_command(view, prism_path),
    )
    message = Message(header)
    message.add("prism", "deflate", prism_bytes(prism))
    for i in range(len(view)):
        message.add(f"photo-{i}", "raw", preview(view, i))
        tell("page", i + 1, len(view))
    tell("similarity", 0, None)
    scene_codes, object_codes = _codes(scene, scene_steps), _codes(object_, object_steps)
    _add_tokens(message, view, np.concatenate([scene_codes, object_codes]))
    return message


def _add_tokens(message: Message, view: Visualization, codes: NDArray[np.int64]) -> None:
    """Components, and tokens in as many bytes as the page has left."""
    prism, header = view.prism, message.header
    tokens = list(view.features)
    axes, turn = known_axes(np.concatenate([prism.scene_components_, prism.object_components_]))
    shift = np.concatenate(
        [prism.scene_components_ @ prism.scene_mean_, prism.object_components_ @ prism.object_mean_]
    ).astype(np.float32)
    norms = log_norms(tokens)
    steps = np.array(header["scene"]["step"] + header["object"]["step"])
    known = Known(known_values(codes * steps[:, np.newaxis], shift, turn, norms), axes)
    # In one: the object PCA's coordinates are told in part by the scene PCA's, and the norms by both.
    message.add("components", "rows", np.concatenate([codes, norms[np.newaxis]]))
    message.add("known", "float32", np.concatenate([shift[np.newaxis], turn]))
    used = sum(len(content) for _, _, content in message.parts.values())
    allowed = PAGE_BYTES * max(len(view), FULL_PAGE) / FULL_PAGE - used
    # Never so coarse that the heat map would be noise, however long the prism.
    reduced = reduce_tokens(tokens, known, allowed=max(allowed, LEAST_PHOTO_BYTES * len(view)))
    message.add("offsets", "rows", np.rint(reduced.offset / OFFSET_STEP)[np.newaxis])
    told = header["tokens"]
    told["dims"], told["shrink"], told["error"] = len(reduced.steps), reduced.shrink.tolist(), reduced.error
    codes_, classes = reduced.coded()
    message.add("token-classes", "deflate", reduced.classes.tobytes())
    message.add("token-steps", "float32", reduced.steps)
    message.add("tokens", "codes", codes_, classes=classes)
    corrections, kinds = reduced.coded_corrections()
    message.add("corrections", "codes", corrections, classes=kinds)


def preview(view: Visualization, index: int) -> bytes:
    """A photo as WebP, its crop at about the resolution that the network saw."""
    from PIL import Image

    photo = view.photos.read(index)
    height, width = photo.shape[:2]
    left, top, right, bottom = view.crops[index]
    rows, columns = view.parts[index].score.shape
    patch = view.record.patch_size
    scale = min(
        1.0,
        max(rows * patch / (bottom - top), columns * patch / (right - left)),
        PREVIEW_LONGEST / max(height, width),
    )
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(photo)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    content = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=4)
        content = buffer.getvalue()
        if len(content) <= PREVIEW_BYTES:
            break
    return content


def _rows(array: NDArray[Any]) -> NDArray[Any]:
    return array.reshape(-1, array.shape[-1])


def _codes(values: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Values (N, k) that are multiples of steps (k,), as those multiples, (k, N)."""
    return np.rint(values / np.where(steps > 0, steps, 1.0)).astype(np.int64).T


def _pca(ratio: NDArray[np.float64], variance: NDArray[np.float64], steps: NDArray[np.float64]) -> PcaInfo:
    return {"explained": ratio.tolist(), "deviation": np.sqrt(variance).tolist(), "step": steps.tolist()}


def _range(extent: NDArray[np.float64]) -> RangeInfo:
    return {"low": extent[0].tolist(), "high": extent[1].tolist()}


def _ranges(view: Visualization) -> dict[str, RangeInfo]:
    """The object components' ranges under both scalings that have one.

    The prism knows one of them; the other is what a fit on these photos would have found.
    """
    prism: Prism = view.prism

    def walk(make: Callable[[], PassT]) -> PassT:
        made = make()
        for tokens in view.features:
            made.update(tokens)
        return made

    own = "percentile" if prism.scaling == "percentile" else "minmax"
    ranges = {own: prism.object_range_}
    extent = walk(lambda: ObjectRange(prism)).extent
    if not np.isfinite(extent.low).all():  # a prism from elsewhere that finds no foreground here
        other = prism.object_range_
    elif own == "percentile":
        other = np.stack([extent.low, extent.high])
    else:
        histogram = walk(lambda: ObjectHistogram(prism, extent))
        other = np.stack([histogram.percentile(1), histogram.percentile(99)])
    ranges["minmax" if own == "percentile" else "percentile"] = other
    return {name: _range(value) for name, value in sorted(ranges.items())}


def _command(view: Visualization, prism_path: str | None) -> CommandInfo:
    from patchprism.pipeline import TOKEN_DEFAULTS

    settings = view.settings
    # A store has settled all that concerns the network.
    if view.store is not None:
        return _command_of(view, prism_path, [])
    options = [["--model", str(settings["model"])]]
    if settings.get("weights"):
        options.append(["--weights", str(settings["weights"])])
    options += [["--preset", str(settings["preset"])], ["--size", str(settings["size"])]]
    if settings.get("dtype") not in (None, "auto", "float32"):
        options.append(["--dtype", str(settings["dtype"])])
    for name, flag in (("layer", "--layer"), ("facet", "--facet"), ("token_norm", "--norm")):
        value = settings.get(name)
        if value not in (None, TOKEN_DEFAULTS[name]):
            # One word: a layer counted from the end looks like an option of its own.
            text = value if isinstance(value, (int, str)) else ",".join(map(str, value))
            options.append([f"{flag}={text}"])
    if settings.get("final_norm") is False:
        options.append(["--no-norm"])
    return _command_of(view, prism_path, options)


def _command_of(view: Visualization, prism_path: str | None, options: list[list[str]]) -> CommandInfo:
    prism = view.prism
    files = all(isinstance(source, (str, os.PathLike)) for source in view.photos.sources)
    return {
        "input": view.store,
        "options": options,
        "threshold": "otsu" if prism.threshold == "otsu" else repr(float(prism.threshold)),
        "foreground": prism.foreground,
        "prism": None if view.fitted_here else prism_path or "prism.safetensors",
        # Photos that came as arrays have no file that a command could name.
        "files": view.store is not None or files,
    }
