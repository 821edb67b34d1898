// The photos side by side: tiny canvases of one pixel a patch, enlarged by the browser.
//
// A frame's work is a few thousand pixels, whatever the window's size; enlarging, blending with the photo and
// moving are the compositor's. WebGL would save nothing: measured in benchmarks/explorer.py.

import { mappedTable } from "./math.js";

const SVG = "http://www.w3.org/2000/svg";
const HEAT_STEPS = 512;
export const PIN_COLORS = ["#ffd60a", "#ff375f", "#32d7ff", "#30d158", "#ff9f0a", "#bf5af2", "#ffffff", "#66d4cf"];

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function svgElement(tag, attributes = {}) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function icon(path) {
  const svg = svgElement("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "icon" });
  svg.append(svgElement("path", { d: path }));
  return svg;
}

const DOWNLOAD = "M12 4v11m0 0-4.5-4.5M12 15l4.5-4.5M5 19.5h14";

export class Gallery {
  // actions: foresee(photo, index), hover(photo, index), leave(), pin(photo, index), download(photo), pan(dx, dy), zoom(factor, x, y)
  constructor(root, lines, model, actions) {
    this.root = root;
    this.lines = lines;
    this.model = model;
    this.actions = actions;
    this.heatTable = mappedTable("magma", HEAT_STEPS);
    this.tiles = model.photos.map((photo, i) => this.makeTile(photo, i));
    root.replaceChildren(...this.tiles.map((tile) => tile.figure));
    this.ready = Promise.all(this.tiles.map((tile) => tile.image.decode().catch(() => {})));
    this.links = [];
    this.sizes = new ResizeObserver(() => this.drawLines());
    this.sizes.observe(root);
  }

  close() {
    this.sizes.disconnect();
    for (const tile of this.tiles) URL.revokeObjectURL(tile.image.src);
    this.lines.replaceChildren();
  }

  makeTile(photo, index) {
    const [h, w] = photo.grid;
    const [height, width] = photo.size;
    const [left, top, right, bottom] = photo.crop;
    const image = element("img", { alt: "", class: "photo", draggable: "false", decoding: "async" });
    image.src = URL.createObjectURL(new Blob([this.model.buffers[`photo-${index}`]], { type: "image/webp" }));
    const layer = (name) => {
      const canvas = element("canvas", { class: `layer ${name}`, width: w, height: h, "aria-hidden": "true" });
      Object.assign(canvas.style, {
        left: `${(100 * left) / width}%`,
        top: `${(100 * top) / height}%`,
        width: `${(100 * (right - left)) / width}%`,
        height: `${(100 * (bottom - top)) / height}%`,
      });
      return canvas;
    };
    const colors = layer("colors");
    const heat = layer("heat");
    const marks = svgElement("svg", { class: "layer marks", viewBox: `0 0 ${w} ${h}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    Object.assign(marks.style, { left: colors.style.left, top: colors.style.top, width: colors.style.width, height: colors.style.height });
    const halo = svgElement("path", { class: "outline halo" });
    const outline = svgElement("path", { class: "outline" });
    const cursor = svgElement("g", { class: "cursor", visibility: "hidden" });
    // A dark edge as a rectangle of its own: a filter would be painted anew with every move.
    for (const name of ["edge", "line"]) cursor.append(svgElement("rect", { class: name, width: 1, height: 1 }));
    marks.append(halo, outline, cursor);
    const stage = element("div", { class: "stage" }, image, colors, heat, marks);
    const frame = element(
      "div",
      {
        class: "frame",
        tabindex: "0",
        role: "application",
        "aria-roledescription": "photo of patches",
        "aria-label": `${photo.name}, ${h} by ${w} patches. Arrow keys move over patches, Enter pins one.`,
        "data-photo": index,
      },
      stage,
    );
    frame.style.aspectRatio = `${width} / ${height}`;
    const share = element("span", { class: "share" });
    const button = element(
      "button",
      { type: "button", class: "quiet", title: "Download this picture as shown (PNG)", "aria-label": `Download the picture of ${photo.name}`, onclick: () => this.actions.download(index) },
      icon(DOWNLOAD),
    );
    const name = element("span", { class: "name", title: photo.name }, photo.name);
    const figure = element("figure", { class: "tile" }, frame, element("figcaption", {}, name, share, button));
    const tile = {
      photo, index, figure, frame, stage, image, marks, outline, halo, cursor, share, at: -1, pinMarks: [],
      colors: colors.getContext("2d"), heat: heat.getContext("2d"),
      pixels: new ImageData(w, h), heatPixels: new ImageData(w, h),
    };
    this.listen(tile);
    return tile;
  }

  // The patch under a pointer, or -1.
  patchAt(tile, event) {
    const box = tile.marks.getBoundingClientRect();
    const [h, w] = tile.photo.grid;
    const x = Math.floor(((event.clientX - box.left) / box.width) * w);
    const y = Math.floor(((event.clientY - box.top) / box.height) * h);
    return x >= 0 && y >= 0 && x < w && y < h ? y * w + x : -1;
  }

  listen(tile) {
    const { frame } = tile;
    const pointers = new Map();
    let travelled = 0;
    let spread = 0;
    const over = (event) => {
      const patch = this.patchAt(tile, event);
      if (patch === tile.at) return;
      tile.at = patch;
      if (patch < 0) this.actions.leave();
      else this.actions.hover(tile.index, patch);
    };
    frame.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event);
      travelled = 0;
      spread = 0;
      if (event.button === 0) frame.setPointerCapture(event.pointerId);
    });
    frame.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (before) {
        const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
        travelled += Math.abs(dx) + Math.abs(dy);
        pointers.set(event.pointerId, event);
        const box = frame.getBoundingClientRect();
        if (pointers.size === 2) {
          const [a, b] = [...pointers.values()];
          const now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
          const middle = [(a.clientX + b.clientX) / 2 - box.left, (a.clientY + b.clientY) / 2 - box.top];
          if (spread) this.actions.zoom(now / spread, middle[0] / box.width, middle[1] / box.height);
          spread = now;
          return;
        }
        if (travelled > 4) this.actions.pan(dx / box.width, dy / box.height);
      }
      over(event);
    });
    // When a click ends, WebKit lets the pointer leave and enter again where it is.
    frame.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "touch") over(event);
    });
    // Comes at once, where pointermove waits for the next frame: time enough to compute what that will show.
    frame.addEventListener("pointerrawupdate", (event) => {
      const patch = event.buttons ? -1 : this.patchAt(tile, event);
      if (patch >= 0 && patch !== tile.at) this.actions.foresee(tile.index, patch);
    });
    const end = (event) => {
      const known = pointers.delete(event.pointerId);
      if (event.type === "pointerup" && known && travelled <= 4 && event.button === 0) {
        const patch = this.patchAt(tile, event);
        if (patch >= 0) this.actions.pin(tile.index, patch);
      }
    };
    frame.addEventListener("pointerup", end);
    frame.addEventListener("pointercancel", end);
    frame.addEventListener("pointerleave", () => {
      tile.at = -1;
      this.actions.leave();
    });
    frame.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page
        event.preventDefault();
        const box = frame.getBoundingClientRect();
        this.actions.zoom(Math.exp(-event.deltaY / 300), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
      },
      { passive: false },
    );
    frame.addEventListener("keydown", (event) => {
      const [h, w] = tile.photo.grid;
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      const at = tile.at >= 0 ? tile.at : Math.floor(h / 2) * w + Math.floor(w / 2);
      if (step) {
        const first = tile.at < 0;
        const x = Math.min(Math.max((at % w) + (first ? 0 : step[0]), 0), w - 1);
        const y = Math.min(Math.max(Math.floor(at / w) + (first ? 0 : step[1]), 0), h - 1);
        tile.at = y * w + x;
        this.actions.hover(tile.index, tile.at, true);
      } else if ((event.key === "Enter" || event.key === " ") && tile.at >= 0) {
        this.actions.pin(tile.index, tile.at);
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
    frame.addEventListener("blur", () => {
      tile.at = -1;
      this.actions.leave();
    });
  }

  // Colours and masks of all photos.
  draw(state) {
    const { colors, visible } = this.model.layer(state);
    const alpha = state.mode === "overlay" ? state.alpha : 1;
    const style = [state.mode, state.background, state.smooth, alpha].join();
    if (style !== this.style) {
      // Even the same value set again has the styles of the whole gallery worked out anew, every frame.
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
      const share = `${Math.round(100 * this.model.share(tile.photo))} %`;
      if (tile.share.textContent !== share) tile.share.textContent = share;
      const path = outlined ? outlineOf(this.model.mask, start, grid) : "";
      if (tile.path !== path) for (const line of [tile.outline, tile.halo]) line.setAttribute("d", path);
      tile.path = path;
    }
  }

  // Similarities as heat over all photos; null takes it away.
  drawHeat(similarities) {
    this.root.classList.toggle("heating", similarities !== null);
    if (!similarities) return;
    const table = this.heatTable;
    for (const tile of this.tiles) {
      const { start, grid } = tile.photo;
      const n = grid[0] * grid[1];
      const data = tile.heatPixels.data;
      for (let i = 0, at = 0; i < n; i++, at += 4) {
        const value = similarities[start + i];
        const step = 3 * (value <= 0 ? 0 : value >= 1 ? HEAT_STEPS - 1 : Math.round(value * (HEAT_STEPS - 1)));
        data[at] = table[step];
        data[at + 1] = table[step + 1];
        data[at + 2] = table[step + 2];
        data[at + 3] = 255;
      }
      tile.heat.putImageData(tile.heatPixels, 0, 0);
    }
  }

  drawCursor(photo, index) {
    const tile = this.tiles[photo];
    // Only what changes is touched: each photo's marks would be painted anew.
    if (tile !== this.under) {
      this.under?.cursor.setAttribute("visibility", "hidden");
      tile?.cursor.setAttribute("visibility", "visible");
      this.under = tile;
    }
    if (!tile) return;
    const w = tile.photo.grid[1];
    tile.cursor.setAttribute("transform", `translate(${index % w} ${Math.floor(index / w)})`);
  }

  place(state) {
    const clamp = (centre) => Math.min(Math.max(0.5 - state.zoom * centre, 1 - state.zoom), 0);
    const [x, y] = [clamp(state.panX), clamp(state.panY)];
    this.root.dataset.zoomed = state.zoom > 1;
    for (const tile of this.tiles) {
      tile.stage.style.transform = state.zoom === 1 ? "" : `translate(${100 * x}%, ${100 * y}%) scale(${state.zoom})`;
    }
    this.drawLines();
  }

  // Pins as marks on their patches, and lines to their matches: links [{ pin, matches }].
  drawPins(links) {
    this.links = links;
    for (const tile of this.tiles) {
      tile.pinMarks.forEach((mark) => mark.remove());
      tile.pinMarks = [];
    }
    links.forEach(({ pin, matches }, i) => {
      const color = PIN_COLORS[i % PIN_COLORS.length];
      this.mark(pin.photo, pin.index, color, "pin");
      for (const match of matches) {
        const { start } = this.tiles[match.photo].photo;
        this.mark(match.photo, match.patch - start, color, match.mutual ? "match mutual" : "match");
      }
    });
    this.drawLines();
  }

  mark(photo, index, color, kind) {
    const tile = this.tiles[photo];
    const w = tile.photo.grid[1];
    const rect = svgElement("rect", { class: kind, x: index % w, y: Math.floor(index / w), width: 1, height: 1 });
    rect.style.stroke = color;
    tile.marks.append(rect);
    tile.pinMarks.push(rect);
  }

  drawLines() {
    if (!this.links.length) {
      this.lines.replaceChildren();
      return;
    }
    const origin = this.lines.getBoundingClientRect();
    const places = this.tiles.map((tile) => [tile.marks.getBoundingClientRect(), tile.frame.getBoundingClientRect()]);
    const centre = (photo, index) => {
      const [h, w] = this.tiles[photo].photo.grid;
      const [box, frame] = places[photo];
      const x = box.left + (((index % w) + 0.5) / w) * box.width;
      const y = box.top + ((Math.floor(index / w) + 0.5) / h) * box.height;
      const seen = x >= frame.left && x <= frame.right && y >= frame.top && y <= frame.bottom;
      return seen ? [x - origin.left, y - origin.top] : null; // what zooming has moved out of sight has no line
    };
    const made = [];
    this.links.forEach(({ pin, matches }, i) => {
      const from = centre(pin.photo, pin.index);
      for (const match of matches) {
        const to = centre(match.photo, match.patch - this.tiles[match.photo].photo.start);
        if (!from || !to) continue;
        const line = svgElement("line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1], class: match.mutual ? "link mutual" : "link" });
        line.style.stroke = PIN_COLORS[i % PIN_COLORS.length];
        made.push(line);
      }
    });
    this.lines.replaceChildren(...made);
  }
}

// The edges between foreground and background of one photo, as an SVG path on the grid.
function outlineOf(mask, start, [h, w]) {
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
