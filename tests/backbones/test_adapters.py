"""Every adapter passes the same tests, on tiny random networks built here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import patchprism
from patchprism.errors import ExtraError, ModelError, OptionError, WeightsError

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from timm_here import import_timm  # noqa: E402
from tiny import ALL, MEAN, PATCH, STAGED, STD, VITS, build, save  # noqa: E402

from patchprism.backbones import Backbone, find_record, load_backbone  # noqa: E402
from patchprism.backbones.probing import inside, of_one_size  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

TIMM = {
    "timm_vit": "vit_tiny_patch16_224",
    "timm_registers": "vit_small_patch14_reg4_dinov2",
    "timm_cnn": "resnet18",
}
PHOTO = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
KINDS = [*(f"hf_{kind}" for kind in ALL), *TIMM, "callable"]


def _patch_means(pixels: torch.Tensor) -> torch.Tensor:
    """A network with simple tokens: the mean and deviation of each patch."""
    patches = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # (B, 3, h, w, P, P)
    moments = torch.cat([patches.mean((-1, -2)), patches.std((-1, -2))], dim=1)
    return moments.permute(0, 2, 3, 1)


class Case:
    """A backbone, and a reference that computes the same tokens without our code."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        family, _, name = kind.partition("_")
        self.network: Any = None
        self.staged = name in STAGED or kind == "timm_cnn"
        if family == "hf":
            network = build(name)
            self.prefix, self.options = ALL[name][2], {}
            self.name = save(network, folder)
            self.network = getattr(network, "vision_model", network)
        elif family == "timm":
            timm = import_timm()
            from safetensors.torch import save_file

            torch.manual_seed(0)
            options = {} if kind == "timm_cnn" else {"dynamic_img_size": True}
            self.network = timm.create_model(TIMM[kind], **options).eval()
            self.prefix = {"timm_vit": 1, "timm_registers": 5, "timm_cnn": 0}[kind]
            weights = folder / "weights.safetensors"
            save_file({k: v.contiguous() for k, v in self.network.state_dict().items()}, weights)
            self.name, self.options = f"timm:{TIMM[kind]}", {"weights": str(weights)}
        else:
            self.name, self.options, self.prefix = "", {}, 0

    def load(self, **options: Any) -> Backbone:
        if not self.name:
            return Backbone.from_callable(_patch_means, patch_size=PATCH, mean=MEAN, std=STD, **options)
        return load_backbone(self.name, **self.options, **options)

    def reference(self, pixels: torch.Tensor, patch: int) -> torch.Tensor:
        """Patch tokens from the library itself, without the known number of prefix tokens."""
        h, w = pixels.shape[-2] // patch, pixels.shape[-1] // patch
        if self.network is None:
            return _patch_means(pixels)
        if self.kind.startswith("timm"):
            tokens = self.network.forward_features(pixels)
            if tokens.ndim == 4:
                return tokens.permute(0, 2, 3, 1)
            return tokens[:, self.prefix :].reshape(len(pixels), h, w, -1)
        if self.kind == "hf_convnext":
            return self.network(pixels).last_hidden_state.permute(0, 2, 3, 1)
        if self.kind == "hf_dinov3_convnext":
            return self.network(pixels).last_hidden_state[:, 1:].reshape(len(pixels), h, w, -1)
        tokens = self.network(**hf_inputs(self.kind, pixels)).last_hidden_state
        return tokens[:, self.prefix :].reshape(len(pixels), h, w, -1)


def hf_inputs(kind: str, pixels: torch.Tensor) -> dict[str, Any]:
    """The arguments that users of transformers pass for photos of any shape."""
    n, (h, w) = len(pixels), (side // PATCH for side in pixels.shape[-2:])
    if kind == "hf_siglip2":
        # Its image processor cuts a photo of shape (H, W, 3) into patches and flattens each.
        rows = [pixels[..., i * PATCH : (i + 1) * PATCH, :] for i in range(h)]
        patches = [row[..., j * PATCH : (j + 1) * PATCH] for row in rows for j in range(w)]
        return {
            "pixel_values": torch.stack([patch.permute(0, 2, 3, 1).flatten(1) for patch in patches], dim=1),
            "pixel_attention_mask": torch.ones(n, h * w, dtype=torch.long),
            "spatial_shapes": torch.tensor([[h, w]] * n),
        }
    inputs: dict[str, Any] = {"pixel_values": pixels}
    if kind not in ("hf_dinov2", "hf_dinov2_with_registers", "hf_dinov3"):
        inputs["interpolate_pos_encoding"] = True
    return inputs


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {}


@pytest.fixture
def case(request: pytest.FixtureRequest, cases: dict[str, Case], tmp_path_factory: Any) -> Case:
    if request.param not in cases:
        cases[request.param] = Case(request.param, tmp_path_factory.mktemp(request.param))
    return cases[request.param]


@pytest.mark.parametrize("case", KINDS, indirect=True)
@pytest.mark.parametrize("grid", [(4, 4), (2, 5), (3, 1), (1, 1)])
def test_tokens_on_grids_of_any_shape(case: Case, grid: tuple[int, int]) -> None:
    backbone = case.load()
    patch = backbone.record.patch_size
    pixels = torch.randn(2, 3, grid[0] * patch, grid[1] * patch, generator=torch.Generator().manual_seed(1))
    tokens = backbone.patch_tokens(pixels)
    assert tokens.shape == (2, *grid, backbone.record.width)
    assert tokens.dtype == torch.float32
    if case.kind == "hf_vit_mae":
        return  # transformers' own forward shuffles and drops patches; the test below covers it
    with torch.no_grad():
        expected = case.reference(pixels, patch)
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", KINDS, indirect=True)
def test_patches_can_overlap_if_the_first_layer_sees_each_separately(case: Case) -> None:
    backbone = case.load()
    patch = backbone.record.patch_size
    photo = np.random.default_rng(0).integers(0, 256, (2 * patch, 3 * patch, 3), dtype=np.uint8)
    options: dict[str, Any] = {"size": 2 * patch, "stride": patch // 2, "mean": MEAN, "std": STD}
    if case.staged or case.kind in ("hf_siglip2", "callable"):
        with pytest.raises(OptionError, match=r"stride cannot be used with .*: overlapping patches need"):
            backbone.framing(**options)
        return
    framed = backbone.framing(**options).apply(photo)
    assert framed.grid == (4, 6)
    assert backbone.patch_tokens(framed.pixels[None]).shape == (1, 4, 6, backbone.record.width)


@pytest.mark.parametrize("case", KINDS, indirect=True)
def test_record(case: Case) -> None:
    backbone = case.load()
    record = backbone.record
    assert record.prefix_tokens == case.prefix
    assert backbone.depth == record.depth >= 1
    assert backbone.weights.source
    if case.name.startswith("hf:"):
        assert (record.mean, record.std) == (tuple(MEAN), tuple(STD))
        assert record.patch_size == (32 if case.staged else PATCH)
        assert find_record(case.name) == record
        assert len(backbone.weights.sha256) == 64
        # Only the image tower is counted.
        assert record.n_parameters == sum(p.numel() for p in backbone.network.parameters())


@pytest.mark.parametrize("case", KINDS, indirect=True)
def test_all_layers_from_one_forward(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = case.load()
    patch, depth = backbone.record.patch_size, backbone.depth
    pixels = torch.randn(1, 3, 2 * patch, 3 * patch, generator=torch.Generator().manual_seed(2))
    layers = [depth - 1, 0, -1, -depth]
    each = [backbone.patch_tokens(pixels, layer=layer) for layer in layers]
    calls = []
    inner = backbone._layers
    monkeypatch.setattr(backbone, "_layers", lambda *args: calls.append(1) or inner(*args))
    for one, together in zip(each, backbone.layer_tokens(pixels, layers), strict=True):
        torch.testing.assert_close(together, one)
        assert together.shape[:3] == (1, 2, 3)
    assert len(calls) == 1
    torch.testing.assert_close(each[0], each[2])
    if depth > 1:
        assert each[0].shape != each[1].shape or not torch.allclose(each[0], each[1])


@pytest.mark.parametrize("case", KINDS, indirect=True)
def test_unsupported_features_are_named(case: Case) -> None:
    backbone = case.load()
    patch = backbone.record.patch_size
    pixels = torch.zeros(1, 3, patch, patch)
    with pytest.raises(ModelError, match=f"no layer {backbone.depth}: layers are 0 to {backbone.depth - 1}"):
        backbone.patch_tokens(pixels, layer=backbone.depth)
    with pytest.raises(ModelError, match="no facet 'soul': it has token"):
        backbone.patch_tokens(pixels, facet="soul")
    with pytest.raises(OptionError, match=f"multiples of {patch}"):
        backbone.patch_tokens(torch.zeros(1, 3, patch, patch + 1))
    if not backbone.has_attention:
        with pytest.raises(ModelError, match="cannot give its attention"):
            backbone.attention(pixels)


@pytest.mark.parametrize("case", KINDS, indirect=True)
def test_bfloat16_is_near_and_returns_float32(case: Case) -> None:
    full, half = case.load(), case.load(dtype="bfloat16")
    patch = full.record.patch_size
    pixels = torch.randn(1, 3, 2 * patch, 2 * patch, generator=torch.Generator().manual_seed(3))
    a, b = full.patch_tokens(pixels), half.patch_tokens(pixels)
    assert half.dtype == torch.bfloat16
    assert b.dtype == torch.float32
    assert 0 < (a - b).norm() / a.norm() < 0.1


@pytest.mark.parametrize("case", KINDS, indirect=True)
def test_device(case: Case) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="not available"):
            case.load(device="cuda")
        return
    on_gpu = case.load(device="cuda")
    patch = on_gpu.record.patch_size
    pixels = torch.randn(1, 3, 2 * patch, 2 * patch)
    tokens = on_gpu.patch_tokens(pixels)
    assert tokens.device.type == "cuda"
    torch.testing.assert_close(tokens.cpu(), case.load().patch_tokens(pixels), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["dino", "siglip", "convnext"])
def test_the_main_job(kind: str, tmp_path: Path) -> None:
    name = save(build(kind), tmp_path)
    photo = np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)
    view = patchprism.visualize([photo], model=name, size=64, layer=1)
    assert view.prism.origin["layer"] == 1
    assert view.prism.origin["model"] == name
    assert view.colors[0].shape[:2] == ((2, 3) if kind == "convnext" else (8, 11))


def test_masked_autoencoder_sees_every_patch_in_order(tmp_path: Path) -> None:
    """Compared with its layers, called one by one without the masking code."""
    network = build("vit_mae")
    assert network.config.mask_ratio > 0
    backbone = load_backbone(save(network, tmp_path))
    pixels = torch.randn(2, 3, 4 * PATCH, 4 * PATCH)
    with torch.no_grad():
        embedding, positions = network.embeddings, network.embeddings.position_embeddings
        x = embedding.patch_embeddings(pixels) + positions[:, 1:]
        x = torch.cat([(embedding.cls_token + positions[:, :1]).expand(2, -1, -1), x], dim=1)
        for layer in network.layers:
            x = layer(x, None)
        expected = network.layernorm(x)[:, 1:].reshape(2, 4, 4, -1)
    torch.testing.assert_close(backbone.patch_tokens(pixels), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(backbone.patch_tokens(pixels), backbone.patch_tokens(pixels))


def _edit(folder: Path, file: str, **changes: Any) -> None:
    content = json.loads((folder / file).read_text())
    for key, value in changes.items():
        content.pop(key) if value is None else content.__setitem__(key, value)
    (folder / file).write_text(json.dumps(content))


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), ModelError, "config.json is missing"),
    "config is no JSON": (
        lambda f: (f / "config.json").write_text("{"),
        ModelError,
        "config.json cannot be read",
    ),
    "config is a list": (
        lambda f: (f / "config.json").write_text("[]"),
        ModelError,
        "must hold a JSON object",
    ),
    "no model_type": (lambda f: _edit(f, "config.json", model_type=None), ModelError, "no model_type"),
    "unknown model_type": (
        lambda f: _edit(f, "config.json", model_type="zebra"),
        ModelError,
        "does not know 'zebra'",
    ),
    "remote code": (
        lambda f: _edit(f, "config.json", model_type="zebra", auto_map={"AutoModel": "zebra.Zebra"}),
        ModelError,
        "needs code from its repository",
    ),
    "a text model": (
        lambda f: _edit(f, "config.json", model_type="bert"),
        ModelError,
        "hidden states are patches",
    ),
    "no mean": (lambda f: _edit(f, "preprocessor_config.json", image_mean=None), ModelError, "image_mean in"),
    "zero deviation": (
        lambda f: _edit(f, "preprocessor_config.json", image_std=[0, 1, 1]),
        ModelError,
        "positive",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), WeightsError, "no model.safetensors or"),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:1000]),
        WeightsError,
        "cannot be loaded",
    ),
    "other shapes": (
        lambda f: _edit(f, "config.json", intermediate_size=48),
        WeightsError,
        "loaded|another shape",
    ),
    "more layers": (lambda f: _edit(f, "config.json", num_hidden_layers=4), WeightsError, "tensors missing"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    save(build("dino"), folder)
    return folder


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_named(what: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    breaking, error, words = BROKEN[what]
    breaking(folder)
    with pytest.raises(error, match=words) as caught:
        load_backbone(f"hf:{folder}")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_tensor_that_is_not_finite_is_named(saved: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    state = load_file(folder / "model.safetensors")
    next(iter(state.values())).view(-1)[0] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="not finite"):
        load_backbone(f"hf:{folder}")


def test_weights_in_shards(tmp_path: Path) -> None:
    network = build("dino")
    pixels = torch.randn(1, 3, 16, 24)
    one = load_backbone(save(network, tmp_path / "one")).patch_tokens(pixels)
    network.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    shutil.copy(tmp_path / "one" / "preprocessor_config.json", tmp_path / "many")
    assert not (tmp_path / "many" / "model.safetensors").exists()
    many = load_backbone(f"hf:{tmp_path / 'many'}")
    torch.testing.assert_close(many.patch_tokens(pixels), one)
    next((tmp_path / "many").glob("model-0000*")).unlink()
    with pytest.raises(WeightsError, match=r"which model.safetensors.index.json names, is missing"):
        load_backbone(f"hf:{tmp_path / 'many'}")


@pytest.mark.parametrize(
    ("preprocessor", "mean", "std"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}, 0.5, 0.25),
        ({"do_normalize": False}, 0.0, 1.0),
        # (byte * 2 / 255 - 1) / 1 is (byte / 255 - 0.5) / 0.5.
        ({"image_mean": [1.0] * 3, "image_std": [1.0] * 3, "rescale_factor": 2 / 255}, 0.5, 0.5),
        # Bytes without rescaling.
        ({"image_mean": [127.5] * 3, "image_std": [51.0] * 3, "do_rescale": False}, 0.5, 0.2),
        ({"image_processor": {"image_mean": [0.1] * 3, "image_std": [0.2] * 3}}, 0.1, 0.2),
    ],
)
def test_normalisation(
    preprocessor: dict[str, Any], mean: float, std: float, saved: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    record = find_record(f"hf:{folder}")
    np.testing.assert_allclose((*record.mean, *record.std), [mean] * 3 + [std] * 3, rtol=1e-6)


def test_without_a_preprocessor_mean_and_deviation_are_required(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    known = patchprism.visualize([PHOTO], model=f"hf:{folder}", size=64)
    (folder / "preprocessor_config.json").unlink()
    assert find_record(f"hf:{folder}").mean is None
    with pytest.raises(OptionError, match=r"give mean=R,G,B and std=R,G,B"):
        patchprism.visualize([PHOTO], model=f"hf:{folder}", size=64)
    with pytest.raises(OptionError, match=r"give std=R,G,B \(for"):
        patchprism.visualize([PHOTO], model=f"hf:{folder}", size=64, mean=MEAN)
    said = patchprism.visualize([PHOTO], model=f"hf:{folder}", size=64, mean=np.array(MEAN), std=STD)
    np.testing.assert_array_equal(said.colors[0], known.colors[0])
    assert said.prism.origin["framing"]["mean"] == MEAN
    # The prism has recorded them.
    again = patchprism.visualize([PHOTO], model=f"hf:{folder}", prism=said.prism)
    np.testing.assert_array_equal(again.colors[0], known.colors[0])


def _aimv2(size: int) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.Aimv2VisionConfig(**{**VITS["dino"][1], "image_size": size})
    return transformers.AutoModel.from_config(config).eval()


def test_aimv2_whose_head_has_a_separate_class_token(tmp_path: Path) -> None:
    network = _aimv2(4 * PATCH)
    backbone = load_backbone(save(network, tmp_path))
    assert backbone.record.prefix_tokens == 0
    pixels = torch.randn(2, 3, 4 * PATCH, 4 * PATCH)
    with torch.no_grad():
        expected = network(pixels).last_hidden_state.reshape(2, 4, 4, -1)
    torch.testing.assert_close(backbone.patch_tokens(pixels), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelError, match="no class token"):
        backbone.attention(pixels)
    # On another grid, it equals a network whose table is the resized one.
    larger = _aimv2(6 * PATCH)
    table = network.embeddings.position_embedding.weight.detach()
    image = table.reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    image = torch.nn.functional.interpolate(image, size=(6, 6), mode="bicubic", align_corners=False)
    state = network.state_dict() | {
        "embeddings.position_embedding.weight": image.permute(0, 2, 3, 1).reshape(36, -1)
    }
    larger.load_state_dict(state)
    pixels = torch.randn(1, 3, 6 * PATCH, 6 * PATCH)
    with torch.no_grad():
        expected = larger(pixels).last_hidden_state.reshape(1, 6, 6, -1)
    torch.testing.assert_close(backbone.patch_tokens(pixels), expected, rtol=1e-4, atol=1e-4)
    assert backbone.patch_tokens(torch.randn(1, 3, 2 * PATCH, 5 * PATCH)).shape[1:3] == (2, 5)


@pytest.mark.parametrize(
    ("fixed", "shape", "advice"),
    [
        ((64, 64), (448, 448), "; give size=64"),
        ((64, 64), (64, 80), "; give square photos and size=64, or preset='seed' and size=64"),
        ((64, 96), (64, 80), "; crop the photos to 3:2 and give size=64"),
        ((96, 64), (448, 448), "; crop the photos to 2:3 and give size=64"),
    ],
)
def test_the_advice_for_networks_of_one_size_works(
    fixed: tuple[int, int], shape: tuple[int, int], advice: str
) -> None:
    assert advice in of_one_size("m", fixed, shape)


def test_the_advice_for_an_oblong_network_works(tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    network = transformers.ViTModel(
        transformers.ViTConfig(**{**VITS["dino"][1], "image_size": [4 * PATCH, 6 * PATCH]})
    )
    name = save(network, tmp_path)
    with pytest.raises(ModelError, match=r"48 x 32 pixels, got .* crop the photos to 3:2 and give size=32"):
        patchprism.visualize([np.zeros((100, 120, 3), np.uint8)], model=name, size=40)
    photo = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    assert patchprism.visualize([photo], model=name, size=32).colors[0].shape == (4, 6, 3)


BROKEN_TORCHVISION = 'raise RuntimeError("operator torchvision::nms does not exist")\n'


def _beside_a_broken_torchvision(name: str, folder: Path, *more: str) -> str:
    for package in ("torchvision", *more):
        (folder / package).mkdir(parents=True)
    (folder / "torchvision" / "__init__.py").write_text(BROKEN_TORCHVISION)
    metadata = folder / "torchvision-0.28.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.28.0\n")
    for package in more:
        (folder / package / "__init__.py").write_text("import torchvision\n")
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\nfrom patchprism.backbones import load_backbone\n"
        f"try: load_backbone({name!r})\nexcept Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_torchvision_that_does_not_fit_is_named(tmp_path: Path) -> None:
    name = save(build("clip"), tmp_path / "clip")
    for asked, folder, more in ((name, "a", ()), ("timm:resnet18", "b", ("timm",))):
        said = _beside_a_broken_torchvision(asked, tmp_path / folder, *more)
        assert said.startswith(f"ModelError {asked}: ")
        assert "operator torchvision::nms does not exist" in said
        assert (
            f"it needs a torchvision that fits this torch: install the one for torch {torch.__version__}"
            in said
        )
        assert ("or uninstall torchvision" in said) is asked.startswith("hf:")
        assert "\n" not in said


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ModuleNotFoundError("No module named 'timm'", name="timm"), ExtraError, r"patchprism\[timm\]"),
        (ModuleNotFoundError("No module named 'yaml'", name="yaml"), ModelError, "try pip install yaml"),
        (ImportError("cannot import name 'x'"), ModelError, "try pip install --upgrade timm"),
        (RuntimeError("boom\nmore"), ModelError, r"timm fails here \(boom\)"),
        (AttributeError("torchvision has no attribute 'x'"), ModelError, "needs a torchvision that fits"),
    ],
)
def test_failures_inside_a_package_are_one_line(error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught, inside("timm:x", "timm", "timm"):
        raise error
    assert "\n" not in str(caught.value)


def test_a_network_that_fails_on_a_shape_is_named(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(f"hf:{saved}")

    def fail(**_: Any) -> None:
        raise RuntimeError("The size of tensor a must match")

    monkeypatch.setattr(backbone.network, "forward", fail)
    with pytest.raises(ModelError, match=r"does not run on photos of 24 x 16 pixels \(The size"):
        backbone.patch_tokens(torch.zeros(1, 3, 16, 24))


def test_a_missing_network_is_reported_without_the_hubs_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client would try five more times, so it is not called if there is no network."""
    import huggingface_hub

    from patchprism.backbones import hub_files

    asked: list[bool] = []

    def download(*_: Any, local_files_only: bool, **__: Any) -> str:
        asked.append(local_files_only)
        raise huggingface_hub.errors.LocalEntryNotFoundError("not here")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    hub_files._hub_answers.cache_clear()
    for options in ({"name": "hf:owner/name"}, {"name": "dinov2_vits14", "weights": "hf:owner/name"}):
        with pytest.raises(WeightsError, match="cannot be reached"):
            load_backbone(**options)
    assert asked == [True, True]
    hub_files._hub_answers.cache_clear()


def test_hiera_has_its_layers_without_the_norm(tmp_path: Path) -> None:
    timm = import_timm()
    torch.manual_seed(0)
    network = timm.create_model("hiera_tiny_224").eval()
    torch.save(network.state_dict(), tmp_path / "hiera.pth")
    backbone = load_backbone("timm:hiera_tiny_224", weights=tmp_path / "hiera.pth")
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = network.forward_intermediates(pixels, indices=[3], norm=False, intermediates_only=True)[0]
    torch.testing.assert_close(backbone.patch_tokens(pixels, norm=False), expected.permute(0, 2, 3, 1))
    with pytest.raises(ModelError, match=r"final_norm=False"):
        backbone.patch_tokens(pixels)


def test_training_checkpoints_of_timms_networks(tmp_path: Path) -> None:
    timm = import_timm()
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224").eval()
    body = {name: each for name, each in network.state_dict().items() if not name.startswith("head")}
    torch.save(
        {"teacher": {f"module.backbone.{name}": each for name, each in body.items()}}, tmp_path / "t.pth"
    )
    backbone = load_backbone("timm:vit_tiny_patch16_224", weights=tmp_path / "t.pth")
    assert backbone.weights.taken_from == "teacher.module.backbone"
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = network.forward_features(pixels)[:, 1:].reshape(1, 14, 14, -1)
    torch.testing.assert_close(backbone.patch_tokens(pixels), expected)
    torch.save(body | {"junk": torch.zeros(1)}, tmp_path / "junk.pth")
    with pytest.raises(WeightsError, match="junk"):
        load_backbone("timm:vit_tiny_patch16_224", weights=tmp_path / "junk.pth")


def test_a_network_with_other_tokens_after_the_patches_is_refused(tmp_path: Path) -> None:
    import transformers

    options = {**VITS["dino"][1], "image_size": [32, 32]}
    name = save(transformers.YolosModel(transformers.YolosConfig(**options)), tmp_path)
    with pytest.raises(ModelError, match="not 6 patches after 1 prefix tokens"):
        load_backbone(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:", "must be hf:OWNER/NAME"),
        ("hf:./nowhere", "no such folder"),
        ("hf:a/b/c/d", "must be hf:OWNER/NAME"),
        ("hub:facebookresearch/dinov2", "not supported, because it runs code"),
        ("torch.hub:x", "not supported, because it runs code"),
    ],
)
def test_impossible_names(name: str, words: str) -> None:
    for ask in (find_record, load_backbone):
        with pytest.raises(ModelError, match=words):
            ask(name)


def test_offline_without_the_model_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for options in ({}, {"download": False}):
        with pytest.raises(WeightsError, match=r"patchprism download hf:owner/name.*hf:FOLDER"):
            load_backbone("hf:owner/name", **options)


def test_the_hubs_cache_is_used_and_its_commit_recorded(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--owner--name"
    shutil.copytree(saved, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    backbone = load_backbone("hf:owner/name")
    assert backbone.weights.source == f"hf:owner/name@{commit}"
    assert load_backbone(f"hf:owner/name@{commit}").weights.sha256 == backbone.weights.sha256


def test_weights_for_a_model_that_has_its_own() -> None:
    with pytest.raises(OptionError, match="has its own"):
        load_backbone("hf:owner/name", weights="some.pth")


def test_without_transformers(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ExtraError, match=r"patchprism\[hf\]"):
        load_backbone(f"hf:{saved}")


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ExtraError, match=r"patchprism\[timm\]"):
        find_record("timm:vit_tiny_patch16_224")


@pytest.mark.parametrize(
    "name", ["timm:no_such_network", "timm:vit_tiny_patch16_224.zz", "timm:hf-hub:owner/name"]
)
def test_impossible_timm_names(name: str) -> None:
    import_timm()
    with pytest.raises(ModelError, match="unknown model"):
        load_backbone(name)


def _fn(shape: tuple[int, ...], dtype: Any = None) -> Any:
    return lambda pixels: torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (_fn((1, 5, 2, 3)), r"got \(1, 5, 2, 3\); a network that puts channels first"),
        (_fn((1, 7, 5)), "drop the 1 prefix tokens"),
        (_fn((1, 5, 5)), r"must return \(B, h, w, D\) = \(1, 2, 3, D\)"),
        (_fn((2, 6, 5)), "must return"),
        (_fn((6,)), "must return"),
        (_fn((1, 6, 0)), "width"),
        (_fn((1, 6, 5), torch.int64), "floating point"),
        (lambda pixels: np.zeros((1, 6, 5)), "must return a tensor"),
    ],
)
def test_callable_that_returns_something_else(fn: Any, words: str) -> None:
    backbone = Backbone.from_callable(fn, patch_size=PATCH, mean=MEAN, std=STD, name="mine")
    with pytest.raises(ModelError, match=words):
        backbone.patch_tokens(torch.zeros(1, 3, 2 * PATCH, 3 * PATCH))


def test_callable_rows_of_patches_and_width() -> None:
    rows = Backbone.from_callable(
        lambda x: _patch_means(x).flatten(1, 2), patch_size=PATCH, mean=MEAN, std=STD
    )
    pixels = torch.randn(2, 3, 16, 40)
    assert rows.record.width == 0
    torch.testing.assert_close(rows.patch_tokens(pixels), _patch_means(pixels))
    assert rows.record.width == 6
    wrong = Backbone.from_callable(_patch_means, patch_size=PATCH, mean=MEAN, std=STD, width=7)
    with pytest.raises(ModelError, match="width 7, got 6"):
        wrong.patch_tokens(pixels)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch_size": 0}, "patch_size must be a whole number of at least 1"),
        ({"patch_size": 8.0}, "patch_size must be a whole number of at least 1"),
        ({"width": -1}, "width must be a whole number of at least 1"),
        ({"mean": [0.5]}, "mean must be three numbers"),
        ({"std": [1, 1, 0]}, "std must be three positive numbers"),
        ({"std": [1, 1, float("nan")]}, "std must be three positive numbers"),
        ({"name": ""}, "name must be a text that is not empty"),
        ({"fn": 3}, "fn must be callable"),
    ],
)
def test_callable_options(options: dict[str, Any], words: str) -> None:
    given = {"fn": _patch_means, "patch_size": 8, "mean": MEAN, "std": STD, **options}
    with pytest.raises(OptionError, match=words):
        Backbone.from_callable(given.pop("fn"), **given)
