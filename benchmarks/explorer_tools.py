"""The explorer's tools: delays of scatter plot, lasso and teaching, and the time to fit a head.

    python benchmarks/explorer_tools.py [--photos 12] [--size 512] [--moves 120]

Times are measured as in ``explorer.py``: from a pointer event's time stamp to the first task after the frame that it
caused, in headless Chromium without a GPU. Other work on the machine makes all times longer. A page with a square that
follows the pointer is therefore measured before and after, and each 95th percentile is also printed as a ratio to that
of this page.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import patchprism
from explorer import ARGUMENTS, LEAST, WATCH, photos, spread

# Frame rate without any change, and with 50,000 points that turn a little in every frame.
TURNING = """async () => {
  const { scatter } = patchprism;
  const n = 50_000;
  const some = () => (Math.random() + Math.random() + Math.random()) / 1.5 - 1;
  scatter.field.place([0, 1, 2].map(() => Float64Array.from({ length: n }, some)), new Uint8Array(n).fill(1));
  scatter.shown = { colors: Uint8Array.from({ length: 3 * n }, () => 256 * Math.random()), visible: null };
  const run = (does) => new Promise((done) => {
    const [gaps, script] = [[], []];
    let last = 0;
    const step = (now) => {
      if (last) gaps.push(now - last);
      last = now;
      const start = performance.now();
      does();
      script.push(performance.now() - start);
      if (gaps.length < 240) requestAnimationFrame(step);
      else done({ gaps, script });
    };
    requestAnimationFrame(step);
  });
  return {
    still: await run(() => {}),
    turning: await run(() => { scatter.field.turn.yaw += 0.03; scatter.paint(); }),
  };
}"""

# Times of fits from scratch, with about ``count`` marked patches.
FITS = """(count) => {
  const { teacher, model } = patchprism;
  const patches = [...Array(model.count).keys()].filter((i) => i % Math.floor(model.count / count) === 0);
  const marks = patches.map((patch) => [patch, model.mask[patch] ? 1 : 0]);
  const times = [];
  for (let n = 0; n < 7; n++) {
    patchprism.teacher.fit = null;
    const start = performance.now();
    patchprism.state.marks = marks;
    teacher.refit();
    while (!teacher.fit.run(0)) {}
    teacher.goOn();
    times.push(performance.now() - start);
  }
  patchprism.state.marks = [];
  teacher.refit();
  return { times, marks: marks.length };
}"""


# Set about ``count`` marks, and wait until the head is fitted.
MANY = """(count) => {
  const { teacher, model } = patchprism;
  const patches = [...Array(model.count).keys()].filter((i) => i % Math.floor(model.count / count) === 0);
  patchprism.change({ marks: patches.map((patch) => [patch, model.mask[patch] ? 1 : 0]) });
  return new Promise((done) => setTimeout(done, 1000));
}"""


def drag(page: Any, box: dict[str, float], places: np.ndarray, pause: Any) -> list[float]:
    """Drag over positions (n, 2) in [0, 1] of a box; returns the delays."""
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.evaluate("waits.length = 0")
    for x, y in places:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_timeout(pause())
    page.mouse.up()
    waits: list[float] = page.evaluate("waits")
    return waits


def measure(page: Any, moves: int) -> None:
    """Print the delays."""
    rng = np.random.default_rng(0)

    def pause() -> float:
        return 6 + rng.random() * 1000 / 60

    def bare() -> list[float]:
        least = page.context.new_page()
        least.set_content(LEAST)
        least.evaluate(WATCH)
        for x, y in rng.random((moves, 2)):
            least.mouse.move(20 + 1200 * x, 20 + 700 * y)
            least.wait_for_timeout(pause())
        waits: list[float] = least.evaluate("waits")
        least.close()
        page.bring_to_front()
        return waits

    found: dict[str, list[float]] = {}
    least = bare()
    page.evaluate("""() => { for (const each of document.querySelectorAll("#panel details"))
      each.open = ["scatter", "teach"].includes(each.id); }""")
    page.evaluate(WATCH)
    box = page.locator(".points").bounding_box()
    page.evaluate("waits.length = 0")
    for x, y in rng.random((moves, 2)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_timeout(pause())
    found["pointing at points of the scatter"] = page.evaluate("waits")
    found["lasso in the scatter"] = drag(page, box, rng.random((moves, 2)), pause)
    page.evaluate("patchprism.scatter.choose(null)")
    page.locator("#scatter-3d").click()
    found["turning the scatter"] = drag(page, box, rng.random((moves, 2)), pause)
    page.locator("#scatter-3d").click()
    page.locator("#teach-start").click()
    frame = page.locator(".frame").first.bounding_box()
    for number in (1, 0):
        page.locator("#classes input[type=radio]").nth(number).click()
        name = ("background", "object")[number]
        found[f"marking patches, {name}"] = drag(page, frame, rng.random((moves, 2)), pause)
    page.evaluate(MANY, 3000)
    found["marking patches beside 3,000 marks"] = drag(page, frame, rng.random((moves, 2)), pause)
    page.locator("input[name=brush][value=lasso]").click()
    found["lasso over patches"] = drag(page, frame, rng.random((moves, 2)), pause)
    page.locator("#teach-clear").click()
    page.keyboard.press("Escape")
    page.locator("input[name=mode][value=clusters]").click()
    page.wait_for_timeout(300)
    page.evaluate("waits.length = 0")
    for x, y in rng.random((moves, 2)):
        page.mouse.move(frame["x"] + x * frame["width"], frame["y"] + y * frame["height"])
        page.wait_for_timeout(pause())
    found["pointing at patches, clusters shown"] = page.evaluate("waits")
    page.locator("input[name=mode][value=colours]").click()
    least += bare()
    spread("a square that follows the pointer", least)
    base = float(np.percentile(least, 95))
    for name, waits in found.items():
        spread(name, waits)
        print(f"{'':34} 95th percentile {np.percentile(waits, 95) / base:.2f} of that page's")
    for count in (10, 200, 1000, 2000, 12288):
        found = page.evaluate(FITS, count)
        spread(f"fit to {found['marks']} marks and shown", found["times"])
    for name, found in page.evaluate(TURNING).items():
        rate = 1000 / (sum(found["gaps"]) / len(found["gaps"]))
        print(f"50,000 points, {name}: {rate:.1f} frames per second")
        spread("  script per frame", found["script"])


def main() -> None:
    """Run everything and print it."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--moves", type=int, default=120)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        view = patchprism.visualize(
            photos(folder, options.photos), model="efficientnet_lite2", preset="seed", size=options.size
        )
        file = view.explore().save(folder / "page.html")
        grid, dims = view.features.grids[0], view.explore().message.header["tokens"]["dims"]
        print(
            f"{options.photos} photos of {grid} patches, {dims} axes, {file.stat().st_size / 1e6:.2f} MB of page"
        )
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=ARGUMENTS)
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.goto(file.as_uri())
            page.wait_for_selector("html[data-ready=true]")
            measure(page, options.moves)
            browser.close()


if __name__ == "__main__":
    main()
