"""Records of a backbone and of its weights. Importing them does not load torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from patchprism.errors import ModelError, OptionError
from patchprism.support import checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.photos.framing import Framing

# Called during a download: progress(message, done_bytes, total_bytes or None).
Progress = Callable[[str, int, int | None], None]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class BackboneRecord:
    """Everything that is known about a backbone before its weights are loaded.

    Attributes
    ----------
    name : str
        Name of the model.
    family : str
        Key of the code that builds it, e.g. ``"dinov2"``.
    patch_size : int
        Side of a patch, in pixels of model input.
    width : int
        Length D of a patch token.
    depth, heads : int
        Number of layers, and of attention heads (0 for a convolutional network).
    prefix_tokens : int
        Tokens before the patches (class token and registers).
    mean, std : tuple of float or None
        Normalisation of RGB in [0, 1]; None if the files of the model do not contain it.
    n_parameters : int
        Number of parameters.
    licence : str
        SPDX name of the weights' licence.
    source : str
        Address of the weights, or the package that contains them.
    download_bytes : int
        Size of the download; 0 if nothing is downloaded.
    hub_repo : str
        The same model on the Hugging Face hub; empty if there is none.
    open_repo : str
        A copy on the hub that needs no login, if ``hub_repo`` needs one; empty if there is none.
    layer : int
        Layer whose tokens are used by default, counted from 0; negative numbers count from the end.
    about : str
        What users must know about the model, in a phrase; empty if its name is enough.
    """

    name: str
    family: str
    patch_size: int
    width: int
    depth: int
    heads: int
    prefix_tokens: int
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    n_parameters: int
    licence: str
    source: str
    download_bytes: int = 0
    hub_repo: str = ""
    open_repo: str = ""
    layer: int = -1
    about: str = ""

    @property
    def title(self) -> str:
        """The name, and what users must know about the model."""
        return f"{self.name} ({self.about})" if self.about else self.name

    def framing(
        self,
        *,
        size: int | None = None,
        preset: str = "default",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        stride: int | None = None,
    ) -> Framing:
        """How photos are resized, cropped and normalised for this network.

        Parameters
        ----------
        size : int, default=448
            The photo's shorter edge as the network sees it, in pixels.
        preset : {"default", "seed"}
            See :meth:`Framing.preset`.
        mean, std : sequence of three float, optional
            Normalisation of RGB in [0, 1], instead of the network's own or the preset's.
        stride : int, optional
            Pixels from one patch to the next, where patches overlap; see :class:`Framing`.

        Returns
        -------
        Framing

        Raises
        ------
        OptionError
            If an option is not allowed, or mean and deviation are neither given nor known for the model.
        """
        from patchprism.photos.framing import DEFAULT_SIZE, Framing

        half = (0.5, 0.5, 0.5)
        given: dict[str, Any] = {
            name: each for name, each in (("mean", mean), ("std", std)) if each is not None
        }
        missing = [name for name in ("mean", "std") if getattr(self, name) is None and name not in given]
        if missing and preset != "seed":
            raise OptionError(
                f"the files of {self.name} do not say how its photos are normalised (preprocessor_config.json "
                f"is missing): give {' and '.join(f'{name}=R,G,B' for name in missing)} (for colours from 0 "
                "to 1), as its authors state them"
            )
        framing = Framing.preset(
            preset,
            size=DEFAULT_SIZE if size is None else size,
            patch_size=self.patch_size,
            mean=self.mean or half,
            std=self.std or half,
            stride=stride,
        )
        return replace(framing, **given)

    def layer_index(self, layer: int) -> int:
        """A layer counted from 0.

        Raises
        ------
        ModelError
            If the network has no such layer.
        """
        layer = int(checks.integer("layer", layer))
        if not -self.depth <= layer < self.depth:
            raise ModelError(
                f"{self.name} has no layer {checks.short_repr(layer)}: layers are 0 to {self.depth - 1}, or "
                f"-{self.depth} to -1 from the end"
            )
        return layer % self.depth


@dataclass(frozen=True, kw_only=True)
class WeightsOrigin:
    """Where a backbone's weights came from.

    Attributes
    ----------
    source : str
        Address, repository or package.
    path : str
        The file that was read; empty for networks without one.
    sha256 : str
        SHA-256 of this file in hexadecimal; empty for networks without one.
    taken_from : str
        The part of a training checkpoint that was used, for example ``"teacher.backbone"``; empty if the file
        contains only the network.
    left_out : tuple of str
        Other contents of the file: other networks, heads, the optimizer.
    notice : str
        Licence terms of weights that were downloaded in this call; empty otherwise.
    """

    source: str
    path: str = ""
    sha256: str = ""
    taken_from: str = ""
    left_out: tuple[str, ...] = ()
    notice: str = ""

    def report(self) -> dict[str, Any]:
        """The entry for reports, as JSON values."""
        taken: dict[str, Any] = {}
        if self.taken_from or self.left_out:
            taken = {"taken_from": self.taken_from, "left_out": list(self.left_out)}
        return {"source": self.source, "file": self.path, "sha256": self.sha256, **taken}

    def __str__(self) -> str:
        """The source, with the part of it that is used and the parts that are left out."""
        words = [f"its {self.taken_from}"] if self.taken_from else []
        if self.left_out:
            more = f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else ""
            words.append(f"without {', '.join(self.left_out[:3])}{more}")
        return f"{self.source} ({', '.join(words)})" if words else self.source


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Values that distinguish the tokens of a network from those of others; known before the network is loaded.

    Attributes
    ----------
    record : BackboneRecord
    weights : WeightsOrigin
    dtype : str
        Precision of the network, for example ``"float32"``.
    """

    record: BackboneRecord
    weights: WeightsOrigin
    dtype: str
