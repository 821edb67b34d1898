"""DINOv3 compared with transformers, from every layout of weights, and the sources of weights."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import os
import re
import threading
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file, save_file
from standin import fill, filled_state

from patchprism.backbones import WeightsOrigin, find_record, load_backbone, locate_weights, records
from patchprism.backbones.dinov3 import DinoV3Backbone, build, load, periods
from patchprism.backbones.pins import cache_dir
from patchprism.backbones.weights import obtain_weights
from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patchprism.backbones import BackboneRecord

DINOV3 = [record for record in records() if record.family == "dinov3"]
# One record with a plain MLP and one with a gated MLP, with few blocks.
PLAIN, GATED = (
    dataclasses.replace(find_record(name), depth=3) for name in ("dinov3_vits16", "dinov3_vits16plus")
)


def reference(record: BackboneRecord, **changes: Any) -> Any:
    """The network of transformers of the same shape, on the meta device."""
    import transformers

    gated = record.name.endswith("plus")
    config = transformers.DINOv3ViTConfig(
        hidden_size=record.width,
        intermediate_size=4 * record.width,
        num_hidden_layers=record.depth,
        num_attention_heads=record.heads,
        num_register_tokens=4,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",  # as in the hub's config.json
        **changes,
    )
    with torch.device("meta"):
        return transformers.DINOv3ViTModel(config)


@pytest.mark.parametrize("record", DINOV3, ids=lambda record: record.name)
def test_the_catalogue_has_the_shapes(record: BackboneRecord) -> None:
    assert sum(parameter.numel() for parameter in reference(record).parameters()) == record.n_parameters
    # Ours has zeros for the biases of the keys.
    assert (
        sum(p.numel() for p in build(record).parameters())
        == record.n_parameters + record.depth * record.width
    )
    name = record.name.removeprefix("dinov3_")
    assert record.hub_repo == f"facebook/dinov3-{name}-pretrain-lvd1689m"
    assert re.fullmatch(
        rf".*/dinov3_{name}/dinov3_{name}_pretrain_lvd1689m-[0-9a-f]{{8}}\.pth", record.source
    )


@pytest.fixture(scope="module", params=[PLAIN, GATED], ids=["plain", "gated"])
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A record, the network of transformers with random weights, and its state as in files."""
    record = request.param
    model = reference(record, attn_implementation="eager").to_empty(device="cpu").eval()
    fill(dict(model.named_parameters()))
    model.rope_embeddings.inv_freq = 1 / 100 ** torch.arange(0, 1, 4 / 64)
    with torch.no_grad():
        for parameter in model.embeddings.parameters():
            parameter.mul_(0.05)  # small enough for LayerNorm's epsilon to be felt
    folder = tmp_path_factory.mktemp("dinov3")
    model.save_pretrained(folder)
    return record, model, load_file(folder / "model.safetensors")


def in_memory(state: dict[str, torch.Tensor], gated: bool) -> dict[str, torch.Tensor]:
    return {re.sub(r"^layer\.", "model.layer.", name): each for name, each in state.items()}


def metas(state: dict[str, torch.Tensor], gated: bool) -> dict[str, torch.Tensor]:
    """The layout of Meta's files: fused query, key and value with masked biases, and the rotation's periods."""
    renamed = {
        "embeddings.register_tokens": "storage_tokens",
        "embeddings.patch_embeddings": "patch_embed.proj",
        "embeddings.": "",
        "layer.": "blocks.",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "mlp.gate_proj": "mlp.w1",
        "mlp.up_proj": "mlp.w2" if gated else "mlp.fc1",
        "mlp.down_proj": "mlp.w3" if gated else "mlp.fc2",
    }
    made = {"rope_embed.periods": periods(64).to(torch.bfloat16)}
    for name, each in state.items():
        if "_proj" in name and ".o_proj" not in name and "attention" in name:
            continue
        for old, new in renamed.items():
            name = name.replace(old, new) if old != "layer." else re.sub(r"^layer\.", new, name)
        made[name] = each
    made["mask_token"] = made["mask_token"][0]
    for i in range(3):
        its = [state.get(f"layer.{i}.attention.{part}_proj.bias", torch.full((384,), 7.0)) for part in "qkv"]
        weights = [state[f"layer.{i}.attention.{part}_proj.weight"] for part in "qkv"]
        made[f"blocks.{i}.attn.qkv.weight"] = torch.cat(weights)
        made[f"blocks.{i}.attn.qkv.bias"] = torch.cat(its)
        made[f"blocks.{i}.attn.qkv.bias_mask"] = torch.cat(
            [torch.ones(384), torch.zeros(384), torch.ones(384)]
        )
    return made


def timms(state: dict[str, torch.Tensor], gated: bool) -> dict[str, torch.Tensor]:
    """The layout of timm's repositories with biases, which only query and value have."""
    made = {}
    renamed = {"storage_tokens": "reg_token", "ls1.gamma": "gamma_1", "ls2.gamma": "gamma_2"}
    renamed |= {"mlp.w1": "mlp.fc1_g", "mlp.w2": "mlp.fc1_x", "mlp.w3": "mlp.fc2"}
    for name, each in metas(state, gated).items():
        if name in ("rope_embed.periods", "mask_token") or name.endswith("bias_mask"):
            continue
        for old, new in renamed.items():
            name = name.replace(old, new)
        if name.endswith("qkv.bias"):
            made[name.replace("qkv.bias", "q_bias")], _, made[name.replace("qkv.bias", "v_bias")] = (
                each.chunk(3)
            )
        else:
            made[name] = each
    return made


def ours(record: BackboneRecord, state: dict[str, torch.Tensor], folder: Path) -> DinoV3Backbone:
    save_file({name: each.contiguous().clone() for name, each in state.items()}, folder / "w.safetensors")
    origin = WeightsOrigin(source="test", path=str(folder / "w.safetensors"))
    return load(record, origin, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("layout", [lambda state, gated: state, in_memory, metas, timms])
def test_tokens_equal_those_of_transformers_from_every_layout(
    layout: Any, theirs: Any, tmp_path: Path
) -> None:
    record, model, state = theirs
    backbone = ours(record, layout(state, record is GATED), tmp_path)
    for height, width in ((16, 16), (48, 80), (96, 32)):
        pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            expected = model(pixel_values=pixels).last_hidden_state[:, 5:]
        found = backbone.patch_tokens(pixels)
        assert found.shape == (2, height // 16, width // 16, 384)
        # Relative to the differences between patches, if there are several.
        spread = expected - expected.mean(1, keepdim=True) if expected.shape[1] > 1 else expected
        assert (found.flatten(1, 2) - expected).norm() < 1e-5 * spread.norm()


def test_layers_facets_and_attention_equal_those_of_transformers(theirs: Any, tmp_path: Path) -> None:
    record, model, state = theirs
    backbone = ours(record, state, tmp_path)
    pixels = torch.randn(1, 3, 48, 80, generator=torch.Generator().manual_seed(2))
    seen = {}
    hook = model.model.layer[1].attention.k_proj.register_forward_hook(
        lambda module, given, output: seen.update(key=output)
    )
    with torch.inference_mode():
        known = model(pixel_values=pixels, output_hidden_states=True, output_attentions=True)
    hook.remove()
    near = functools.partial(torch.testing.assert_close, rtol=1e-3, atol=1e-4)
    near(backbone.patch_tokens(pixels, layer=0, norm=False).flatten(1, 2), known.hidden_states[1][:, 5:])
    near(backbone.patch_tokens(pixels, layer=1, facet="key").flatten(1, 2), seen["key"][:, 5:])
    near(backbone.attention(pixels, layer=2).flatten(2), known.attentions[2][:, :, 0, 5:])
    row = backbone.attention(pixels, layer=1, query=(2, 3)).flatten(2)
    near(row, known.attentions[1][:, :, 5 + 2 * 5 + 3, 5:])
    product = torch.eye(5 + 15)
    for attention in known.attentions:
        product = (0.5 * attention[0].mean(0) + 0.5 * torch.eye(5 + 15)) @ product
    near(backbone.rollout(pixels).flatten(), product[0, 5:])


def test_bfloat16_is_near(theirs: Any, tmp_path: Path) -> None:
    record, _, state = theirs
    exact = ours(record, state, tmp_path)
    origin = WeightsOrigin(source="test", path=str(tmp_path / "w.safetensors"))
    half = load(record, origin, torch.device("cpu"), torch.bfloat16)
    pixels = torch.randn(1, 3, 48, 80, generator=torch.Generator().manual_seed(2))
    a, b = exact.patch_tokens(pixels), half.patch_tokens(pixels)
    assert 0 < (a - b).norm() < 0.05 * a.norm()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blocks.1.attn.qkv.bias_mask": None}, "blocks.1.attn.qkv.bias has a part for keys"),
        ({"rope_embed.periods": periods(64) * 2}, "rope_embed.periods are not DINOv3's"),
        ({"rope_embed.periods": torch.ones(3)}, "rope_embed.periods are not DINOv3's"),
        ({"storage_tokens": None}, "missing: register_tokens"),
        (
            {"blocks.2.mlp.w2.bias": None, "blocks.2.mlp.fc2.bias": None},
            r"missing: blocks.2.mlp.(w2|fc2).bias",
        ),
        ({"blocks.0.attn.qkv.weight": torch.zeros(7, 384)}, "blocks.0.attn.qkv.weight must have shape"),
        ({"blocks.0.attn.qkv.bias": torch.zeros(7)}, "blocks.0.attn.qkv.bias must have shape"),
        ({"pos_embed": torch.zeros(1, 5, 384)}, "unknown: pos_embed"),
        ({"reg_token": torch.zeros(1, 4, 384)}, "holds two tensors for register_tokens"),
        ({"norm.bias": torch.full((384,), torch.nan)}, "norm.bias holds values that are not finite"),
    ],
)
def test_other_weights_are_refused_by_name(changes: Any, words: str, theirs: Any, tmp_path: Path) -> None:
    record, _, state = theirs
    changed = metas(state, record is GATED) | changes
    with pytest.raises(WeightsError, match=words) as caught:
        ours(record, {name: each for name, each in changed.items() if each is not None}, tmp_path)
    assert str(tmp_path / "w.safetensors") in str(caught.value)


def test_a_missing_tensor_is_named(theirs: Any, tmp_path: Path) -> None:
    record, _, state = theirs
    with pytest.raises(WeightsError, match=r"missing: blocks.1.attn.v.weight"):
        ours(record, {k: v for k, v in state.items() if k != "layer.1.attention.v_proj.weight"}, tmp_path)


def test_weights_of_dinov2_are_refused(theirs: Any, tmp_path: Path) -> None:
    from patchprism.backbones import dinov2

    record = dataclasses.replace(find_record("dinov2_vits14"), depth=1)
    with pytest.raises(WeightsError, match="has a part for keys, which DINOv3 does not have"):
        ours(theirs[0], filled_state(dinov2.build(record)), tmp_path)


# --- where weights come from ---


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub that its client needs for one file; a gated repository answers 403."""

    files: ClassVar[dict[str, bytes]]
    gated: ClassVar[set[str]]
    asked: ClassVar[list[str]]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        self.answer()

    def answer(self) -> None:
        repo = "/".join(self.path.split("/")[1:3])
        body = self.files.get(repo)
        if repo in self.gated:
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("X-Error-Message", "Access to this model is restricted.")
            body = None
        elif body is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound" if "/resolve/" in self.path else "")
        else:
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET" and body:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, caches: Path) -> Iterator[type[Hub]]:
    """A local hub and a cache of the test, patched because the client reads both settings when it is imported."""
    from huggingface_hub import constants

    from patchprism.backbones import hub_files

    class Own(Hub):
        pass

    Own.files, Own.gated, Own.asked = {}, set(), []

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(caches / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_files._hub_answers.cache_clear()
    yield Own
    server.shutdown()
    server.server_close()
    hub_files._hub_answers.cache_clear()


RECORD = DINOV3[0]
SAFE = (8).to_bytes(8, "little") + b"{}      "


def test_the_open_copy_is_fetched_once_and_its_licence_shown_once(hub: type[Hub], caches: Path) -> None:
    hub.files = {RECORD.open_repo: SAFE}
    hub.gated = {RECORD.hub_repo}
    assert locate_weights(RECORD) is None
    told = []
    origin = obtain_weights(RECORD, progress=lambda *args: told.append(args[0]))
    assert origin.source == f"hf:{RECORD.open_repo}@0123456789abcdef0123456789abcdef01234567"
    assert origin.sha256 == hashlib.sha256(SAFE).hexdigest()
    assert "Meta's DINOv3 License" in origin.notice
    assert "https://ai.meta.com/resources/models-and-libraries/dinov3-license/" in origin.notice
    assert told == [f"fetching hf:{RECORD.open_repo}"]
    assert str(locate_weights(RECORD)) == origin.path
    asked = len(hub.asked)
    again = obtain_weights(RECORD)
    assert (again.path, again.source, again.notice) == (origin.path, origin.source, "")
    assert len(hub.asked) == asked
    assert obtain_weights(RECORD, download=False).path == origin.path


def test_the_gated_original_is_used_if_the_user_has_access(hub: type[Hub]) -> None:
    hub.files = {RECORD.hub_repo: SAFE}
    assert obtain_weights(RECORD).source.startswith(f"hf:{RECORD.hub_repo}@")
    assert obtain_weights(RECORD, download=False).source.startswith(f"hf:{RECORD.hub_repo}@")


def test_the_error_for_gated_weights_names_the_next_steps(hub: type[Hub]) -> None:
    hub.gated = {RECORD.hub_repo}
    with pytest.raises(WeightsError) as caught:
        obtain_weights(RECORD)
    message = str(caught.value)
    assert "\n" not in message
    for words in (
        f"hf:{RECORD.open_repo} (no such repository",
        f"hf:{RECORD.hub_repo} (only for people who accepted its licence)",
        f"https://huggingface.co/{RECORD.hub_repo}",
        "`hf auth login`",
        "weights='FILE'",
        "dinov3_vits16_pretrain_lvd1689m-08c60483.pth",
    ):
        assert words in message


def test_without_a_network_two_solutions_are_named(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for options in ({}, {"download": False}):
        with pytest.raises(WeightsError, match="the Hugging Face hub cannot be reached") as caught:
            obtain_weights(RECORD, **options)
        assert "`patchprism download dinov3_vits16`" in str(caught.value)
        assert "weights='FILE'" in str(caught.value)
    assert not hub.asked


@pytest.mark.parametrize("cache", ["torch/hub/checkpoints", "patchprism/weights"])
def test_metas_file_in_a_cache_comes_first(cache: str, hub: type[Hub], caches: Path) -> None:
    path = caches / cache / "dinov3_vits16_pretrain_lvd1689m-08c60483.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04")
    hub.files = {RECORD.open_repo: SAFE}
    assert obtain_weights(RECORD).path == str(path)
    assert locate_weights(RECORD) == path
    assert not hub.asked


def test_a_damaged_copy_is_named(hub: type[Hub]) -> None:
    hub.files = {RECORD.open_repo: SAFE}
    origin = obtain_weights(RECORD)
    with open(os.path.realpath(origin.path), "ab") as file:
        file.write(b"?")
    with pytest.raises(WeightsError, match="was recorded for it"):
        obtain_weights(RECORD)
    for pin in (cache_dir() / "pins").iterdir():  # now only the file's name in the hub's cache tells
        pin.unlink()
    with pytest.raises(WeightsError, match=r"damaged \(SHA-256 \w{64}\); delete it to fetch it again"):
        obtain_weights(RECORD)


def test_loading_and_running_by_name(hub: type[Hub], tmp_path: Path) -> None:
    """From the open copy in timm's layout with all twelve blocks: weights without biases."""
    from safetensors.torch import save

    state = filled_state(build(RECORD))
    timm = {
        name.replace("register_tokens", "reg_token")
        .replace("ls1.gamma", "gamma_1")
        .replace("ls2.gamma", "gamma_2"): each
        for name, each in state.items()
        if name != "mask_token" and not name.endswith("qkv.bias")
    }
    hub.files = {RECORD.open_repo: save(timm)}
    backbone = load_backbone("dinov3_vits16", device="cpu")
    assert "License" in backbone.weights.notice
    assert repr(backbone) == "DinoV3Backbone(dinov3_vits16, cpu, float32)"
    pixels = backbone.framing(size=32).apply(torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()).pixels[None]
    assert backbone.patch_tokens(pixels).shape == (1, 2, 3, 384)
    assert json.dumps(backbone.weights.report())
