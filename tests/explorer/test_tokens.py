"""Reduced tokens: their accuracy, and equal results from them in the page and in Python."""

from __future__ import annotations

import numpy as np
import pytest

from patchprism.explorer import build_message
from patchprism.explorer.tokens import MEASURED_QUERIES, SHARE, TOLERANCE, reduce_tokens

GRIDS = [(1, 1), (1, 7), (6, 1), (9, 12), (2, 2)]


def unit(tokens):
    rows = np.concatenate([each.reshape(-1, each.shape[-1]) for each in tokens]).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def made_up(name):
    rng = np.random.default_rng(3)
    width = 24
    shapes = [(1, 1)] if name == "one patch" else GRIDS
    tokens = [rng.normal(0.4, 1, (h, w, width)).astype(np.float32) for h, w in shapes]
    if name in ("constant", "zero"):
        tokens = [np.full_like(each, name == "constant") for each in tokens]
    if name == "low rank":
        plane = rng.normal(size=(2, width))
        tokens = [(each[..., :2] @ plane).astype(np.float32) for each in tokens]
    if name == "large":
        tokens = [each * np.float32(1e11) for each in tokens]
    if name == "narrow":
        tokens = [each[..., :3] for each in tokens]
    return tokens


@pytest.mark.parametrize("name", ["random", "constant", "zero", "one patch", "low rank", "large", "narrow"])
def test_reduced_tokens_keep_the_cosines(name):
    tokens = made_up(name)
    reduced = reduce_tokens(tokens)
    full = unit(tokens) @ unit(tokens).T
    error = np.abs(reduced.cosine(np.arange(len(full))) - full)[~np.eye(len(full), dtype=bool)]
    assert (error <= TOLERANCE).mean() >= SHARE if error.size else True
    told = reduced.error
    assert told["pairs"] == error.size
    if error.size:
        assert told["within"] == pytest.approx((error <= TOLERANCE).mean(), abs=1e-5)
        assert told["max"] == pytest.approx(error.max(), abs=1e-4)
        assert told["median"] == pytest.approx(np.median(error), abs=1e-4)


def test_dimensions_that_are_not_needed_are_not_sent(view):
    tokens = list(view.features)
    reduced = reduce_tokens(tokens)
    width = view.features.width
    dims = len(reduced.scales)
    assert dims < width
    assert reduced.codes.dtype == np.int8
    assert len(reduce_tokens(made_up("low rank")).scales) == 8

    # Eight fewer would exceed the tolerance, measured with shortened codes on all pairs of the sample.
    rows = unit(tokens)
    values = reduced.codes[:, : dims - 8].astype(float) * reduced.scales[: dims - 8]
    queries = np.sort(
        np.random.default_rng(0).choice(len(rows), min(len(rows), MEASURED_QUERIES), replace=False)
    )
    error = np.abs(values[queries] @ values.T - rows[queries] @ rows.T)
    different = queries[:, None] != np.arange(len(rows))
    assert (error[different] <= TOLERANCE).mean() < SHARE


def test_the_page_computes_the_same_as_python(view, modules, tmp_path):
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
    writeFileSync(process.argv[4], new Uint8Array(model.scores.buffer));
    """
    modules(script, tmp_path / "message", tmp_path / "all", tmp_path / "scores")
    rows = unit(list(view.features))
    page = np.fromfile(tmp_path / "all", np.float32).reshape(len(rows), -1)
    python = reduce_tokens(list(view.features)).cosine(np.arange(len(rows)))
    np.fill_diagonal(python, 1.0)
    np.testing.assert_allclose(page, python, atol=3e-6)
    # The accuracy that the page states, compared with all pairs
    error = np.abs(page - rows @ rows.T)[~np.eye(len(rows), dtype=bool)]
    told = message.header["tokens"]["error"]
    assert told["within"] == pytest.approx((error <= TOLERANCE).mean(), abs=2e-3)
    assert told["median"] == pytest.approx(np.median(error), rel=0.05)
    scores = np.concatenate([score.ravel() for score in view.scores])
    np.testing.assert_array_equal(np.fromfile(tmp_path / "scores", np.float32), scores)
