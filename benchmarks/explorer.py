"""The explorer's page: its size, the accuracy of the reduced tokens, and the delay from pointer to frame.

    python benchmarks/explorer.py [--photos 12] [--size 512] [--moves 150] [--own PHOTO ...]

Times are measured in headless Chromium without a GPU: from a pointer event's time stamp to the first task after
the frame that it caused, for every move of Playwright's mouse.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import patchprism
from main_job import stand_in_weights

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# A message that is posted inside requestAnimationFrame is handled after the frame's style, layout and paint.
WATCH = """() => {
  globalThis.waits = [];
  const channel = new MessageChannel();
  const pending = [];
  channel.port1.onmessage = () => { const now = performance.now();
    for (const at of pending.splice(0)) waits.push(now - at); };
  let asked = false;
  addEventListener("pointermove", (event) => {
    pending.push(event.timeStamp);
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; channel.port2.postMessage(0); });
  }, { capture: true });
}"""


# The lower bound on this machine: a page that only moves a square.
LEAST = """<!doctype html><div id="box" style="position:fixed;width:20px;height:20px;background:teal"></div>
<script>addEventListener("pointermove", (event) => requestAnimationFrame(() => {
  box.style.transform = `translate(${event.clientX}px, ${event.clientY}px)`; }));</script>"""


def photos(folder: Path, count: int) -> list[Path]:
    """CC0 photos of scikit-image; if more are needed, also mirrored and cropped ones."""
    from skimage import data

    base = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.retina()[::2, ::2]]
    base += [data.immunohistochemistry(), data.hubble_deep_field(), data.camera(), data.coins()]
    paths = []
    for i in range(count):
        photo = base[i % len(base)]
        if i >= len(base):
            photo = photo[: int(photo.shape[0] * 0.85), ::-1]
        path = folder / f"photo-{i + 1}.png"
        Image.fromarray(photo).save(path)
        paths.append(path)
    return paths


def spread(name: str, values: list[float]) -> None:
    """Print median, 95th percentile and worst."""
    p95 = float(np.percentile(values, 95))
    print(
        f"{name:34} median {statistics.median(values):6.1f} ms   "
        f"95th {p95:6.1f} ms   worst {max(values):6.1f} ms   n {len(values)}"
    )


def sizes(folder: Path, own: list[Path]) -> None:
    """Print size and accuracy of pages with ten photos and with three."""
    weights = folder / "stand-in.pth"
    stand_in_weights(weights)
    real, random = {"model": "efficientnet_lite2"}, {"weights": weights}
    cc0 = photos(folder, 10)
    jobs = [("efficientnet_lite2", cc0, size, real) for size in (448, 512)]
    jobs.append(("stand-in ViT-S/14", cc0, 448, random))
    if own:
        mixed = [*own, *cc0][:10]
        jobs += [(f"efficientnet_lite2, {len(own)} own", mixed, 512, real)]
        jobs += [(f"stand-in ViT-S/14, {len(own)} own", mixed, 448, random)]
    jobs.append(("efficientnet_lite2", cc0[:3], 512, real))
    for name, paths, size, options in jobs:
        view = patchprism.visualize(paths, preset="seed", size=size, **options)
        page = view.explore()
        parts = {name: len(content) for name, (_, _, content) in page.message.parts.items()}
        shown = sum(count for name, count in parts.items() if name.startswith("photo-"))
        tokens = page.message.header["tokens"]
        error = tokens["error"]
        print(
            f"{name}, {len(paths)} photos, {view.features.grids[0][0]} x {view.features.grids[0][1]} patches: "
            f"{len(page.html.encode()) / 1e6:.2f} MB "
            f"(components {parts['components'] / 1e3:.0f} kB, tokens {parts['tokens'] / 1e3:.0f}, "
            f"photos {shown / 1e3:.0f}, prism {parts['prism'] / 1e3:.0f}; a third more as text)"
        )
        print(
            f"  cosine, {view.features.width} numbers a token: "
            f"{tokens['dims']} kept, within {tokens['tolerance']} for {error['within']:.3%} of pairs, "
            f"median {error['median']:.4f}, 99th percentile {error['p99']:.4f}, "
            f"99.9th {error['p999']:.4f}, worst {error['max']:.3f}",
            flush=True,
        )


def main() -> None:
    """Run everything and print it."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--moves", type=int, default=150)
    parser.add_argument("--own", type=Path, nargs="*", default=[], help="your own photos, to measure as well")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes(folder, options.own)
        view = patchprism.visualize(
            photos(folder, options.photos), model="efficientnet_lite2", preset="seed", size=options.size
        )
        file = view.explore().save(folder / "page.html")
        print(
            f"{options.photos} photos of {view.features.grids[0]} patches, {file.stat().st_size / 1e6:.2f} MB"
        )
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.chromium, args=ARGUMENTS)
            opened = []
            for _ in range(5):
                context = browser.new_context(viewport={"width": 1400, "height": 900})
                page = context.new_page()
                page.goto(file.as_uri())
                page.wait_for_selector("html[data-ready=true]")
                while not page.evaluate("performance.getEntriesByName('drawn').length"):
                    page.wait_for_timeout(5)
                opened.append(page.evaluate("performance.getEntriesByName('drawn')[0].startTime"))
                context.close()
            spread("file to first drawn", opened)
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            page.goto(file.as_uri())
            page.wait_for_selector("html[data-ready=true]")
            page.evaluate(WATCH)
            rng = np.random.default_rng(0)

            def pause():
                """A random pause in ms; with equal pauses, every move would come at the same point of a frame."""
                return 6 + rng.random() * 1000 / 60

            least = page.context.new_page()
            least.set_content(LEAST)
            least.evaluate(WATCH)
            for x, y in rng.random((options.moves, 2)):
                least.mouse.move(20 + 1200 * x, 20 + 700 * y)
                least.wait_for_timeout(pause())
            spread("a square that follows the pointer", least.evaluate("waits"))
            least.close()
            page.bring_to_front()

            box = page.locator("#histogram").bounding_box()
            for mode in ("colours", "overlay"):
                page.locator(f"input[name=mode][value={mode}]").click()
                page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
                page.mouse.down()
                page.evaluate("waits.length = 0")
                for place in rng.random(options.moves):
                    page.mouse.move(box["x"] + place * box["width"], box["y"] + 40)
                    page.wait_for_timeout(pause())
                page.mouse.up()
                spread(f"threshold to drawn, {mode}", page.evaluate("waits"))
            page.locator("input[name=basis][value=all]").click()
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
            page.mouse.down()
            page.evaluate("waits.length = 0")
            for place in rng.random(options.moves):
                page.mouse.move(box["x"] + place * box["width"], box["y"] + 40)
                page.wait_for_timeout(pause())
            page.mouse.up()
            spread("threshold to drawn, all patches", page.evaluate("waits"))
            page.locator("input[name=basis][value=object]").click()
            box = page.locator(".frame").first.bounding_box()
            page.evaluate("waits.length = 0")
            for x, y in rng.random((options.moves, 2)):
                page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
                page.wait_for_timeout(pause())
            spread("hover to heat map drawn", page.evaluate("waits"))
            work = page.evaluate("""() => {
              const time = (does) => { const start = performance.now();
                for (let i = 0; i < 50; i++) does(i); return (performance.now() - start) / 50; };
              const { model, gallery, state } = patchprism;
              return {
                masks: time((i) => model.update({ ...state, threshold: i / 50 })),
                draw: time(() => gallery.draw(state)),
                similarity: time((i) => model.similarity.of(i * 7)),
                heat: time(() => gallery.drawHeat(model.similarity.result)),
              };
            }""")
            print("script alone, ms: " + ", ".join(f"{name} {value:.2f}" for name, value in work.items()))
            browser.close()


if __name__ == "__main__":
    main()
