"""Names, records and options, which are checked before any weights are loaded."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from patchprism.backbones import find_record, load_backbone, locate_weights, records
from patchprism.backbones.catalog import RECORDS
from patchprism.errors import ModelError, OptionError

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [
    *(f"dinov2_vit{size}14{suffix}" for suffix in ("", "_reg") for size in "sblg"),
    *(f"dinov3_vit{size}" for size in ("s16", "s16plus", "b16", "l16", "h16plus")),
    *("focus_vits14", "efficientnet_lite2"),
]


def test_importing_loads_no_torch_and_opens_no_connection() -> None:
    heavy = "('torch', 'numpy', 'huggingface_hub', 'safetensors', 'urllib.request', 'filelock')"
    code = f"import sys, patchprism.backbones; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_name_is_refused_before_torch_is_loaded() -> None:
    code = (
        "import sys\nfrom patchprism.backbones import load_backbone\n"
        "try: load_backbone('dinov2_vits15')\n"
        "except Exception as error: print(type(error).__name__, error, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ModelError unknown model 'dinov2_vits15': did you mean dinov2_vits14")
    assert done.stdout.strip().endswith("False")


def test_all_dinov2_models_are_registered() -> None:
    assert [record.name for record in records()] == NAMES


def test_records_name_the_official_files() -> None:
    base = "https://dl.fbaipublicfiles.com/dinov2/"
    assert find_record("dinov2_vits14").source == base + "dinov2_vits14/dinov2_vits14_pretrain.pth"
    assert find_record("dinov2_vitg14_reg").source == base + "dinov2_vitg14/dinov2_vitg14_reg4_pretrain.pth"
    assert find_record("dinov2_vitl14").hub_repo == "facebook/dinov2-large"
    assert find_record("dinov2_vitb14_reg").hub_repo == "facebook/dinov2-with-registers-base"


@pytest.mark.parametrize("name", ["", "resnet", "DINOV2_VITS14", "dinov2"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(ModelError, match="unknown model"):
        find_record(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("facebook/dinov2-base", "hf:facebook/dinov2-base"),
        ("google/siglip-base-patch16-224@main", "hf:google/siglip-base-patch16-224@main"),
        ("https://huggingface.co/facebook/dinov2-base/tree/main", "hf:facebook/dinov2-base?"),
        ("HF:facebook/dinov2-base", "hf:facebook/dinov2-base"),
        ("dinov3-vits16", "did you mean dinov3_vits16?"),
        ("dinov3-vits16plus", "did you mean dinov3_vits16plus?"),
        ("dinov3_vit7b16", "hf:facebook/dinov3-vit7b16-pretrain-lvd1689m"),
        ("DINOv3", "did you mean dinov3_vits16?"),
        ("dinov3_convnext_tiny", "hf:facebook/dinov3-convnext-tiny-pretrain-lvd1689m"),
        ("DINOV2_ViTS14", "dinov2_vits14?"),
        ("dinov2_vits14_reg4", "dinov2_vits14_reg"),
        ("vit_small_patch14_dinov2.lvd142m", "timm:vit_small_patch14_dinov2.lvd142m"),
        ("weights.pth", "model='dinov2_vits14' weights='weights.pth'"),
        ("resnet50", "hf:OWNER/NAME or timm:NAME"),
        (".", "hf:."),
    ],
)
def test_an_unknown_name_suggests_the_right_one(name: str, meant: str) -> None:
    for ask in (find_record, load_backbone):
        with pytest.raises(ModelError, match="unknown model") as caught:
            ask(name)
        assert meant in str(caught.value)


def test_an_unknown_family_is_refused_before_weights_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    record = replace(find_record("efficientnet_lite2"), name="other", family="convnet")
    monkeypatch.setitem(RECORDS, "other", record)
    with pytest.raises(
        ModelError, match="unknown family 'convnet', known are dinov2, dinov3, efficientnet, focus"
    ):
        load_backbone("other", weights="/no/such/file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, mps, got 'tpu'"),
        ({"device": "cuda:x"}, "device 'cuda:x' is not"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not available"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"dtype": "float64"}, "dtype must be one of"),
    ],
)
def test_wrong_options_are_refused_before_weights_are_looked_for(options: dict[str, str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        load_backbone("dinov2_vits14", weights="/no/such/file", **options)  # type: ignore[arg-type]


def test_locating_opens_no_connection(caches: Path) -> None:
    record = find_record("dinov2_vits14")
    assert locate_weights(record) is None
    for folder in ("patchprism/weights", "torch/hub/checkpoints"):
        path = caches / folder / "dinov2_vits14_pretrain.pth"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
        assert locate_weights(record) == path  # torch.hub's file takes precedence
    assert locate_weights(find_record("efficientnet_lite2")) is not None
