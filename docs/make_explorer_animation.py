"""Make the moving picture of the explorer, docs/images/explorer.webp, from scikit-image's CC0 cat.

    python docs/make_explorer_animation.py [OUT]

It needs the model focus_vits14, and Chromium, which PATCHPRISM_CHROMIUM names where it is not called so.


A script moves the mouse over the page in a headless browser; each frame is a picture of the page, with a pointer and a
sentence drawn on it. Look at the frames before you commit the file.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image

import patchprism

OUT = Path(__file__).parent / "images" / "explorer.webp"
WIDTH, HEIGHT = 900, 560
STEP = 80  # milliseconds of a frame in motion
READ = 1500  # of one that is to be read
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--force-color-profile=srgb"]

# A pointer and a sentence over the page; neither takes part in what the mouse does.
OVERLAY = """() => {
  const put = (style, text = "") => {
    const made = document.createElement("div");
    Object.assign(made.style, { position: "fixed", zIndex: 99, pointerEvents: "none", ...style });
    made.textContent = text;
    document.body.append(made);
    return made;
  };
  globalThis.said = put({
    left: "290px", bottom: "10px", transform: "translateX(-50%)", padding: "6px 14px", borderRadius: "9px",
    background: "rgb(16 18 26 / 88%)", color: "#fff", font: "600 15px/1.3 system-ui, sans-serif", whiteSpace: "nowrap",
  });
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [name, value] of [["width", 22], ["height", 28], ["viewBox", "0 0 22 28"]]) svg.setAttribute(name, value);
  for (const [name, value] of [["d", "M2 1v20l5-4.6 3.4 8 4-1.7-3.4-7.8 7-.5z"], ["fill", "#111"], ["stroke", "#fff"],
    ["stroke-width", 1.6]]) path.setAttribute(name, value);
  svg.append(path);
  globalThis.pointer = put({ left: "-2px", top: "-1px" });
  pointer.append(svg);
}"""


@dataclass
class Film:
    """Frames of a page, and where its pointer is."""

    page: Any
    frames: list[Image.Image] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    at: tuple[float, float] = (285.0, 300.0)

    def say(self, text: str) -> None:
        """The sentence that is shown from now on."""
        self.page.evaluate("(text) => { said.textContent = text; }", text)

    def take(self, duration: int = STEP) -> None:
        """Keep a frame of what is there; one that shows nothing new makes the one before last longer."""
        x, y = self.at
        self.page.evaluate(f"pointer.style.transform = 'translate({x:.1f}px, {y:.1f}px)'")
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        frame = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.durations[-1] += duration
            return
        self.frames.append(frame)
        self.durations.append(duration)

    def move(self, x: float, y: float, steps: int = 8) -> None:
        """Move the mouse there, slower at both ends."""
        from_x, from_y = self.at
        for step in range(1, steps + 1):
            share = (1 - math.cos(math.pi * step / steps)) / 2
            self.at = from_x + share * (x - from_x), from_y + share * (y - from_y)
            self.page.mouse.move(*self.at)
            self.take()

    def drag(self, *places: tuple[float, float], steps: int = 4) -> None:
        """Press, move over places, let go."""
        self.page.mouse.down()
        for place in places:
            self.move(*place, steps=steps)
        self.page.mouse.up()
        self.take()

    def show(self, *sections: str) -> None:
        """Open some sections of the panel and fold the others."""
        self.page.evaluate(
            """(shown) => { for (const each of document.querySelectorAll("#panel details"))
              each.open = shown.includes(each.id); }""",
            sections,
        )

    def patch(self, photo: int, x: float, y: float, pane: str = "side") -> tuple[float, float]:
        """Where a point of a photo's crop, in [0, 1], lies in the window: in the middle of its patch."""
        box = self.page.evaluate(
            f"patchprism.gallery.tiles[{photo}].{pane}.marks.getBoundingClientRect().toJSON()"
        )
        h, w = self.page.evaluate(f"patchprism.model.photos[{photo}].grid")
        column, row = (math.floor(x * w) + 0.5) / w, (math.floor(y * h) + 0.5) / h
        return box["x"] + column * box["width"], box["y"] + row * box["height"]

    def box(self, selector: str) -> dict[str, float]:
        """Where an element lies."""
        found: dict[str, float] = self.page.locator(selector).first.bounding_box()
        return found

    def press(self, selector: str) -> None:
        """Move to an element and click it."""
        box = self.box(selector)
        self.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.page.mouse.click(*self.at)
        self.take(3 * STEP)


def cats(folder: Path) -> list[Path]:
    """One cat, and the same mirrored, turned and cropped."""
    cat = Image.fromarray(skimage.data.chelsea())
    mirrored = cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(12, Image.Resampling.BICUBIC)
    near = cat.rotate(-9, Image.Resampling.BICUBIC).crop((95, 45, 365, 245))
    made = {"cat": cat, "mirrored": mirrored.crop((70, 45, 390, 255)), "near": near}
    for name, photo in made.items():
        photo.save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in made]


def play(film: Film) -> None:
    """The scenes."""
    page = film.page
    film.show("similarity")
    film.say("Every part has one colour in all photos")
    film.take(READ)
    film.say("Point at a patch: patches like it light up")
    for x, y in ((0.38, 0.38), (0.56, 0.68), (0.62, 0.4), (0.38, 0.38)):
        film.move(*film.patch(0, x, y), steps=7)
        film.take(5 * STEP)
    film.say("Click to pin it: lines lead to its best matches")
    page.mouse.click(*film.at)
    film.take(READ)
    page.evaluate("patchprism.change({ pins: [], held: null })")
    film.show("scatter")
    film.say("Draw around patches in PCA space")
    box = film.box(".points")

    def of_points(x: float, y: float) -> tuple[float, float]:
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    film.move(*of_points(0.42, 0.04))
    film.drag(*(of_points(*place) for place in ((0.97, 0.04), (0.97, 0.45), (0.6, 0.5), (0.42, 0.06))))
    film.take(READ)
    page.evaluate("patchprism.scatter.choose(null)")
    film.show("teach")
    film.say("Teach it: mark a few patches of the eyes ...")
    film.press("#teach-start")
    for x, y in ((0.36, 0.4), (0.61, 0.42)):
        film.move(*film.patch(0, x, y))
        film.drag(film.patch(0, x + 0.04, y), film.patch(0, x + 0.04, y - 0.05), steps=2)
    page.evaluate("document.querySelector('#classes input[type=radio]').click()")
    film.say("... and of the rest: the head shows what it has learned")
    film.move(*film.patch(0, 0.08, 0.15))
    film.drag(film.patch(0, 0.9, 0.12), steps=5)
    film.move(*film.patch(0, 0.3, 0.22))
    film.drag(film.patch(0, 0.5, 0.3), film.patch(0, 0.5, 0.6), film.patch(0, 0.68, 0.68), steps=3)
    film.move(*film.patch(0, 0.12, 0.45))
    film.drag(film.patch(0, 0.2, 0.9), film.patch(0, 0.9, 0.9), steps=4)
    film.move(285, 300)
    film.take(2 * READ)
    page.keyboard.press("Escape")
    page.evaluate("patchprism.change({ marks: [] })")
    film.say("Double-click: one photo, with a divide to drag")
    film.move(*film.patch(0, 0.5, 0.5, "main"), steps=5)
    page.mouse.dblclick(*film.at)
    page.evaluate("patchprism.change({ guided: true, heat: false, pins: [], held: null })")
    film.take(4 * STEP)
    box = film.box(".divide")
    film.move(box["x"] + box["width"] / 2, box["y"] + 0.3 * box["height"], steps=5)
    x, y = film.at
    film.drag((x - 230, y), (x + 230, y), (x, y), steps=10)
    film.take(READ)


def main() -> None:
    """Make the film and write it."""
    from playwright.sync_api import sync_playwright

    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    chromium = os.environ.get("PATCHPRISM_CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        view = patchprism.visualize(cats(Path(name)), model="focus_vits14", size=392)
        address = view.explore(title="One cat, three photos").save(Path(name) / "page.html").as_uri()
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark"
        ).new_page()
        page.goto(address)
        page.wait_for_selector("html[data-ready=true]")
        page.evaluate(OVERLAY)
        film = Film(page)
        play(film)
        browser.close()
    film.frames[0].save(
        out,
        save_all=True,
        append_images=film.frames[1:],
        duration=film.durations,
        loop=0,
        quality=62,
        method=6,
        minimize_size=True,
    )
    seconds = sum(film.durations) / 1000
    print(f"{out.name}: {len(film.frames)} frames, {seconds:.1f} s, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
