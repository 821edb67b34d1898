"""Files that the page writes, tested without a browser: archives, masks, and the layout of a figure."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from patchprism.pictures.masks import full_mask
from patchprism.prism.colors import PhotoColors


def test_an_archive_contains_its_files(modules, tmp_path):
    modules(
        """
        import fs from "fs";
        import { zip } from "./zip.mjs";
        const names = ["dog.png", "Dog.png", "a/../b.png", "\\u65e5\\u672c.png", "con\\u0001.png", "..", ""];
        const files = names.map((name, i) => ({ name, blob: new Blob([`${i} `.repeat(i * 40)]) }));
        const blob = await zip(files, new Date(2024, 1, 29, 12, 30, 10));
        fs.writeFileSync(process.argv[2], new Uint8Array(await blob.arrayBuffer()));
        """,
        tmp_path / "a.zip",
    )
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        names = ["dog.png", "Dog (2).png", "a_.._b.png", "日本.png", "con_.png", "photo", "photo (2)"]
        assert archive.namelist() == names
        for i, info in enumerate(archive.infolist()):
            assert archive.read(info) == f"{i} ".encode() * (i * 40)
            assert info.date_time == (2024, 2, 29, 12, 30, 10)


def test_masks_equal_those_of_python_and_coco(modules, tmp_path):
    tools = pytest.importorskip("pycocotools.mask", reason="pycocotools decodes the masks")
    rng = np.random.default_rng(0)
    cases = []
    for grid, size, crop in (
        ((5, 7), (51, 73), (0, 0, 73, 51)),
        ((4, 4), (60, 90), (14.5, 3.25, 71, 58)),
        ((1, 1), (3, 2), (0, 0, 2, 3)),
        ((6, 3), (300, 40), (0, 0, 40, 300)),
    ):
        for mask in (rng.random(grid) > 0.5, np.zeros(grid, bool), np.ones(grid, bool)):
            cases.append(
                {"grid": grid, "size": size, "crop": crop, "mask": mask.astype(int).ravel().tolist()}
            )
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    text = modules(
        """
        import fs from "fs";
        import { cocoObject, fullMask } from "./masks.mjs";
        const cases = JSON.parse(fs.readFileSync(process.argv[2]));
        console.log(JSON.stringify(cases.map(({ mask, ...photo }) => {
          const full = fullMask(Uint8Array.from(mask), { ...photo, start: 0 });
          return { full: [...full], coco: cocoObject(full, photo.size) };
        })));
        """,
        tmp_path / "cases.json",
    )
    for case, found in zip(cases, json.loads(text), strict=True):
        patches = np.array(case["mask"], bool).reshape(case["grid"])
        part = PhotoColors(patches.astype(np.float32), patches, None, None)
        expected = full_mask(part, 0.5, crop=case["crop"], size=case["size"])
        np.testing.assert_array_equal(np.array(found["full"], bool).reshape(case["size"]), expected)
        if not expected.any():
            assert found["coco"] is None
            continue
        encoded = tools.encode(np.asfortranarray(expected, np.uint8))
        assert found["coco"]["segmentation"]["counts"] == encoded["counts"].decode()
        assert found["coco"]["segmentation"]["size"] == list(expected.shape)
        assert found["coco"]["bbox"] == tools.toBbox(encoded).tolist()
        assert found["coco"]["area"] == expected.sum()


def test_pictures_have_their_channels_and_resolution(modules, tmp_path):
    modules(
        """
        import fs from "fs";
        import { encodePng } from "./png.mjs";
        const rgba = Uint8ClampedArray.from({ length: 4 * 11 * 7 }, (_, i) => (i * 37 + (i >> 3)) % 256);
        for (const kind of ["rgb", "rgba", "grey"]) {
          const blob = await encodePng(rgba, 11, 7, { kind, dpi: 300, text: { Title: "dogs \\u65e5" } });
          fs.writeFileSync(`${process.argv[2]}/${kind}.png`, new Uint8Array(await blob.arrayBuffer()));
        }
        fs.writeFileSync(`${process.argv[2]}/rgba.bin`, rgba);
        """,
        tmp_path,
    )
    rgba = np.frombuffer((tmp_path / "rgba.bin").read_bytes(), np.uint8).reshape(7, 11, 4)
    for kind, mode, expected in (
        ("rgb", "RGB", rgba[..., :3]),
        ("rgba", "RGBA", rgba),
        ("grey", "L", rgba[..., 0]),
    ):
        with Image.open(io.BytesIO((tmp_path / f"{kind}.png").read_bytes())) as image:
            image.load()
            assert image.mode == mode
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.01)
            assert image.info["Title"] == "dogs 日"
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_a_figure_is_laid_out_in_rows_and_columns(modules):
    text = modules(
        """
        import { layOut, patchBox, wrapped } from "./figure.mjs";
        const measure = (said, size) => said.length * size * 0.5;
        const photos = [[300, 400], [400, 300], [200, 400]].map((size, i) => ({ name: `photo ${i}.png`, size }));
        const plain = { photos, command: "", ink: "#000000", measure };
        const caption = "one two three ".repeat(20);
        const columns = ["Photo", "Colours"];
        const layout = layOut({ ...plain, columns, perRow: 2, width: 400, labels: true, caption });
        const box = patchBox(layout.cells[0], { grid: [4, 8], crop: [40, 20, 360, 280], size: [300, 400] }, 11);
        let refused = "";
        try { layOut({ ...plain, columns: Array(40).fill("x"), perRow: 3, width: 100, labels: false, caption: "" }); }
        catch (error) { refused = error.message; }
        console.log(JSON.stringify({ layout, box, refused, lines: wrapped("aaa bbbbbbbbbbbb c", 5, (s) => s.length) }));
        """
    )
    found = json.loads(text)
    cells = found["layout"]["cells"]
    assert [(cell["photo"], cell["column"]) for cell in cells] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    assert cells[3]["x"] + cells[3]["width"] == pytest.approx(400)
    assert len({round(cell["width"], 9) for cell in cells}) == 1
    for cell, (height, width) in zip(
        cells, [(300, 400)] * 2 + [(400, 300)] * 2 + [(200, 400)] * 2, strict=True
    ):
        assert cell["height"] / cell["width"] == pytest.approx(height / width)
    assert cells[4]["y"] > cells[2]["y"] + cells[2]["height"]
    assert all(cell["y"] + cell["height"] < found["layout"]["height"] for cell in cells)
    texts = [item["text"] for item in found["layout"]["items"]]
    assert texts[:4] == ["Photo", "Colours"] * 2
    assert {"photo 0.png", "photo 1.png", "photo 2.png"} <= set(texts)
    assert all(len(line) * 7 * 0.5 <= 400 for line in texts)
    scale = cells[0]["width"] / 400  # the patch in row 2, column 4 of the crop
    assert found["box"]["x"] == pytest.approx(cells[0]["x"] + (40 + 3 * 40) * scale)
    assert found["box"]["y"] == pytest.approx(cells[0]["y"] + (20 + 65) * scale)
    assert found["box"]["width"] == pytest.approx(40 * scale)
    assert "do not fit" in found["refused"]
    assert found["lines"] == ["aaa", "bbbbb", "bbbbb", "bb c"]
