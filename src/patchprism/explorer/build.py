"""Builds the message of a view."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import PrismError
from patchprism.explorer.layers import layers_info
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
from patchprism.explorer.tokens import TOLERANCE, reduce_tokens
from patchprism.lenses.clusters import AUTO_COUNTS
from patchprism.pictures.palette import class_colors
from patchprism.prism.axes import GRID, grid_steps
from patchprism.prism.passes import ObjectHistogram, ObjectRange
from patchprism.support.arrays import to_uint8
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from patchprism.jobs.view import View
    from patchprism.prism.estimator import Prism
    from patchprism.prism.passes import PassT

# Photos in the page have about the resolution that the network saw, and ten of them take at most 240 kB.
PREVIEW_BYTES = 24_000
PREVIEW_LONGEST = 1400
# The head that the page saves; page/head.js has the same name.
HEAD_NAME = "taught.head.safetensors"
MAX_CODE = 1 << 30  # components are sent as int32
_QUALITIES = (80, 70, 60, 50, 40, 30)


def build_message(
    view: View,
    *,
    title: str | None = None,
    prism_path: str | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
    photos: bool = True,
) -> Message:
    """The message with everything that the page needs to show a view.

    Parameters
    ----------
    view : View
    title : str, optional
        By default, the number of photos and the model.
    prism_path : str, optional
        File of the prism for the command, if it was not fitted on these photos.
    progress : callable, optional
        Called as ``progress(stage, done, total)``; may raise an exception to stop the work.
    photos : bool
        Whether the message contains the photos.

    Returns
    -------
    Message
    """
    from patchprism.support.version import __version__

    tell = progress or (lambda *_: None)
    title = title or f"{counted(len(view), 'photo')} through {view.label}"
    prism, record = view.prism, view.record
    scene_steps, object_steps = grid_steps(prism.scene_variance_), grid_steps(prism.object_variance_)
    # The object PCA of all patches, not only of the foreground, because the page can show any mask.
    scene = np.concatenate([_rows(prism.scene_components(tokens)) for tokens in view.features])
    object_ = np.concatenate([prism.object_components(_rows(tokens)) for tokens in view.features])
    summary = prism.summary()
    infos = [
        PhotoInfo(
            name=Path(name).name, source=name, size=list(size), grid=list(part.score.shape), crop=list(crop)
        )
        for name, size, part, crop in zip(view.names, view.sizes, view.parts, view.crops, strict=True)
    ]
    tell("similarities", 0, None)
    reduced = reduce_tokens(list(view.features), tell=lambda done, total: tell("similarities", done, total))
    header = Header(
        version=VERSION,
        patchprism=__version__,
        title=title.encode("utf-8", "replace").decode(),  # arguments may be invalid UTF-8
        model={
            "name": view.label,
            "width": record.width,
            "patch_size": record.patch_size,
            "weights": str(view.weights),
        },
        layers=layers_info(view),
        carried=None,
        fit=FitInfo(
            fitted_here=view.fitted_here,
            threshold=summary["threshold"],
            threshold_from=summary["threshold_from"],
            method=summary["foreground"],
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
        ranges=_ranges(view),
        all_range=_range(prism.all_range_),
        tokens=TokensInfo(
            dims=len(reduced.scales), width=view.features.width, tolerance=TOLERANCE, error=reduced.error
        ),
        photos=infos,
        hints=view.hints(),
        failures=[{"photo": Path(f.photo).name, "reason": f.reason} for f in view.failures],
        command=_command(view, prism_path),
        origin=view.origin,
        stored=view.n_stored,
        no_photos=all(_is_one_pixel(source) for source in view.photos.sources),
        palette=[f"#{bytes(color).hex()}" for color in to_uint8(class_colors(AUTO_COUNTS[-1]))],
    )
    message = Message(header)
    message.add("prism", "deflate", prism.to_bytes())
    for i in range(len(view)) if photos else ():
        message.add(f"photo-{i}", "raw", preview(view, i))
        tell("page", i + 1, len(view))
    components = np.concatenate([_codes(scene, scene_steps), _codes(object_, object_steps)])
    message.add("components", "int32", components)
    message.add("scores", "float32", np.concatenate([part.score.ravel() for part in view.parts]))
    message.add("token-scales", "float32", reduced.scales)
    message.add("token-axes", "int16", reduced.axes)
    message.add("tokens", "int8", reduced.codes)
    return message


def _is_one_pixel(source: Any) -> bool:
    """Whether a photo repeats one pixel in memory: the grey that replaces photos if features were given without any."""
    return isinstance(source, np.ndarray) and not any(source.strides)


def preview(view: View, index: int) -> bytes:
    """A photo as WebP, at about the resolution that the network saw."""
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
    """Encode values (N, k), which are multiples of steps (k,), as these multiples, (k, N).

    Raises
    ------
    PrismError
        If a multiple is too large to be encoded, because the prism was fitted on other features.
    """
    codes = np.rint(values / np.where(steps > 0, steps, 1.0))
    if not (np.abs(codes) < MAX_CODE).all():
        raise PrismError(
            f"these features lie more than {MAX_CODE * GRID:,.0f} deviations from the features that the "
            "prism was fitted on, which is more than a page can show; fit a prism on these features"
        )
    return codes.astype(np.int64).T


def _pca(ratio: NDArray[np.float64], variance: NDArray[np.float64], steps: NDArray[np.float64]) -> PcaInfo:
    return {"explained": ratio.tolist(), "deviation": np.sqrt(variance).tolist(), "step": steps.tolist()}


def _range(extent: NDArray[np.float64]) -> RangeInfo:
    return {"low": extent[0].tolist(), "high": extent[1].tolist()}


def _ranges(view: View) -> dict[str, RangeInfo]:
    """The ranges of the object components for both scalings that have ranges.

    The prism contains one of them; the other is found on these photos, as a fit would do it.
    """
    prism: Prism = view.prism

    def walk(make: Callable[[], PassT]) -> PassT:
        made = make()
        for name, tokens in zip(view.names, view.features, strict=True):
            made.update(tokens, name)  # type: ignore[arg-type]  # these passes take either
        return made

    own = "percentile" if prism.scaling == "percentile" else "minmax"
    ranges = {own: prism.object_range_}
    extent = walk(lambda: ObjectRange(prism.scorer, prism.object_axes)).extent
    if not np.isfinite(extent.low).all():  # a given prism finds no foreground in these photos
        other = prism.object_range_
    elif own == "percentile":
        other = np.stack([extent.low, extent.high])
    else:
        histogram = walk(lambda: ObjectHistogram(prism.scorer, prism.object_axes, extent))
        other = np.stack([histogram.percentile(1), histogram.percentile(99)])
    ranges["minmax" if own == "percentile" else "percentile"] = other
    return {name: _range(value) for name, value in sorted(ranges.items())}


def _command(view: View, prism_path: str | None) -> CommandInfo:
    from patchprism.jobs.settings import TOKEN_DEFAULTS

    settings = view.settings
    # A store determines all settings of the network, and the user's own features have none.
    if view.store is not None or view.record.family == "own":
        return _command_of(view, prism_path, [])
    options = [["--model", str(settings["model"])]]
    if settings.get("weights"):
        options.append(["--weights", str(settings["weights"])])
    options += [["--preset", str(settings["preset"])], ["--size", str(settings["size"])]]
    if settings.get("range"):
        # As one argument, because a range may begin with a minus.
        options.append([f"--range={','.join(f'{each:.17g}' for each in settings['range'])}"])
    for name in ("mean", "std"):
        known = (0.5, 0.5, 0.5) if settings["preset"] == "seed" else getattr(view.record, name)
        if (chosen := getattr(view.framing, name)) != known:
            options.append([f"--{name}={','.join(map(repr, chosen))}"])
    if settings.get("dtype") not in (None, "auto", "float32"):
        options.append(["--dtype", str(settings["dtype"])])
    for name, flag in (("layer", "--layer"), ("facet", "--facet"), ("token_norm", "--token-norm")):
        value = settings.get(name)
        if value not in (None, TOKEN_DEFAULTS[name]):
            # As one argument, because a layer counted from the end looks like an option.
            text = value if isinstance(value, (int, str)) else ",".join(map(str, value))
            options.append([f"{flag}={text}"])
    if settings.get("final_norm") is False:
        options.append(["--no-final-norm"])
    return _command_of(view, prism_path, options)


def _command_of(view: View, prism_path: str | None, options: list[list[str]]) -> CommandInfo:
    prism = view.prism
    if view.fitted_here and view.settings.get("mask"):
        options = [
            *options,
            [f"--mask={view.settings['mask']}"],
        ]  # as one word, because a name may begin with a dash
    elif view.fitted_here and prism.head_ is not None:
        read_from = prism.head_.loaded_from
        options = [*options, [f"--head={read_from}"] if read_from else ["--head", HEAD_NAME]]
    files = all(isinstance(source, (str, os.PathLike)) for source in view.photos.sources)
    return {
        "input": view.store,
        "options": options,
        "threshold": prism.threshold if isinstance(prism.threshold, str) else repr(float(prism.threshold)),
        "foreground": prism.foreground,
        "prism": None if view.fitted_here else prism_path or "prism.safetensors",
        # Photos that came as arrays have no file that a command could name.
        "files": view.store is not None or (files and view.record.family != "own"),
    }
