"""The page and Python compute the same bytes, for a table of settings."""

from __future__ import annotations

import itertools
import json
import re
import shlex

import numpy as np
import pytest
from typer.testing import CliRunner

from patchprism.cli.app import app
from patchprism.explorer import Message, build_message
from patchprism.explorer.html import MODULES
from patchprism.pictures.render import paint
from patchprism.pictures.sheet import viridis
from patchprism.prism.axes import split_at
from patchprism.prism.colors import scale_range, scale_sigmoid
from patchprism.prism.estimator import Prism
from patchprism.prism.morphology import clean
from patchprism.prism.oklab import fill_cube
from patchprism.support.arrays import to_uint8
from patchprism.views.visualize import visualize

MODEL, SIZE = "efficientnet_lite2", 160  # like the view in conftest.py

PAGE = """
import { readFileSync, writeFileSync } from "node:fs";
import { readMessage } from "./message.mjs";
import { Model } from "./model.mjs";
import { initialState, commandText } from "./state.mjs";
const [file, table, out] = process.argv.slice(2);
const model = new Model(await readMessage(new Uint8Array(readFileSync(file))));
const settings = JSON.parse(readFileSync(table, "utf-8"));
const results = settings.map((patch, i) => {
  const state = { ...initialState(model.header), ...patch };
  model.update(state);
  const { colors, visible } = model.layer(state);
  writeFileSync(`${out}/${i}.prism.safetensors`, model.prism(state));
  const size = model.photos[0].size;
  const over = patch.mode === "overlay" || state.background === "photo";
  const pixels = over ? new Uint8Array(readFileSync(`${out}/photo.rgba`)) : null;
  return {
    colors: Array.from(colors), visible: visible && Array.from(visible), mask: Array.from(model.mask),
    picture: Array.from(model.picture(0, state, size, pixels)), command: commandText(model.header, state),
  };
});
writeFileSync(`${out}/results.json`, JSON.stringify(results));
"""

TABLE = [
    *(
        {"components": components, "scaling": scaling, "basis": basis}
        for components, scaling, basis in itertools.product(
            ([1, 2, 3], [-1, 2, -3], [8, -5, 4], [2, 2, -2]),
            ("minmax", "percentile", "sigmoid"),
            ("object", "all"),
        )
    ),
    *(
        {"threshold": threshold, "side": side, "opening": opening, "closing": closing, "basis": basis}
        for threshold, side, opening, closing, basis in (
            (0.3, "above", 0, 0, "object"),
            (0.3, "below", 1, 0, "object"),
            (0.55, "above", 0, 2, "all"),
            (0.55, "below", 1, 1, "all"),
            (0.7, "above", 2, 1, "object"),
            (0.123, "none", 3, 3, "object"),
            (0.0, "above", 0, 0, "all"),
            (0.4, "none", 0, 0, "all"),  # all patches
            (1.0, "above", 0, 0, "object"),  # no foreground
        )
    ),
    *(
        {"space": "oklab", "components": components, "scaling": scaling, "basis": basis}
        for components, scaling, basis in (
            ([1, 2, 3], "minmax", "object"),
            ([8, -5, 4], "percentile", "object"),
            ([-1, 2, -3], "sigmoid", "object"),
            ([1, 2, 3], "minmax", "all"),
            ([3, -1, 6], "minmax", "all"),
        )
    ),
    {"mode": "overlay", "alpha": 0.37, "threshold": 0.45, "side": "above"},
    {"mode": "overlay", "alpha": 1.0, "basis": "all"},
    {"mode": "score", "threshold": 0.45, "side": "above"},
    {"background": "grey", "threshold": 0.45, "side": "above"},
    {"background": "photo", "threshold": 0.45, "side": "above"},
]


def by_python(view, setting):
    """The view that `render` makes with these settings."""
    components = setting.get("components", [1, 2, 3])
    mask = {}
    if setting.get("side") == "none" and setting.get("basis") == "all":
        setting = {"basis": "all"}
        mask["foreground"] = "none"  # colours are scaled over all patches
    if "side" in setting:
        mask["mask_side"] = setting["side"]
        if setting["side"] != "none":
            mask["mask_threshold"] = setting["threshold"]
    prism = Prism(
        scaling=setting.get("scaling", "minmax"),
        components=tuple(components),
        space=setting.get("space", "rgb"),
        opening=setting.get("opening", 0),
        closing=setting.get("closing", 0),
        **mask,
    ).fit(view.features)
    return [prism.split(tokens) for tokens in view.features]


@pytest.fixture(scope="module")
def results(view, modules, tmp_path_factory):
    out = tmp_path_factory.mktemp("bytes")
    (out / "message").write_bytes(build_message(view).to_bytes())
    (out / "table.json").write_text(json.dumps(TABLE))
    photo = view.photos.read(0)
    rgba = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
    (out / "photo.rgba").write_bytes(rgba.tobytes())
    modules(PAGE, out / "message", out / "table.json", out)
    return out, json.loads((out / "results.json").read_text())


def flat(arrays):
    return np.concatenate([np.reshape(array, (-1, *array.shape[2:])) for array in arrays])


@pytest.mark.parametrize(
    "index", range(len(TABLE)), ids=lambda i: ",".join(f"{v}" for v in TABLE[i].values())
)
def test_masks_and_colours_are_the_same_bytes(view, results, index):
    setting, result = TABLE[index], results[1][index]
    parts = by_python(view, setting)
    mask = flat([part.foreground for part in parts])
    np.testing.assert_array_equal(np.array(result["mask"], bool), mask)
    colors = np.array(result["colors"], np.uint8).reshape(-1, 3)
    if setting.get("mode") == "score":
        np.testing.assert_array_equal(colors, to_uint8(viridis(flat([part.score for part in parts]))))
    elif setting.get("basis") == "all":
        np.testing.assert_array_equal(colors, to_uint8(flat([part.rgb_all for part in parts])))
    else:
        shown = np.array(result["visible"], bool)
        np.testing.assert_array_equal(colors * shown[:, None], to_uint8(flat([part.rgb for part in parts])))
    # Otherwise, the table would not test anything.
    assert mask.any() != (setting.get("threshold") == 1.0)


@pytest.mark.parametrize(
    "index", range(len(TABLE)), ids=lambda i: ",".join(f"{v}" for v in TABLE[i].values())
)
def test_the_downloaded_prism_gives_the_same_bytes(view, results, index):
    out, answers = results
    setting = TABLE[index]
    prism = Prism.load(out / f"{index}.prism.safetensors")
    for part, again in zip(by_python(view, setting), map(prism.split, view.features), strict=True):
        np.testing.assert_array_equal(again.foreground, part.foreground)
        np.testing.assert_array_equal(again.rgb_all, part.rgb_all)
        if (
            setting.get("side") != "none" or setting.get("basis") != "all"
        ):  # otherwise, the object PCA belongs to another fit
            np.testing.assert_array_equal(again.rgb, part.rgb)
    assert answers[index]["command"].startswith("patchprism render ")


@pytest.mark.parametrize("index", range(len(TABLE) - 5, len(TABLE)))
def test_pictures_at_the_photos_resolution_are_the_same_bytes(view, results, index):
    from dataclasses import replace

    setting = TABLE[index]
    parts = by_python(view, setting)
    shown = replace(view, parts=parts)
    if setting.get("mode") == "score":
        expected = paint(viridis(parts[0].score), crop=view.crops[0], size=view.sizes[0])
    else:
        expected = shown.picture(
            0,
            overlay_alpha=setting.get("alpha"),
            upsample="nearest",
            background=setting.get("background", "black"),
            basis=setting.get("basis", "object"),
        )
    got = np.array(results[1][index]["picture"], np.uint8).reshape(*view.sizes[0], 4)
    np.testing.assert_array_equal(got[..., :3], expected)
    assert (got[..., 3] == 255).all()


@pytest.mark.parametrize("index", [10, 11, 25, 26, 27, 28, *range(len(TABLE) - 10, len(TABLE))])
def test_the_command_reproduces_the_view(view, results, index, tmp_path):
    """The command that the page shows gives the same pictures as the page."""
    setting, result = TABLE[index], results[1][index]
    words = shlex.split(result["command"])
    assert words[0] == "patchprism"
    assert words[-2:] == ["--out", "out"]
    done = CliRunner().invoke(app, [*words[1:-1], str(tmp_path), "--arrays"], catch_exceptions=False)
    assert done.exit_code == 0
    from PIL import Image

    name = "cat.overlay.png" if setting.get("mode") == "overlay" else "cat.pca.png"
    made = np.asarray(Image.open(tmp_path / name))
    shown = np.array(result["picture"], np.uint8).reshape(*view.sizes[0], 4)[..., :3]
    if setting.get("mode") == "score":
        with np.load(tmp_path / "cat.npz") as arrays:
            made = paint(viridis(arrays["score"]), crop=view.crops[0], size=view.sizes[0])
    np.testing.assert_array_equal(made, shown)


def test_a_prism_from_elsewhere_keeps_its_ranges(view, photo_files, modules, tmp_path):
    """A prism of two photos is used for another photo; its ranges must be used, not those of the shown photo."""
    fitted = visualize(photo_files[:2], model=MODEL, size=SIZE, scaling="percentile", components=(2, -1, 3))
    other = visualize(photo_files[2:], prism=fitted.prism)
    (tmp_path / "message").write_bytes(build_message(other, prism_path="mine.safetensors").to_bytes())
    (tmp_path / "table.json").write_text(
        json.dumps([{}, {"basis": "all"}, {"scaling": "sigmoid", "opening": 1}])
    )
    modules(PAGE, tmp_path / "message", tmp_path / "table.json", tmp_path)
    plain, everything, changed = json.loads((tmp_path / "results.json").read_text())
    shown = np.array(plain["visible"], bool)[:, None]
    colors = np.array(plain["colors"], np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(colors * shown, to_uint8(flat(other.colors)))
    got = np.array(everything["colors"], np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(got, to_uint8(flat(other.colors_all)))
    assert "--prism mine.safetensors" in plain["command"]
    assert "--threshold" not in plain["command"].replace("--mask-threshold", "")
    # The prism determines the scaling, so the command needs the prism that the page saves.
    assert "--prism explored.prism.safetensors" in changed["command"]
    prism = Prism.load(tmp_path / "2.prism.safetensors")
    again = prism.split(other.features[0])
    shown = np.array(changed["visible"], bool)
    np.testing.assert_array_equal(again.foreground.ravel(), shown)
    colors = np.array(changed["colors"], np.uint8).reshape(-1, 3) * shown[:, None]
    np.testing.assert_array_equal(colors, to_uint8(again.rgb.reshape(-1, 3)))


WORDS = """
import { inControls } from "./words.mjs";
console.log(JSON.stringify(process.argv.slice(2).map((text) => [inControls(text, true), inControls(text, false)])));
"""


def test_the_page_words_hints_with_the_names_of_its_controls(modules):
    said = json.loads(
        modules(
            WORDS,
            "try foreground='object', or keep all patches with foreground='none'",
            "try foreground='above', foreground='below' or foreground='none'",
            "of b=c.png: say with range=(0, 4095) what is white",
            "query?foreground='none' of a file",
        )
    )
    assert said == [
        [
            "try the method “Unlike the borders”, or keep all patches with the method “Keep everything”",
            "try the option --foreground object, or keep all patches with “Keep: everything”",
        ],
        [
            "try the method “Component, high”, the method “Component, low” or the method “Keep everything”",
            "try “Keep: high”, “Keep: low” or “Keep: everything”",
        ],
        ["of b=c.png: say with the option --range 0,4095 what is white"] * 2,
        ["query?foreground='none' of a file"] * 2,
    ]


UNIT = """
import { readFileSync } from "node:fs";
import * as math from "./math.mjs";
import { fillCube } from "./oklab.mjs";
const { values, low, high, deviation, floats, masks, tenths, cubes } =
  JSON.parse(readFileSync(process.argv[2], "utf-8"));
console.log(JSON.stringify({
  range: values.map((v) => math.toUint8(math.scaleRange(v, low, high))),
  flat: values.map((v) => math.scaleRange(v, high, low)),
  sigmoid: values.map((v) => math.toUint8(math.scaleSigmoid(v, deviation))),
  above: tenths.map((t) => Array.from(math.splitAt(Float32Array.from(tenths), t, "above"))),
  below: tenths.map((t) => Array.from(math.splitAt(Float32Array.from(tenths), t, "below"))),
  lab: cubes.flatMap((cube) => {
    const values = Float32Array.from(cube);
    fillCube(values, 0);
    return Array.from(values);
  }),
  still: values.map((v) => math.scaleSigmoid(v, 0)),
  bytes: floats.map((v) => math.toUint8(Math.fround(v))),
  masks: masks.map(({ mask, h, w, opening, closing }) =>
    Array.from(math.cleanMask(Uint8Array.from(mask), h, w, opening, closing))),
}));
"""


def test_scaling_rounding_and_morphology_value_by_value(modules, tmp_path):
    rng = np.random.default_rng(5)
    low, high, deviation = -1.7, 2.3, 0.9
    values = np.concatenate(
        [rng.normal(0, 2, 3000), [low, high, 0.0, -0.0, 1e308, -1e308, np.nextafter(high, 9)]]
    )
    # Every boundary between two bytes, and the floats next to it.
    halves = ((np.arange(255) + 0.5) / 255).astype(np.float32)
    floats = np.concatenate(
        [halves, np.nextafter(halves, np.float32(2)), np.nextafter(halves, np.float32(-1)), [0.5]]
    )
    masks = []
    for h, w in ((1, 1), (1, 9), (7, 1), (12, 17)):
        for opening, closing in ((0, 0), (1, 0), (0, 1), (2, 3)):
            mask = (rng.random((h, w)) < 0.6).astype(int)
            masks.append(
                {"mask": mask.ravel().tolist(), "h": h, "w": w, "opening": opening, "closing": closing}
            )
    given = {"values": values.tolist(), "low": low, "high": high, "deviation": deviation}
    given |= {"floats": floats.astype(float).tolist(), "masks": masks}
    cubes = np.concatenate([rng.random((20_000, 3)), np.indices((5, 5, 5)).reshape(3, -1).T / 4])
    cubes = cubes.astype(np.float32)
    # A threshold is compared as float32, so that 0.1 is not above 0.1, although one of them is a float64.
    tenths = [i / 10 for i in range(11)]
    (tmp_path / "given.json").write_text(
        json.dumps({**given, "tenths": tenths, "cubes": cubes.astype(float).tolist()})
    )
    got = json.loads(modules(UNIT, tmp_path / "given.json"))
    np.testing.assert_array_equal(got["range"], to_uint8(scale_range(values, low, high)))
    np.testing.assert_array_equal(got["flat"], scale_range(values, high, low))
    np.testing.assert_array_equal(got["sigmoid"], to_uint8(scale_sigmoid(values, deviation)))
    # Not only bytes, but every float32 must agree.
    np.testing.assert_array_equal(np.reshape(got["lab"], (-1, 3)).astype(np.float32), fill_cube(cubes))
    np.testing.assert_array_equal(got["still"], scale_sigmoid(values, 0.0))
    for side in ("above", "below"):
        expected = [split_at(np.array(tenths, np.float32), threshold, side) for threshold in tenths]
        np.testing.assert_array_equal(np.array(got[side], bool), expected)
    np.testing.assert_array_equal(got["bytes"], to_uint8(floats.astype(np.float32)))
    for each, answer in zip(masks, got["masks"], strict=True):
        mask = np.array(each["mask"], bool).reshape(each["h"], each["w"])
        expected = clean(mask, opening=each["opening"], closing=each["closing"])
        np.testing.assert_array_equal(np.array(answer, bool).reshape(mask.shape), expected)


def test_similarity_in_the_page_equals_that_in_python(view, modules, tmp_path):
    message = build_message(view)
    (tmp_path / "message").write_bytes(message.to_bytes())
    script = """
    import { readFileSync } from "node:fs";
    import { readMessage } from "./message.mjs";
    import { Model } from "./model.mjs";
    const model = new Model(await readMessage(new Uint8Array(readFileSync(process.argv[2]))));
    const rows = [0, 7, model.count - 1].map((i) => Array.from(model.similarity.of(i)));
    const matches = model.matches({ photo: 0, index: 5 }, true);
    const between = model.similarity.between(7, model.count - 1);
    const scored = { threshold: model.header.fit.threshold, side: model.header.fit.side, opening: 0, closing: 0 };
    model.update({ ...scored, basis: "object", components: [1, 2, 3], scaling: "minmax", space: "rgb" });
    const kept = model.matches({ photo: 0, index: 5 });
    const n = model.photos[1].start;
    const back = matches.map(({ patch }) => Array.from(model.similarity.within(0, patch).subarray(0, n)));
    const whole = matches.map(({ patch }) => Array.from(model.similarity.of(patch).subarray(0, n)));
    console.log(JSON.stringify({ rows, matches, between, kept, back, whole }));
    """
    got = json.loads(modules(script, tmp_path / "message"))
    rows = flat(list(view.features)).astype(float)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = [0, 7, len(rows) - 1]
    full = rows[chosen] @ rows.T
    error = np.abs(np.array(got["rows"]) - full)
    assert (error <= 0.03).mean() > 0.99
    assert error.max() < 0.06
    for row, query in zip(got["rows"], chosen, strict=True):
        assert row[query] == 1.0
    starts = np.cumsum([0, *(h * w for h, w in view.features.grids)])
    assert got["between"] == pytest.approx(got["rows"][1][-1], abs=1e-3)
    # The best match first; only in the foreground, unless requested otherwise.
    assert sorted(match["photo"] for match in got["matches"]) == [1, 2]
    assert got["matches"][0]["value"] >= got["matches"][1]["value"]
    foreground = np.concatenate([part.foreground.ravel() for part in view.parts])
    for match in got["kept"]:
        part = slice(starts[match["photo"]], starts[match["photo"] + 1])
        allowed = np.where(foreground[part], rows[part] @ rows[5], -2)
        assert foreground[match["patch"]]
        assert allowed[match["patch"] - part.start] > allowed.max() - 0.06
    for match in got["matches"]:
        part = rows[starts[match["photo"]] : starts[match["photo"] + 1]] @ rows[5]
        assert part[match["patch"] - starts[match["photo"]]] > part.max() - 0.06
        back = rows[: starts[1]] @ rows[match["patch"]]
        if back.argmax() != 5 and back.max() - back[5] > 0.12:
            assert not match["mutual"]
    # A pin gets the same matches from its own photo alone as from the whole page.
    np.testing.assert_array_equal(got["back"], got["whole"])
    assert [match["mutual"] for match in got["matches"]] == [np.argmax(row) == 5 for row in got["whole"]]


def test_names_stay_unique_when_the_modules_are_combined():
    from importlib import resources

    taken: dict[str, str] = {}
    for name in MODULES:
        text = (resources.files("patchprism.explorer") / "page" / f"{name}.js").read_text("utf-8")
        for found in re.findall(
            r"^(?:export )?(?:async )?(?:const|let|class|function) (\w+)", text, re.MULTILINE
        ):
            assert found not in taken, f"{found} is in {name}.js and in {taken[found]}.js"
            taken[found] = name
        for needed in re.findall(r'from "\./(\w+)\.js"', text):
            assert MODULES.index(needed) < MODULES.index(name)
    assert len(taken) > 40


def test_a_message_is_read_as_it_was_written(view):
    message = build_message(view)
    again = Message.from_bytes(message.to_bytes())
    assert again.header == message.header
    assert again.parts == message.parts
    codes = again.array("components")[len(again.header["scene"]["step"]) :]
    steps = np.array(again.header["object"]["step"])
    expected = flat(
        [view.prism.object_components(tokens.reshape(-1, tokens.shape[-1]))[None] for tokens in view.features]
    )
    np.testing.assert_array_equal(codes.T * steps, expected)


def test_the_command_contains_the_options_of_the_tokens(view, photo_files):
    from dataclasses import replace

    assert not {"--layer=-1", "--token-norm=none"} & {
        word for words in build_message(view).header["command"]["options"] for word in words
    }
    other = replace(
        view, settings={**view.settings, "layer": -2, "facet": "key", "token_norm": "l2", "final_norm": False}
    )
    words = [word for words in build_message(other).header["command"]["options"] for word in words]
    assert words[-4:] == ["--layer=-2", "--facet=key", "--token-norm=l2", "--no-final-norm"]
    known = CliRunner().invoke(app, ["render", "--help-all"], env={"COLUMNS": "200"}).output
    for word in words[::1]:
        if word.startswith("--"):
            assert word.partition("=")[0] in known
