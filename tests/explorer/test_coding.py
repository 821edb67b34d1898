"""Numbers and tokens in few bytes: what Python writes, Python and the page read; and what it costs in accuracy."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest

from patchprism.explorer import build, build_message
from patchprism.explorer import reduced as reduction
from patchprism.explorer.coding import decode, decode_rows, encode, encode_rows
from patchprism.explorer.html import encode85, encode128
from patchprism.explorer.tokens import Known, _Search, reduce_tokens

RNG = np.random.default_rng(3)
GRIDS = [(1, 1), (1, 7), (6, 1), (9, 12), (2, 2)]
N = sum(h * w for h, w in GRIDS)


def ramps():
    """Rows that are smooth over the photos, and tell of one another."""
    first = np.concatenate([np.add.outer(np.arange(h) * 900, np.arange(w) * -1300).ravel() for h, w in GRIDS])
    noise = RNG.integers(-40, 40, (3, N))
    return np.stack([first, 2 * first + noise[0], noise[1], first // 3 - noise[1] + noise[2]])


def numbers(name):
    n = 50_000
    classes = RNG.integers(0, 6, n)
    return {
        "nothing": (np.zeros(0, int), np.zeros(0, int)),
        "one": (np.array([-3]), np.array([5])),
        "zeros": (np.zeros(100, int), classes[:100]),
        "one of a class is large": (np.where(np.arange(5000) == 77, 1 << 29, 0), classes[:5000]),
        "escapes": (np.where(np.arange(5000) % 50 == 0, -41, 1), np.zeros(5000, int)),
        "all sizes": (np.rint(RNG.laplace(0, 1, n) * 12.0**classes / 20).astype(int), classes),
        "extremes": (np.array([1 << 30, -(1 << 30), 0, -1, 1] * 40), np.arange(200) % 5),
        "4000 rare ones": (np.where(RNG.random(n) < 0.001, RNG.integers(-31, 32, n), 0), classes),
    }[name]


NAMES = [
    "nothing",
    "one",
    "zeros",
    "one of a class is large",
    "escapes",
    "all sizes",
    "extremes",
    "4000 rare ones",
]

READ = """
import { readFileSync } from "node:fs";
import { Decoder, decodeRows, decodeText } from "./coding.mjs";
const [folder] = process.argv.slice(2);
const bytes = (name) => new Uint8Array(readFileSync(`${folder}/${name}`));
const { classes, grids, count, names } = JSON.parse(readFileSync(`${folder}/given.json`, "utf-8"));
const text = (name) => readFileSync(`${folder}/${name}`, "utf-8");
console.log(JSON.stringify({
  numbers: names.map((name, i) => {
    const decoder = new Decoder(bytes(`${i}`));
    return classes[i].map((c) => decoder.next(c));
  }),
  rows: Array.from(decodeRows(bytes("rows"), count, grids)),
  texts: [0, 1, 2].map((i) => ["85", "128"].map((code) => Array.from(decodeText(text(`text-${i}-${code}`), code)))),
}));
"""


@pytest.mark.parametrize("name", NAMES)
def test_numbers_come_back(name):
    values, classes = numbers(name)
    content = encode(values, classes, 6)
    np.testing.assert_array_equal(decode(content, classes), values)


def test_coding_comes_near_the_entropy():
    """Against the entropy of each class, which no code without knowledge of neighbours undercuts."""
    n = 200_000
    classes = RNG.integers(0, 3, n)
    values = np.rint(RNG.laplace(0, [0.15, 0.5, 2.0], (n, 3))[np.arange(n), classes]).astype(int)
    bits = 0.0
    for kind in range(3):
        counts = np.unique(values[classes == kind], return_counts=True)[1]
        bits -= (counts * np.log2(counts / counts.sum())).sum()
    assert len(encode(values, classes, 3)) < bits / 8 * 1.01 + 1000


def test_rows_come_back_and_prediction_pays():
    rows = ramps()
    content = encode_rows(rows, GRIDS)
    np.testing.assert_array_equal(decode_rows(content, len(rows), GRIDS), rows)
    smooth = np.add.outer(np.arange(64) * 900, np.arange(64) * 1300).reshape(1, -1)
    predicted = len(encode_rows(smooth, [(64, 64)]))
    assert predicted < 0.6 * len(encode(smooth[0], np.zeros(64 * 64, int), 1))


def texts():
    every = bytes(range(256)) * 3
    return [b"", b"\0\r<" * 50 + b"\x01\x02", every + bytes(RNG.integers(0, 256, 5000, dtype=np.uint8))]


def test_the_page_reads_what_python_writes(modules, tmp_path):
    given = {"names": NAMES, "classes": [], "grids": GRIDS, "count": 4}
    for i, name in enumerate(NAMES):
        values, classes = numbers(name)
        (tmp_path / f"{i}").write_bytes(encode(values, classes, 6))
        given["classes"].append(classes.tolist())
    rows = ramps()
    (tmp_path / "rows").write_bytes(encode_rows(rows, GRIDS))
    for i, content in enumerate(texts()):
        (tmp_path / f"text-{i}-85").write_text(encode85(content), "utf-8", newline="")
        (tmp_path / f"text-{i}-128").write_text(encode128(content), "utf-8", newline="")
    (tmp_path / "given.json").write_text(json.dumps(given))
    got = json.loads(modules(READ, tmp_path))
    for i, name in enumerate(NAMES):
        values, classes = numbers_again(tmp_path / f"{i}", given["classes"][i])
        np.testing.assert_array_equal(got["numbers"][i], values, err_msg=name)
    np.testing.assert_array_equal(np.reshape(got["rows"], rows.shape), rows)
    for content, (by85, by128) in zip(texts_again(tmp_path), got["texts"], strict=True):
        assert bytes(by85) == content
        # The last seven bits may bring another byte of zeros; a message knows its lengths.
        assert bytes(by128)[: len(content)] == content
        assert set(by128[len(content) :]) <= {0}


def numbers_again(path, classes):
    return decode(path.read_bytes(), np.array(classes, int)), classes


def texts_again(folder):
    import base64

    for i in range(3):
        yield base64.b85decode((folder / f"text-{i}-85").read_text("utf-8").replace(".", "<"))


def test_text_holds_nothing_that_html_spoils_and_is_short():
    for content in texts():
        for text in (encode85(content), encode128(content)):
            assert not set(text) & set("\0\r<")
        assert len(encode128(content).encode()) <= -(-len(content) * 8 // 7) + 2
    # Every character that can come at all, and runs of those that share one with the next.
    assert len(set(encode128(texts()[2]))) > 125


def unit(tokens):
    rows = np.concatenate([each.reshape(-1, each.shape[-1]) for each in tokens]).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


@pytest.mark.parametrize("name", ["random", "constant", "zero", "one patch", "low rank", "large"])
def test_reduced_tokens_keep_the_cosines(name):
    width = 24
    shapes = [(1, 1)] if name == "one patch" else GRIDS
    tokens = [RNG.normal(0.4, 1, (h, w, width)).astype(np.float32) for h, w in shapes]
    if name in ("constant", "zero"):
        tokens = [np.full_like(each, name == "constant") for each in tokens]
    if name == "low rank":
        plane = RNG.normal(size=(2, width))
        tokens = [(each[..., :2] @ plane).astype(np.float32) for each in tokens]
    if name == "large":
        tokens = [each * np.float32(1e18) for each in tokens]
    reduced = reduce_tokens(tokens)
    full = unit(tokens) @ unit(tokens).T
    error = np.abs(reduced.cosine(np.arange(len(full))) - full)
    np.fill_diagonal(error, 0)
    assert error.max() <= 0.02
    assert reduced.error["within"] == 1.0
    assert reduced.error["max"] == pytest.approx(error.max(), abs=2e-5)
    assert reduced.error["pairs"] == reduced.error["of"] == len(full) * (len(full) - 1) / 2


@pytest.mark.parametrize("block", [1 << 23, 1000])
def test_pairs_that_are_off_are_corrected_and_no_others(view, monkeypatch, block):
    """With far too coarse steps many pairs are off; each is corrected once, to within the tolerance."""
    monkeypatch.setattr(reduction, "_BLOCK", block)
    monkeypatch.setattr(_Search, "best_scale", lambda self, allowed: 0.2)
    tokens = list(view.features)
    full = unit(tokens) @ unit(tokens).T
    n = len(full)
    reduced = reduce_tokens(tokens)
    none = np.zeros(0, np.int64)
    before = replace(reduced, corrected=none, corrections=none).cosine(np.arange(n)) - full
    after = reduced.cosine(np.arange(n)) - full
    off = np.triu(np.abs(before) > 0.02, 1)
    assert off.mean() > 0.01
    corrected = np.zeros(n * n, bool)
    corrected[reduced.corrected] = True
    assert len(reduced.corrected) == corrected.sum()
    corrected = corrected.reshape(n, n)
    assert (corrected | ~off).all()  # all that are off
    assert np.abs(before)[corrected].min() > 0.01998  # and, but for rounding, no others
    others = ~(corrected | corrected.T)
    np.testing.assert_allclose(after[others], before[others], rtol=0, atol=1e-9)
    np.fill_diagonal(after, 0)
    assert np.abs(after).max() <= 0.02
    np.testing.assert_allclose(after, after.T, rtol=0, atol=1e-9)


def test_of_many_patches_a_sample_is_measured(view, monkeypatch):
    tokens = list(view.features)
    monkeypatch.setattr(reduction, "CHECKED_PATCHES", 100)
    reduced = reduce_tokens(tokens)
    n = sum(each.shape[0] * each.shape[1] for each in tokens)
    assert len(reduced.corrected) == 0
    assert reduced.error["pairs"] == min(n, reduction._MEASURED_QUERIES) * (n - 1)
    assert reduced.error["of"] == n * (n - 1) / 2
    error = np.abs(reduced.cosine(np.arange(n)) - unit(tokens) @ unit(tokens).T)[~np.eye(n, dtype=bool)]
    assert reduced.error["within"] == pytest.approx((error <= 0.02).mean(), abs=2e-4)
    assert 0.999 <= reduced.error["within"] < 1


def size_of(codes, classes):
    """In bytes, as they travel: the tables deflated."""
    return len(zlib.compress(encode(codes, classes, 48)))


def test_fewer_bytes_are_kept_to(view):
    tokens = list(view.features)
    plain = reduce_tokens(tokens)
    codes, classes = plain.coded()
    whole = size_of(codes, classes)

    def bytes_and_error(allowed):
        less = reduce_tokens(tokens, allowed=allowed)
        assert less.error["max"] <= 0.02
        return size_of(*less.coded()) + size_of(*less.coded_corrections()), less.error["median"]

    size, error = bytes_and_error(0.92 * whole)
    assert 0.85 * 0.92 * whole < size < 1.04 * 0.92 * whole + 500
    assert plain.error["median"] < error < 0.02
    # Fewer than corrections would add again: as few as can be, and every pair still within the tolerance.
    least, worse = bytes_and_error(0.2 * whole)
    assert 0.2 * whole < least <= size
    assert error <= worse < 0.02


def test_what_is_known_does_not_travel_twice(view):
    """The components' coordinates make tokens smaller, and similarities no worse."""
    tokens = list(view.features)
    axes = np.linalg.qr(view.prism.scene_components_.T)[0].T.astype(np.float32)
    known = Known((axes @ unit(tokens).T).astype(np.float32), axes)
    sizes = []
    for reduced in (reduce_tokens(tokens), reduce_tokens(tokens, known)):
        sizes.append(size_of(*reduced.coded()))
    assert sizes[1] < 0.95 * sizes[0]


def test_the_page_says_what_its_similarities_cost(view, modules, tmp_path, monkeypatch):
    """The figure below the photos, against all pairs as the page computes them."""
    made = []
    monkeypatch.setattr(
        build, "reduce_tokens", lambda *given, **how: made.append(reduce_tokens(*given, **how)) or made[-1]
    )
    message = build_message(view)
    (tmp_path / "message").write_bytes(message.to_bytes())
    script = """
    import { readFileSync, writeFileSync } from "node:fs";
    import { readMessage } from "./message.mjs";
    import { Model } from "./model.mjs";
    const model = new Model(await readMessage(new Uint8Array(readFileSync(process.argv[2]))));
    const all = new Float32Array(model.count * model.count);
    for (let i = 0; i < model.count; i++) all.set(model.similarity.of(i), i * model.count);
    writeFileSync(process.argv[3], new Uint8Array(all.buffer));
    """
    modules(script, tmp_path / "message", tmp_path / "all")
    rows = unit(list(view.features))
    page = np.fromfile(tmp_path / "all", np.float32).reshape(len(rows), -1)
    python = made[0].cosine(np.arange(len(rows)))
    np.fill_diagonal(python, 1.0)
    np.testing.assert_allclose(page, python, atol=3e-6)
    error = np.abs(page - rows @ rows.T)
    np.testing.assert_allclose(np.diag(error), 0, atol=1e-6)
    error = error[~np.eye(len(rows), dtype=bool)]
    told = message.header["tokens"]["error"]
    assert told["pairs"] == told["of"] == len(error) / 2
    assert told["within"] == 1.0
    assert told["median"] == pytest.approx(np.median(error), rel=0.02)
    assert told["max"] == pytest.approx(error.max(), abs=2e-5)
    assert error.max() <= 0.02
    assert len(made[0].corrected) > 0
