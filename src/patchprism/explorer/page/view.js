// The photos in the window: tiles in justified rows, drawn as small canvases of one pixel per patch.
//
// Each frame draws a few thousand pixels, whatever the size of the window. The browser's compositor enlarges, moves and blends
// them with the photo. WebGL would not be faster, as benchmarks/explorer.py has measured.

import { arrange } from "./arrange.js";
import { setText, svgElement } from "./dom.js";
import { mappedTable } from "./math.js";
import { fitMark, makeTile, patchCanvas } from "./tile.js";

const HEAT_STEPS = 512;
const GAP = 10;
const SEAM = 3;

export class Gallery {
  // actions: functions for what pointer and keys do in a photo; see tile.js.
  constructor(root, model, actions) {
    this.root = root;
    this.model = model;
    this.heatTable = mappedTable(HEAT_STEPS);
    const address = (i) => URL.createObjectURL(new Blob([model.buffers[`photo-${i}`]], { type: "image/webp" }));
    this.tiles = model.photos.map((photo, i) => makeTile(photo, i, address(i), actions));
    root.replaceChildren(...this.tiles.map((tile) => tile.figure));
    this.order = this.tiles.map((tile) => tile.index).join();
    this.ready = Promise.all(this.tiles.map((tile) => tile.image.decode().catch(() => {})));
    this.zoom = 1;
    this.second = false; // whether the side pane shows the colours of another fit; see second.js
    this.moved = () => {}; // called when tiles have moved
    this.sizes = new ResizeObserver(() => this.arrange());
    this.sizes.observe(root.parentElement);
  }

  // Shows the same photos in the colours of another model.
  take(model) {
    this.model = model;
    this.drawCursor(-1);
    for (const tile of this.tiles) {
      for (const name of Object.keys(tile.layers ?? {})) this.paint(name, null);
      tile.photo = model.photos[tile.index];
      tile.at = -1;
    }
  }

  close() {
    this.sizes.disconnect();
    for (const tile of this.tiles) URL.revokeObjectURL(tile.image.src);
  }

  // Sets the photos that are shown, their order and their size. shown: their indices.
  show(shown, state) {
    const order = shown.join();
    if (order !== this.order) {
      this.order = order;
      this.root.replaceChildren(...shown.map((i) => this.tiles[i].figure));
    }
    this.shown = shown;
    this.state = state;
    this.arrange();
  }

  arrange() {
    const { shown, state } = this;
    const board = this.root.parentElement;
    const [width, height] = [board.clientWidth, board.clientHeight];
    if (!shown || !width || !height) return;
    const single = state.single !== null;
    const beside = (state.beside || this.second) && state.mode !== "photo";
    const split = beside && single;
    const laid = arrange({
      aspects: shown.map((i) => this.tiles[i].photo.size[1] / this.tiles[i].photo.size[0]),
      width, height, gap: GAP, seam: SEAM, beside: beside && !split, size: single ? 1 : state.size,
      window: board.closest("section").offsetWidth * innerHeight,
    });
    this.area = laid.area;
    this.root.style.height = `${Math.max(laid.height, 0)}px`;
    this.root.style.top = `${Math.max(0, (height - laid.height) / 2)}px`;
    shown.forEach((i, k) => {
      const { frame, figure } = this.tiles[i];
      const box = laid.boxes[k];
      Object.assign(figure.style, { left: `${box.x}px`, top: `${box.y}px`, width: `${box.width}px` });
      frame.style.height = `${box.height}px`;
      const tile = this.tiles[i];
      figure.dataset.fold = split ? "split" : box.fold;
      tile.paneWidth = box.fold === "row" ? (box.width - SEAM) / 2 : box.width;
    });
    for (const tile of this.tiles) {
      const home = beside && !this.second ? tile.side : tile.main;
      if (tile.heatCanvas.parentElement !== home.stage) home.marks.before(tile.heatCanvas);
    }
    this.moved();
  }

  showTool(tool) {
    this.root.dataset.tool = tool?.name ?? "";
    this.root.style.setProperty("--cursor", tool?.cursor ?? "");
  }

  // Draws colours and masks of all photos.
  draw(state) {
    const { colors, visible } = this.model.layer(state);
    const alpha = state.mode === "overlay" ? state.alpha : 1;
    const style = [state.mode, state.background, state.smooth, alpha].join();
    if (style !== this.style) {
      // Setting even the same value would make the browser recompute the styles of the whole gallery in every frame.
      this.style = style;
      Object.assign(this.root.dataset, { mode: state.mode, background: state.background, smooth: state.smooth });
      this.root.style.setProperty("--alpha", alpha);
    }
    const outlined = state.mode === "photo" || state.mode === "score" || state.basis === "all";
    for (const tile of this.tiles) {
      const { start, grid } = tile.photo;
      const n = grid[0] * grid[1];
      const data = tile.pixels.data;
      for (let i = 0, at = 0, from = 3 * start; i < n; i++, at += 4, from += 3) {
        data[at] = colors[from];
        data[at + 1] = colors[from + 1];
        data[at + 2] = colors[from + 2];
        data[at + 3] = !visible || visible[start + i] ? 255 : 0;
      }
      tile.colors.putImageData(tile.pixels, 0, 0);
      setText(tile.share, `${Math.round(100 * this.model.share(tile.photo))} %`);
      const path = outlined ? outlineOf(this.model.mask, start, grid) : "";
      if (tile.path !== path) for (const line of [tile.main.outline, tile.main.halo]) line.setAttribute("d", path);
      tile.path = path;
    }
  }

  // Draws similarities as a heat map in all photos, from low to high; null removes it.
  drawHeat(similarities, range = [0, 1]) {
    this.root.classList.toggle("heating", similarities !== null);
    if (!similarities) return;
    for (const tile of this.tiles) {
      this.putHeat(tile.heatPixels.data, similarities, tile.photo.start, range);
      tile.heat.putImageData(tile.heatPixels, 0, 0);
    }
  }

  // Writes the similarities of one photo, which begin at `start`, into its pixels as a heat map.
  putHeat(data, similarities, start, [low, high]) {
    const table = this.heatTable;
    const scale = (HEAT_STEPS - 1) / (high - low);
    for (let i = start, at = 0; at < data.length; i++, at += 4) {
      const value = similarities[i];
      const step = 3 * (value <= low ? 0 : value >= high ? HEAT_STEPS - 1 : Math.round((value - low) * scale));
      data[at] = table[step];
      data[at + 1] = table[step + 1];
      data[at + 2] = table[step + 2];
      data[at + 3] = 255;
    }
  }

  // The size of a patch on the screen, in pixels.
  unit({ photo, paneWidth = 100 }) {
    const [left, , right] = photo.crop;
    return (((paneWidth * (right - left)) / photo.size[1]) * this.zoom) / photo.grid[1];
  }

  drawCursor(photo, index) {
    const tile = this.tiles[photo];
    // Only what changes is set, because the marks of every other photo would be painted again.
    if (tile !== this.under) {
      for (const pane of this.under?.panes ?? []) pane.cursor.setAttribute("visibility", "hidden");
      for (const pane of tile?.panes ?? []) pane.cursor.setAttribute("visibility", "visible");
      this.under = tile;
    }
    if (!tile) return;
    const unit = this.unit(tile);
    if (tile.fitted !== unit) for (const pane of tile.panes) fitMark(pane.cursor, "cursor", unit);
    tile.fitted = unit;
    const w = tile.photo.grid[1];
    for (const pane of tile.panes) pane.cursor.setAttribute("transform", `translate(${index % w} ${Math.floor(index / w)})`);
  }

  // Draws a layer with one colour per patch over the photos. rgba: 4 bytes for each patch of all photos, or null to remove the
  // layer. panes: "main", "side" or both.
  paint(name, rgba, panes = ["main", "side"]) {
    for (const tile of this.tiles) {
      const layers = ((tile.layers ??= {})[name] ??= rgba && panes.map((pane) => {
        const canvas = patchCanvas(tile.photo, name);
        tile[pane].marks.before(canvas);
        return canvas;
      }));
      if (!rgba) {
        for (const canvas of layers ?? []) canvas.remove();
        delete tile.layers[name];
        continue;
      }
      const { start, grid } = tile.photo;
      const pixels = new ImageData(rgba.slice(4 * start, 4 * (start + grid[0] * grid[1])), grid[1], grid[0]);
      for (const canvas of layers) canvas.getContext("2d").putImageData(pixels, 0, 0);
    }
  }

  // Draws a line over one photo, such as a lasso. path: an SVG path whose unit is a patch, or "" to remove the line.
  ink(photo, name, path) {
    for (const { marks } of this.tiles[photo].panes) {
      let line = marks.querySelector(`.ink.${name}`);
      if (!path) line?.remove();
      else {
        if (!line) marks.append((line = svgElement("path", { class: `ink ${name}` })));
        line.setAttribute("d", path);
      }
    }
  }

  place(state) {
    this.zoom = state.zoom;
    const clamp = (centre) => Math.min(Math.max(0.5 - state.zoom * centre, 1 - state.zoom), 0);
    const [x, y] = [clamp(state.panX), clamp(state.panY)];
    this.root.dataset.zoomed = state.zoom > 1;
    const transform = state.zoom === 1 ? "" : `translate(${100 * x}%, ${100 * y}%) scale(${state.zoom})`;
    for (const tile of this.tiles) for (const pane of tile.panes) pane.stage.style.transform = transform;
    this.moved();
  }
}

// The borders between foreground and background in one photo, as an SVG path on the grid.
export function outlineOf(mask, start, [h, w]) {
  const parts = [];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const i = start + y * w + x;
      if (x + 1 < w && mask[i] !== mask[i + 1]) parts.push(`M${x + 1} ${y}v1`);
      if (y + 1 < h && mask[i] !== mask[i + w]) parts.push(`M${x} ${y + 1}h1`);
    }
  }
  return parts.join("");
}
