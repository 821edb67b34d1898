"""The page's PNG files, read by Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import { readFileSync, writeFileSync } from "node:fs";
import { encodePng } from "./png.mjs";
const [raw, width, height, to] = process.argv.slice(2);
const blob = await encodePng(new Uint8ClampedArray(readFileSync(raw)), Number(width), Number(height));
writeFileSync(to, Buffer.from(await blob.arrayBuffer()));
"""


def noise(h, w):
    return np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)


def patches(h, w):
    return noise(h // 20 + 1, w // 20 + 1).repeat(20, axis=0).repeat(20, axis=1)[:h, :w]


def photo(h, w):
    y, x = np.mgrid[:h, :w]
    return np.stack([x, y, (x + y) // 2], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("kind", [noise, patches, photo])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (130, 211)])
def test_pillow_reads_what_the_page_wrote(modules, tmp_path, kind, size):
    h, w = size
    rgb = kind(h, w)
    rgba = np.dstack([rgb, np.full(size, 255, np.uint8)])
    (tmp_path / "raw").write_bytes(rgba.tobytes())
    modules(SCRIPT, tmp_path / "raw", w, h, tmp_path / "made.png")
    with Image.open(tmp_path / "made.png") as made:
        assert made.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(made), rgb)
    # About as small as with Pillow.
    Image.fromarray(rgb).save(tmp_path / "pillow.png")
    ours, pillows = ((tmp_path / f"{name}.png").stat().st_size for name in ("made", "pillow"))
    assert ours < 1.2 * pillows + 100
