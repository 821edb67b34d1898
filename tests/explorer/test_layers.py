"""Other layers and models in the page: one forward pass, colours turned to agree, and refusals."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import toys
from roads import extract_features
from typer.testing import CliRunner

import patchprism
from patchprism.backbones import Backbone
from patchprism.backbones.efficientnet import EfficientNetBackbone
from patchprism.cli.app import app
from patchprism.cli.flags import named_by_flags
from patchprism.errors import ModelError, OptionError, PatchPrismError
from patchprism.explorer import modes
from patchprism.explorer.build import build_message
from patchprism.explorer.carried import carry_layers
from patchprism.explorer.fit_requests import FitRequest, check_request, settings_of
from patchprism.explorer.layers import LayerBank, layers_info, shown_layers, turn_of
from patchprism.explorer.message import Message
from patchprism.explorer.work import MAX_FITS, Workshop
from patchprism.features.options import TokenOptions
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings

DEPTH = 8


class Deep(toys.Toy):
    """A toy with several layers of different tokens, which counts the photos that go through it."""

    def __init__(self):
        super().__init__()
        self.record = replace(self.record, name="deep", depth=DEPTH)
        self.seen = 0

    def _layers(self, pixels, layers, facet, norm):
        self.seen += (
            len(pixels) if pixels.any() else 0
        )  # zeros are only used to measure the width of the tokens
        tokens = super()._layers(pixels, [0], facet, norm)[0]
        return {layer: torch.sin(tokens * (1 + layer / 4)) for layer in layers}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toys.make_photos(tmp_path_factory.mktemp("photos"), 4)


@pytest.fixture(scope="module")
def seen(folder):
    return patchprism.visualize(folder, backbone=Deep(), size=48, layer=4)


@pytest.fixture
def deep():
    return Deep()


@pytest.fixture
def workshop(seen, deep):
    made = Workshop(seen, build_message(seen).to_bytes(), deep)
    yield made
    made.close()


def message_of(page):
    """The message inside a single file."""
    (data,) = re.findall(r'<script[^>]*id="message-data"[^>]*>([^<]*)<', page.read_text("utf-8"))
    return Message.from_bytes(base64.b64decode(data))


def asked(workshop, session, **wish):
    """Number of the fit that is made for a request."""
    job = workshop.start(session, FitRequest(**wish))
    end = time.monotonic() + 60
    while not job.over and time.monotonic() < end:
        time.sleep(0.005)
    assert job.state == "done", job.error
    return job.fit


def test_all_layers_come_from_one_forward_pass(workshop, deep, folder):
    session = workshop.session(workshop.open())
    for layer in (1, 5, 0, 2, 3):
        asked(workshop, session, layer=layer)
        alone = patchprism.visualize(folder, backbone=Deep(), size=48, layer=layer)
        for one, other in zip(session.view.parts, alone.parts, strict=True):
            np.testing.assert_array_equal(one.rgb, other.rgb)
            np.testing.assert_array_equal(one.score, other.score)
        assert Message.from_bytes(session.message).header["layers"] == {"depth": DEPTH, "shown": [layer]}
        assert session.view.prism.origin["layer"] == (-1 if layer == DEPTH - 1 else layer)
    assert deep.seen == 4  # photos, once each
    # If one photo is added, only this one goes through the network.
    session.staged.append(("new.png", np.random.default_rng(5).integers(0, 255, (48, 64, 3), np.uint8)))
    asked(workshop, session)
    assert (shown_layers(session.view), len(session.view), deep.seen) == ((3,), 5, 5)
    for layer in (2, 1):
        asked(workshop, session, layer=layer)
    assert (len(session.view), deep.seen) == (5, 6)


def test_with_little_memory_the_layers_nearest_to_the_requested_one_are_kept(seen, deep):
    a_layer = 4 * seen.features.n_patches * seen.record.width
    bank = LayerBank(3 * a_layer)
    for layer, total in ((4, 4), (3, 4), (5, 4), (0, 8), (2, 8), (4, 12)):
        settings = settings_of(seen, FitRequest(layer=layer))
        found = bank.tokens(
            seen.photos,
            deep,
            seen.framing,
            settings.token_options(),
            n_patches=seen.features.n_patches,
            told=lambda _: None,
        )
        assert deep.seen == total
        assert [each.index for each in found] == [0, 1, 2, 3]
        if layer == 4:
            for one, tokens in zip(found, seen.features, strict=True):
                np.testing.assert_array_equal(one.tokens, tokens)
    # Tokens of another kind replace the least recently used ones.
    other = settings_of(replace(seen, settings=seen.settings | {"token_norm": "l2"}), FitRequest(layer=4))
    bank.tokens(
        seen.photos,
        deep,
        seen.framing,
        other.token_options(),
        n_patches=seen.features.n_patches,
        told=lambda _: None,
    )
    assert sum(each.nbytes for each in bank._kept.values()) <= 3 * a_layer


def test_colours_of_a_layer_are_turned_like_in_compare(workshop, folder):
    session = workshop.session(workshop.open())
    number = asked(workshop, session, layer=1)
    turn = workshop.turn(session, number, session.roots[number])
    cells = patchprism.compare(folder, models=Deep(), layers=[4, 1], size=48).cells
    expected = cells[1].turn
    np.testing.assert_array_equal(turn["rotation"], expected.rotation)
    np.testing.assert_array_equal(turn["center"], expected.center)
    np.testing.assert_array_equal(turn["target"], expected.target)
    assert turn["residual"] == round(expected.residual, 6)
    assert turn["shuffled"] == round(expected.residual_shuffled, 6)
    assert (turn["shifted"], expected.residual_shifted) == (
        None,
        None,
    )  # too few patches are shared after the shift
    assert (turn["patches"], turn["reference"]["layers"]["shown"]) == (expected.n_shared, [4])
    kept = replace(session.view, features=session.view.features, photos=session.view.photos.subset([0, 1]))
    assert turn_of(kept, *(session.kept(0)[0], {})) is None  # other photos


def test_fits_of_other_layers_share_a_root_and_a_refit_is_a_new_root(workshop, deep):
    session = workshop.session(workshop.open())
    numbers = [asked(workshop, session, layer=layer) for layer in (0, 1, 2, 3, 5, 6)]
    assert {session.roots[number] for number in numbers} == {0}
    assert 0 in session.fits
    assert list(session.fits) == [0, *numbers[-MAX_FITS - 1 : -1]]
    # Kept fits are shown again, and removed ones are made again with the same result.
    assert asked(workshop, session, layer=4) == 0
    first = session.message
    assert asked(workshop, session, layer=0) == numbers[-1] + 1
    assert asked(workshop, session, layer=5) == numbers[4]
    assert asked(workshop, session, layer=4) == 0
    assert session.message is first
    refit = asked(workshop, session, threshold=0.5, foreground="above")
    assert session.roots[refit] == refit
    moved = asked(workshop, session, layer=2)
    assert session.roots[moved] == refit
    # No threshold of one layer's fit is applied to another's.
    assert session.view.prism.threshold == workshop.first[0].prism.threshold
    assert deep.seen == 4
    # A tab that is opened by a link shows the same, turned in the same way.
    other = workshop.session(workshop.open(next(iter(workshop._sessions))))
    assert (other.message, other.roots[other.fit], other.kept(0)) == (session.message, 0, session.kept(refit))


def test_a_second_fit_does_not_change_the_first(workshop):
    session = workshop.session(workshop.open())
    view, message = session.view, session.message
    number = asked(workshop, session, layer=2, aside=True)
    assert (session.view, session.message, session.fit, session.aside) == (view, message, 0, number)
    assert shown_layers(session.kept(number)[0]) == (2,)
    for layer in range(DEPTH):
        asked(workshop, session, layer=layer)
    assert session.kept(number)  # it is kept, however many fits follow
    assert asked(workshop, session, layer=2, aside=True) == number
    shown = session.fit
    assert asked(workshop, session, layer=5, aside=True) == session.aside != number
    assert session.fit == shown
    workshop._backbones["tiny"] = toys.tiny_transformer()
    other = asked(workshop, session, model="tiny", layer=1, aside=True)
    assert session.kept(other)[0].record.name == "tiny"
    assert session.view.record.name == "deep"
    assert session.roots[other] == 0
    assert workshop.turn(session, other, session.fit)["patches"] > 8  # grids of another patch size


def test_a_second_checkpoint_is_shown_beside_the_first(seen, deep, folder):
    tuned = Deep()
    tuned.matrix = torch.randn(tuned.matrix.shape, generator=torch.Generator().manual_seed(8)) / 12
    tuned.weights = replace(tuned.weights, sha256="1" * 64)
    name = "deep (tuned.pth)"
    workshop = Workshop(
        seen, build_message(seen).to_bytes(), deep, checkpoints={name: (tuned, "runs/tuned.pth")}
    )
    try:
        session = workshop.session(workshop.open())
        number = asked(workshop, session, model=name, aside=True)
        view, message = session.kept(number)
        alone = patchprism.visualize(folder, backbone=tuned, size=48, layer=4)  # the layer of A
        for one, other in zip(view.parts, alone.parts, strict=True):
            np.testing.assert_array_equal(one.rgb, other.rgb)
        header = Message.from_bytes(message).header
        assert (header["model"]["name"], header["layers"]["shown"]) == (name, [4])
        # The command and the prism contain the model and its weights.
        assert ["--model", "deep"] in header["command"]["options"]
        assert ["--weights", "runs/tuned.pth"] in header["command"]["options"]
        assert (view.prism.origin["model"], view.prism.origin["weights_sha256"]) == ("deep", "1" * 64)
        # When it becomes A, it keeps its weights, and the first checkpoint keeps its own.
        assert asked(workshop, session, model=name, layer=4) == number
        asked(workshop, session, layer=1)
        alone = patchprism.visualize(folder, backbone=tuned, size=48, layer=1)
        np.testing.assert_array_equal(session.view.parts[2].rgb, alone.parts[2].rgb)
        asked(workshop, session, model="deep", layer=1)
        alone = patchprism.visualize(folder, backbone=Deep(), size=48, layer=1)
        np.testing.assert_array_equal(session.view.parts[2].rgb, alone.parts[2].rgb)
        assert session.view.label == "deep"
        assert (deep.seen, tuned.seen) == (4, 4 + 8)
    finally:
        workshop.close()


def test_a_head_stays_with_its_layer(workshop):
    from patchprism.explorer.teach import teach_head

    session = workshop.session(workshop.open())
    session.head = teach_head(session.view, [(0, 0), (5, 1), (9, 1)], ["ground", "thing"], 10.0)
    asked(workshop, session, head=True)
    assert session.view.prism.method_ == "mask"
    asked(workshop, session, layer=1)
    assert (session.view.prism.foreground, session.view.prism.head_) == ("auto", None)


def test_networks_without_layers_are_reported(seen, tmp_path, folder):
    for layer in (DEPTH, -DEPTH - 1):
        with pytest.raises(ModelError, match=f"deep has no layer {layer}: layers are 0 to {DEPTH - 1}"):
            check_request(seen, FitRequest(layer=layer))
    stored = replace(seen, store=["feats.zarr"])
    assert layers_info(stored) is None
    with pytest.raises(OptionError, match="a feature store holds the tokens of its own layer only"):
        check_request(stored, FitRequest(layer=1))
    own = patchprism.visualize(features=[np.random.default_rng(0).normal(size=(5, 6, 9))] * 2)
    assert layers_info(own) is None
    assert build_message(own).header["layers"] is None
    assert layers_info(seen) == {"depth": DEPTH, "shown": [4]}
    together = patchprism.visualize(folder, backbone=Deep(), size=48, layer=(1, -1))
    assert layers_info(together) == {"depth": DEPTH, "shown": [1, DEPTH - 1]}


def test_a_message_contains_the_requested_layers(seen, deep, folder):
    message = carry_layers(build_message(seen), seen, deep, [2, -1], lambda *_: None)
    assert deep.seen == 4
    carried = Message.from_bytes(message.to_bytes())
    assert carried.header["carried"]["layers"] == [2, 4, DEPTH - 1]
    turns = carried.header["carried"]["turns"]
    assert {one: set(others) for one, others in turns.items()} == {
        "2": {"4", "7"},
        "4": {"2", "7"},
        "7": {"2", "4"},
    }
    np.testing.assert_allclose(
        turns["2"]["7"]["rotation"], np.transpose(turns["7"]["2"]["rotation"]), atol=1e-9
    )
    for layer in (2, 7):
        inside = Message.from_bytes(carried.parts[f"layer-{layer}"][2])
        alone = build_message(patchprism.visualize(folder, backbone=Deep(), size=48, layer=layer))
        for name in ("components", "scores", "tokens"):
            np.testing.assert_array_equal(inside.array(name), alone.array(name))
        assert inside.header["layers"] == {"depth": DEPTH, "shown": [layer]}
        assert not any(name.startswith("photo-") for name in inside.parts)
    assert sum(name.startswith("layer-") for name in carried.parts) == 2


@pytest.mark.parametrize("tokens", [["--token-norm", "l2"], ["--refine", "2", "--layer", "9"]])
def test_the_command_that_carries_layers_runs_the_network_once(tokens, folder, tmp_path, monkeypatch):
    sizes = []
    original = EfficientNetBackbone._layers

    def counted(self, pixels, layers, facet, norm):
        if pixels.any():  # zeros: layer_widths
            sizes.append(len(pixels))
        return original(self, pixels, layers, facet, norm)

    monkeypatch.setattr(EfficientNetBackbone, "_layers", counted)
    page = tmp_path / "page.html"
    words = [str(folder), "--model", "efficientnet_lite2", "--size", "64", *tokens]
    done = CliRunner().invoke(app, ["explore", *words, "--html", str(page), "--layers", "2,12"])
    assert done.exit_code == 0, done.output
    assert sum(sizes) == 4
    message = message_of(page)
    # The same as by a pass over the photos for each layer.
    own = message.header["layers"]["shown"][0]
    assert message.header["carried"]["layers"] == sorted({2, own, 12})
    for layer in (2, 12):
        inside = Message.from_bytes(message.parts[f"layer-{layer}"][2])
        options = {tokens[0][2:].replace("-", "_"): tokens[1] if tokens[1] == "l2" else int(tokens[1])}
        alone = build_message(
            patchprism.visualize(folder, model="efficientnet_lite2", size=64, layer=layer, **options)
        )
        for name in ("scores", "tokens"):
            np.testing.assert_array_equal(inside.array(name), alone.array(name))


def test_tokens_that_do_not_fit_into_memory_are_made_again(seen, deep):
    a_photo = 4 * seen.features.n_patches * seen.record.width * 2 // 4
    bank = LayerBank(2 * a_photo, wanted=[2])
    first = {
        each.index: each.tokens
        for each in bank.extract(seen.photos, deep, seen.framing, options=TokenOptions(layer=4))
    }
    for index, tokens in enumerate(seen.features):
        np.testing.assert_array_equal(first[index], tokens)
    assert (deep.seen, len(bank._kept)) == (4, 2)
    carry_layers(build_message(seen), seen, deep, [2], lambda *_: None, bank=bank)
    assert deep.seen == 4 + 2


def test_a_page_in_a_notebook_has_the_layers_that_are_asked_for(seen, deep, folder, monkeypatch):
    monkeypatch.setattr(modes, "carry_modes", lambda *_: None)  # clusters take their time
    page = seen.explore(title="Four", layers=(2, -1), backbone=deep)
    assert deep.seen == 4
    expected = build_message(seen, title="Four")
    carry_layers(expected, seen, Deep(), [2, -1], lambda *_: None)
    assert page.message.to_bytes() == expected.to_bytes()
    assert seen.explore(layers=4, backbone=deep).message.header["carried"] is None  # nothing to add
    assert seen.explore(layers=2, backbone=deep).message.header["carried"]["layers"] == [2, 4]
    # A network that is known by its name is loaded again.
    named = patchprism.visualize(folder, model="efficientnet_lite2", size=64)[:2]
    assert named.explore(layers=[3]).message.header["carried"]["layers"] == [3, 20]


def test_layers_that_no_page_can_have_are_refused_in_one_line(seen, deep, folder):
    def refused(view, **options):
        with pytest.raises(PatchPrismError) as caught:
            view.explore(**options)
        return str(caught.value)

    own = patchprism.visualize(features=[np.random.default_rng(0).normal(size=(5, 6, 9))] * 2)
    assert (
        refused(own, layers=2) == "layers needs a network with several layers; these are features of your own"
    )
    function = Backbone.from_callable(
        lambda pixels: pixels[:, :, ::14, ::14].movedim(1, -1),
        patch_size=14,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    flat = patchprism.visualize(folder, backbone=function, size=56, foreground="none")
    assert refused(flat, layers=0) == "layers needs a network with several layers; custom has one"
    stored = replace(seen, store=["feats.zarr"])
    assert refused(stored, layers=2) == "layers needs the photos: a feature store holds its own layer only"
    together = patchprism.visualize(folder, backbone=Deep(), size=48, layer=(1, -1))
    assert "these show layers 1, 7 together" in refused(together, layers=2)
    assert refused(seen, layers=DEPTH, backbone=deep).startswith(f"deep has no layer {DEPTH}: ")
    for wrong in ("2", True, 1.5, [], [2, None]):
        assert refused(seen, layers=wrong, backbone=deep).startswith("layers must ")
    assert "backbone must be a Backbone" in refused(seen, layers=2, backbone="deep")
    tuned = Deep()
    tuned.weights = replace(tuned.weights, sha256="1" * 64)
    for other in (tuned, toys.Toy()):
        expected = "backbone must be the network of these photos, deep"
        assert refused(seen, layers=2, backbone=other) == expected
    assert deep.seen == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--layers", "2,5"], "--layers needs --html"),
        (["--html", "p.html", "--checkpoint", "x.pth"], "--checkpoint needs photos and a served page"),
        (["--html", "p.html", "--layers", "2,x"], "--layers must be a number or several like 2,5,8,11"),
        (["--html", "p.html", "--layers", "2,21"], "has no layer 21: layers are 0 to 20"),
        (
            ["--html", "p.html", "--layers", "2", "--layer", "3,4"],
            "--layers needs exactly one layer in --layer, for example --layer 8",
        ),
    ],
)
def test_layers_that_a_file_cannot_contain_are_refused_in_one_line(
    words, told, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        app, ["explore", str(folder), "--model", "efficientnet_lite2", "--size", "64", *words]
    )
    assert isinstance(done.exception, PatchPrismError)
    line = named_by_flags(done.exception)
    assert told in line
    assert "\n" not in line
    assert list(tmp_path.iterdir()) == []


def test_a_store_has_no_other_layers(folder, tmp_path):
    with open_engine() as engine:
        settings = Settings(model="toy", size=48)
        extract_features([folder], tmp_path / "f.zarr", settings=settings, engine=engine, backbone=toys.Toy())
    words = ["explore", str(tmp_path / "f.zarr"), "--html", str(tmp_path / "p.html"), "--layers", "2"]
    done = CliRunner().invoke(app, words)
    line = named_by_flags(done.exception)
    assert line == "--layers needs the photos: a feature store contains only its own layer"
