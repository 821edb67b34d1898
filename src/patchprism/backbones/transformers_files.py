"""Read the record, the configuration and the weights of a ``transformers`` model from its files."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel
from transformers.utils import logging

from patchprism.backbones.hub_files import PREPROCESSOR_FILES
from patchprism.backbones.probing import reason
from patchprism.backbones.record import BackboneRecord
from patchprism.errors import ModelError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchprism.backbones.hub_files import HubModel
    from patchprism.backbones.record import WeightsOrigin

# Convolutional networks in stages, the last of which gives the tokens.
STAGED = ("convnext", "convnextv2", "dinov3_convnext")
CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")
_PREFIX_PARAMETERS = (*CLASS_TOKENS, "distillation_token", "register_tokens")
# Parts that patch tokens do not depend on: pooled outputs and parts for training. A file need not contain them.
_UNUSED = ("pooler", "head", "mask_token", "classifier")
# Parts after the blocks, which may have their own class tokens (AIMv2's head).
_HEADS = ("head", "pooler", "classifier", "decoder")


def record_of(model: HubModel, config: Any) -> BackboneRecord:
    """Everything that the files of a model contain, except the weights."""
    model_type = config.model_type
    staged = model_type in STAGED
    wanted = ("hidden_sizes", "depths") if staged else ("hidden_size", "num_hidden_layers", "patch_size")
    missing = [field for field in wanted if getattr(config, field, None) is None]
    if missing:
        raise ModelError(
            f"{model.name}: a {model_type!r} is not a network whose hidden states are patches "
            f"(its config.json has no {', '.join(missing)})"
        )
    patch: Any
    if staged:
        # Each stage after the first halves the grid of the stem.
        patch = (getattr(config, "patch_size", None) or 4) * 2 ** (len(config.depths) - 1)
    else:
        patch = config.patch_size
        if not isinstance(patch, int):
            sides = set(patch)
            if len(sides) != 1:
                raise ModelError(f"{model.name}: patches must be square, config.json says {list(patch)}")
            patch = sides.pop()
    heads = 0 if staged else getattr(config, "num_attention_heads", 0)
    if not isinstance(heads, int) or not isinstance(patch, int):
        raise ModelError(
            f"{model.name}: a {model_type!r} is not a network whose hidden states are patches of one grid"
        )
    mean, std = _normalisation(model)
    with torch.device("meta"), _quiet_transformers():
        try:
            network = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(
                f"{model.name}: transformers cannot build a {model_type!r} ({reason(error)})"
            ) from error
    if network.main_input_name != "pixel_values":
        raise ModelError(f"{model.name}: a {model_type!r} is not a network whose hidden states are patches")
    return BackboneRecord(
        name=model.name,
        family="huggingface",
        patch_size=patch,
        width=config.hidden_sizes[-1] if staged else config.hidden_size,
        depth=len(config.depths) if staged else config.num_hidden_layers,
        heads=heads,
        prefix_tokens=0 if staged else _count_prefix(network),
        mean=mean,
        std=std,
        n_parameters=sum(parameter.numel() for parameter in network.parameters()),
        licence="see the model's card",
        source=model.source,
        hub_repo=model.repo,
    )


def has_class_token(network: Any) -> bool:
    """Whether a class token goes through the network's blocks."""
    return any(name in CLASS_TOKENS for name, _ in _prefix_parameters(network))


def _count_prefix(network: Any) -> int:
    return sum(
        1 if parameter.ndim < 2 else parameter.shape[-2] for _, parameter in _prefix_parameters(network)
    )


def _prefix_parameters(network: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in network.named_parameters():
        *modules, last = name.split(".")
        if last in _PREFIX_PARAMETERS and not any(part in _HEADS for part in modules):
            yield last, parameter


def _normalisation(
    model: HubModel,
) -> tuple[tuple[float, float, float] | None, tuple[float, float, float] | None]:
    """Mean and deviation of RGB in [0, 1], from the model's own preprocessing; None if its files do not contain it."""
    # Read here rather than by AutoImageProcessor: some of its classes can only be imported with torchvision.
    found = next((file for file in PREPROCESSOR_FILES if model.file(file)), None)
    if found is None:
        return None, None
    content = model.json(found) or {}
    content = content.get("image_processor", content)
    mean: Any
    std: Any
    if content.get("do_normalize", True) is False:
        mean, std = [0.0] * 3, [1.0] * 3
    else:
        mean, std = content.get("image_mean"), content.get("image_std")
    for field, values in (("image_mean", mean), ("image_std", std)):
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)
        ):
            raise ModelError(f"{model.name}: {field} in {found} must be three numbers, got {values!r}")
    if not all(value > 0 for value in std):
        raise ModelError(f"{model.name}: image_std in {found} must be positive, got {std!r}")
    # transformers multiplies bytes by the factor and then normalises; our framing starts from bytes / 255.
    factor = 255.0
    if content.get("do_rescale", True) is not False:
        factor = 255.0 * float(content.get("rescale_factor", 1 / 255))
        factor = 1.0 if abs(factor - 1.0) < 1e-4 else factor
    red, green, blue = (float(value) / factor for value in mean)
    reds, greens, blues = (float(value) / factor for value in std)
    return (red, green, blue), (reds, greens, blues)


def read_config(model: HubModel) -> Any:
    """The configuration of the part of the model that processes photos."""
    content = model.json("config.json") or {}
    model_type = content.get("model_type")
    if model_type not in CONFIG_MAPPING:
        if "auto_map" in content:
            raise ModelError(
                f"{model.name}: it needs code from its repository (auto_map in config.json), which PatchPrism "
                "never runs"
            )
        if model_type is None:
            raise ModelError(
                f"{model.name}: config.json has no model_type, so it is not a transformers model"
            )
        raise ModelError(
            f"{model.name}: this version of transformers does not know {model_type!r}; upgrade it"
        )
    try:
        with _quiet_transformers():
            config = AutoConfig.from_pretrained(model.folder, trust_remote_code=False, local_files_only=True)
    # Depending on the class of the configuration, wrong values raise different errors.
    except Exception as error:
        raise ModelError(f"{model.name}: config.json cannot be used ({reason(error)})") from error
    return getattr(config, "vision_config", config)


def read_network(model: HubModel, config: Any, weights: WeightsOrigin) -> Any:
    try:
        with _quiet_transformers():
            network, info = AutoModel.from_pretrained(
                model.folder,
                config=config,
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=weights.path.endswith((".safetensors", ".safetensors.index.json")),
                dtype=torch.float32,
                output_loading_info=True,
            )
    # Damaged files raise the errors of the parsers.
    except Exception as error:
        raise WeightsError(f"{model.name}: its weights cannot be loaded ({reason(error)})") from error
    missing = [name for name in info["missing_keys"] if not any(part in _UNUSED for part in name.split("."))]
    mismatched = [
        str(entry[0]) if isinstance(entry, tuple) else str(entry) for entry in info["mismatched_keys"]
    ]
    broken = [name for name, tensor in network.named_parameters() if not bool(tensor.isfinite().all())]
    for what, names in (("missing", missing), ("of another shape", mismatched), ("not finite", broken)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WeightsError(f"{model.name}: tensors {what}: {', '.join(sorted(names)[:3])}{more}")
    return network


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Switch off transformers' progress bars and reports during the block; failures raise our errors."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
