"""The page's linear head compared with Python's: the same weights for the same tokens, and the same file."""

from __future__ import annotations

import json

import numpy as np
import pytest

import patchprism
from patchprism.explorer.tokens import AXIS_STEPS, reduce_tokens
from patchprism.prism.head import _solve, decisions


def marked(rng, n_classes, width=24, photos=3, side=9):
    """Tokens of photos, and marks [[patch, class], ...] on some of their patches."""
    tokens = rng.normal(size=(photos, side, side, width)).astype(np.float32) + 2 * rng.normal(
        size=width
    ).astype(np.float32)
    flat = tokens.reshape(-1, width)
    patches = rng.choice(len(flat), 20 * n_classes, replace=False)
    classes = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, len(patches) - n_classes)])
    flat[patches, classes] += 2.5
    return tokens, sorted(zip(patches.tolist(), classes.tolist(), strict=True))


def masks_of(tokens, marks):
    labels = np.full(tokens.shape[:3], -1)
    for patch, number in marks:
        labels.reshape(-1)[patch] = number
    return list(labels)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_page_finds_the_same_weights_as_python(modules, tmp_path, n_classes):
    tokens, marks = marked(np.random.default_rng(n_classes), n_classes)
    head = patchprism.Head().fit(tokens, masks_of(tokens, marks))
    rows = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows.tofile(tmp_path / "rows.bin")
    (tmp_path / "case.json").write_text(
        json.dumps({"marks": marks, "width": rows.shape[1], "count": n_classes})
    )
    head.save(tmp_path / "python.head.safetensors")
    text = modules(
        """
        import fs from "fs";
        import { decisionsOf, readDecisions, readHead, writeHead } from "./head.mjs";
        import { HeadFit } from "./headfit.mjs";
        const folder = process.argv[2];
        const { marks, width, count } = JSON.parse(fs.readFileSync(`${folder}/case.json`));
        const bytes = fs.readFileSync(`${folder}/rows.bin`);
        const all = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
        const rows = new Float64Array(marks.length * width);
        marks.forEach(([patch], i) => rows.set(all.subarray(patch * width, (patch + 1) * width), i * width));
        const fit = new HeadFit({ rows, width, classes: marks.map(([, k]) => k), count });
        fit.run();
        // Interrupted and begun from elsewhere, it ends at the same place.
        const start = fit.at.map((value, i) => value + Math.sin(i));
        const again = new HeadFit({ rows, width, classes: marks.map(([, k]) => k), count, start });
        while (!again.run(0)) {}
        const given = readHead(new Uint8Array(fs.readFileSync(`${folder}/python.head.safetensors`)));
        const origin = { dtype: "float32" };
        const said = { classes: given.classes, C: 10, photos: given.photos, patches: fit.sizes, origin };
        fs.writeFileSync(`${folder}/page.head.safetensors`, writeHead({ ...fit.head, ...said }));
        const ones = new Float64Array(width).fill(1);
        const decided = decisionsOf(given, { codes: all, count: all.length / width }, ones);
        const read = readDecisions(decided, count);
        const { score, sure, classes } = read;
        console.log(JSON.stringify({ decided: [...decided], classes: [...classes], score: [...score], sure: [...sure],
          again: [...again.head.weights] }));
        """,
        tmp_path,
    )
    found = json.loads(text)
    page = patchprism.Head.load(tmp_path / "page.head.safetensors")
    scale = np.abs(head.weights_).max()
    np.testing.assert_allclose(page.weights_, head.weights_, atol=1e-5 * scale)
    np.testing.assert_allclose(page.bias_, head.bias_, atol=1e-5 * scale)
    np.testing.assert_allclose(
        np.reshape(found["again"], head.weights_.shape), head.weights_, atol=1e-5 * scale
    )
    assert (page.classes_, page.n_photos_, page.n_patches_) == (
        head.classes_,
        head.n_photos_,
        head.n_patches_,
    )
    assert page.origin == {"dtype": "float32"}
    # Python's head makes exactly the same decisions on the same tokens.
    np.testing.assert_array_equal(
        np.reshape(found["decided"], (-1, n_classes)),
        decisions(tokens, head.weights_, head.bias_).reshape(-1, n_classes),
    )
    np.testing.assert_array_equal(
        found["classes"], np.concatenate([each.ravel() for each in head.predict(tokens)])
    )
    shares = np.concatenate([each.reshape(-1, n_classes) for each in head.predict_proba(tokens)])
    np.testing.assert_allclose(found["score"], 1 - shares[:, 0], atol=1e-6)
    np.testing.assert_allclose(found["sure"], shares[np.arange(len(shares)), found["classes"]], atol=1e-6)


def test_a_head_of_reduced_tokens_works_on_full_tokens(modules, tmp_path):
    rng = np.random.default_rng(1)
    # Tokens with most variance along a few axes, like real ones.
    basis = rng.normal(size=(6, 40))
    tokens = [(rng.normal(size=(7, 7, 6)) @ basis + 0.05 * rng.normal(size=(7, 7, 40))).astype(np.float32)]
    reduced = reduce_tokens(tokens)
    axes = reduced.axes / AXIS_STEPS
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-3)
    unit = tokens[0].reshape(-1, 40) / np.linalg.norm(tokens[0].reshape(-1, 40), axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ axes.T, reduced.codes * reduced.scales, atol=reduced.scales.max())
    weights = rng.normal(size=(2, len(axes)))
    (tmp_path / "case.json").write_text(
        json.dumps(
            {"weights": weights.ravel().tolist(), "axes": reduced.axes.ravel().tolist(), "width": len(axes)}
        )
    )
    text = modules(
        """
        import fs from "fs";
        import { narrowed, widened } from "./head.mjs";
        const { weights, axes, width } = JSON.parse(fs.readFileSync(process.argv[2]));
        const full = widened({ weights, bias: [1, 2], width }, Int16Array.from(axes));
        const back = narrowed(full, Int16Array.from(axes));
        console.log(JSON.stringify({ full: [...full.weights], back: [...back.weights], width: full.width }));
        """,
        tmp_path / "case.json",
    )
    found = json.loads(text)
    assert found["width"] == 40
    np.testing.assert_allclose(np.reshape(found["full"], (2, 40)), weights @ axes, atol=1e-9)
    np.testing.assert_allclose(np.reshape(found["back"], weights.shape), weights, atol=2e-3)


def test_a_damaged_head_is_refused_in_words(modules, tmp_path):
    tokens, marks = marked(np.random.default_rng(0), 2)
    content = patchprism.Head().fit(tokens, masks_of(tokens, marks)).to_bytes()
    nan = bytearray(content)
    nan[-8:] = np.float64("nan").tobytes()
    cases = {
        "cut": content[: len(content) // 2],
        "empty": b"",
        "text": b"hello, this is no head",
        "newer": content.replace(b'\\"version\\": 1', b'\\"version\\": 9'),
        "nan": bytes(nan),
        "no classes": content.replace(b'\\"background\\"', b'\\"object\\",    '),
    }
    assert all(case != content for case in cases.values())
    for name, case in cases.items():
        (tmp_path / f"{name}.bin").write_bytes(case)
    text = modules(
        """
        import fs from "fs";
        import { readHead } from "./head.mjs";
        const said = {};
        for (const name of fs.readdirSync(process.argv[2])) {
          try { readHead(new Uint8Array(fs.readFileSync(`${process.argv[2]}/${name}`))); said[name] = ""; }
          catch (error) { said[name] = error.message; }
        }
        console.log(JSON.stringify(said));
        """,
        tmp_path,
    )
    said = json.loads(text)
    assert len(said) == len(cases)
    assert all("head" in each for each in said.values()), said
    assert "version 9" in said["newer.bin"]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_many_marks_give_the_same_weights(modules, tmp_path, n_classes):
    # So many that the fit starts with a part of the marks and uses the curvature.
    rng = np.random.default_rng(3)
    axes, n = 12, 7000
    scales = (0.02 / np.sqrt(1 + np.arange(axes))).astype(np.float32)
    codes = rng.integers(-127, 128, (n, axes)).astype(np.int8)
    tokens = codes * scales.astype(np.float64)
    classes = (tokens @ rng.normal(size=(axes, n_classes)) + rng.normal(size=(n, n_classes))).argmax(axis=1)
    weights, bias = _solve(tokens, classes, n_classes, 10.0)
    codes.tofile(tmp_path / "codes.bin")
    case = {"scales": scales.tolist(), "classes": classes.tolist(), "width": axes, "count": n_classes}
    (tmp_path / "case.json").write_text(json.dumps(case))
    text = modules(
        """
        import fs from "fs";
        import { markedRows } from "./head.mjs";
        import { HeadFit } from "./headfit.mjs";
        const folder = process.argv[2];
        const { scales, classes, width, count } = JSON.parse(fs.readFileSync(`${folder}/case.json`));
        const codes = new Int8Array(fs.readFileSync(`${folder}/codes.bin`));
        const rows = markedRows({ codes, dims: width }, classes.map((k, i) => [i, k]));
        const fit = new HeadFit({ rows, scales: Float32Array.from(scales), width, classes, count });
        const parts = fit.parts.length;
        while (!fit.run(0)) fit.head; // what there is so far can be shown at any time
        // One mark more, from there.
        const again = new HeadFit({ rows, scales: Float32Array.from(scales), width, classes, count, start: fit.at });
        again.run();
        const like = new HeadFit({ rows, scales: Float32Array.from(scales), width, classes, count, like: fit });
        like.run();
        const { weights, bias } = fit.head;
        console.log(JSON.stringify({ parts, closer: [fit, again].map((each) => each.factors.length),
          weights: [...weights], bias: [...bias], again: [...again.head.weights],
          like: [...like.head.weights], kept: like.factors === fit.factors }));
        """,
        tmp_path,
    )
    found = json.loads(text)
    scale = np.abs(weights).max()
    assert found["parts"] == 2
    assert found["closer"] == [1 if n_classes == 2 else 3] * 2
    assert found["kept"]
    for key in ("weights", "again", "like"):
        np.testing.assert_allclose(np.reshape(found[key], weights.shape), weights, atol=1e-5 * scale)
    np.testing.assert_allclose(found["bias"], bias, atol=1e-5 * scale)
