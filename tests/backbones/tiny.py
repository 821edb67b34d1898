"""Tiny random networks of ``transformers``, built and saved by the tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
PATCH = 8
_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": PATCH,
}
_TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 50,
}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}

# For each kind: its class, its configuration, and the expected number of prefix tokens.
VITS: dict[str, tuple[str, dict[str, Any], int]] = {
    "dinov2": ("Dinov2", _VIT, 1),
    "dinov2_with_registers": ("Dinov2WithRegisters", {**_VIT, "num_register_tokens": 4}, 5),
    "dinov3": ("DINOv3ViT", {**_VIT, "num_register_tokens": 4}, 5),
    "dino": ("ViT", _VIT, 1),
    "deit": ("DeiT", _VIT, 2),
    "siglip": ("Siglip", {"vision_config": _VIT, "text_config": _TEXT}, 0),
    "siglip2": ("Siglip2", {"vision_config": {**_VIT, "num_patches": 16}, "text_config": _TEXT}, 0),
    "clip": ("CLIP", {"vision_config": _VIT, "text_config": _TEXT}, 1),
    "ijepa": ("IJepa", _VIT, 0),
    "vit_mae": ("ViTMAE", _VIT, 1),
}
STAGED: dict[str, tuple[str, dict[str, Any], int]] = {
    "dinov3_convnext": ("DINOv3ConvNext", _STAGES, 0),
    "convnext": ("ConvNext", _STAGES, 0),
}
ALL = {**VITS, **STAGED}


def build(kind: str) -> Any:
    """A random network, with every parameter moved so that none is 0 or 1."""
    import torch
    import transformers

    name, options, _ = ALL[kind]
    torch.manual_seed(0)
    network = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**options)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def save(network: Any, folder: Path) -> str:
    """Save a network in the hub's format; returns the name to load it with."""
    network.save_pretrained(folder)
    preprocessor = {"image_mean": MEAN, "image_std": STD, "do_rescale": True, "rescale_factor": 1 / 255}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return f"hf:{folder}"
