// The tile of one photo: its panes, their layers, and the handling of pointer and keys.
//
// A tile has two panes. "main" shows the mode that was chosen; "side" shows the photo beside it, or left of a divider if one
// frame holds both. Canvases have one pixel per patch, which the browser enlarges.

import { DOWNLOAD_ICON, HIDE_ICON, OPEN_ICON, REMOVE_ICON, element, icon, svgElement } from "./dom.js";

const LONG_PRESS = 500; // milliseconds
const DOUBLE = 400;
// The last click on any photo. A double click consists of two clicks at the same place, with no other click between them.
let tapped = { at: -Infinity, x: 0, y: 0 };

function placed(node, { size, crop }) {
  const [height, width] = size;
  const [left, top, right, bottom] = crop;
  Object.assign(node.style, {
    left: `${(100 * left) / width}%`,
    top: `${(100 * top) / height}%`,
    width: `${(100 * (right - left)) / width}%`,
    height: `${(100 * (bottom - top)) / height}%`,
  });
  return node;
}

// A canvas of one pixel per patch over a pane's photo.
export function patchCanvas(photo, name) {
  const [h, w] = photo.grid;
  return placed(element("canvas", { class: `layer ${name}`, width: w, height: h, "aria-hidden": "true" }), photo);
}

function makePane(photo, address, kind) {
  const [h, w] = photo.grid;
  const image = element("img", { alt: "", class: kind === "main" ? "photo" : "photo-beside", draggable: "false", decoding: "async" });
  image.src = address;
  const view = { viewBox: `0 0 ${w} ${h}`, preserveAspectRatio: "none", "aria-hidden": "true" };
  const marks = placed(svgElement("svg", { class: kind === "main" ? "layer marks" : "layer marks-beside", ...view }), photo);
  const halo = svgElement("path", { class: "outline halo" });
  const outline = svgElement("path", { class: "outline" });
  const cursor = svgElement("g", { class: "cursor", visibility: "hidden" });
  // The dark edge is a separate rectangle, because a filter would be painted again with every move.
  for (const name of ["edge", "line"]) cursor.append(svgElement("rect", { class: name, width: 1, height: 1 }));
  marks.append(halo, outline, cursor);
  const stage = element("div", { class: "stage" }, image, marks);
  const pane = element("div", { class: `pane ${kind}` }, stage);
  return { pane, stage, image, marks, halo, outline, cursor };
}

// Marks are drawn around their patch, never over it. A mark has two rectangles, a dark edge and a line over it, whose strokes
// have these widths in pixels at any zoom. unit: the size of a patch in pixels.
const STROKES = { cursor: [4, 2], pin: [5, 3], match: [4, 2] };

export function fitMark(group, kind, unit) {
  STROKES[kind].forEach((stroke, i) => {
    const out = stroke / 2 / unit;
    const rect = group.children[i];
    for (const [name, value] of [["x", -out], ["y", -out], ["width", 1 + 2 * out], ["height", 1 + 2 * out]]) rect.setAttribute(name, value);
    rect.setAttribute("stroke-width", stroke);
  });
}

export function makeTile(photo, index, address, actions) {
  const [h, w] = photo.grid;
  const side = makePane(photo, address, "side");
  const main = makePane(photo, address, "main");
  const colors = patchCanvas(photo, "colors");
  const heat = patchCanvas(photo, "heat");
  main.marks.before(colors);
  main.marks.before(heat);
  const divide = element("div", {
    class: "divide", role: "slider", tabindex: "0", "aria-valuemin": "0", "aria-valuemax": "100",
    "aria-label": `Divide between the photo and its colours, ${photo.name}`,
  });
  const frame = element(
    "div",
    {
      class: "frame", tabindex: "0", role: "application", "aria-roledescription": "photo of patches", "data-photo": index,
      "aria-label": `${photo.name}, ${h} by ${w} patches. Arrow keys move over patches, Space pins one, Enter opens the photo.`,
    },
    side.pane, main.pane, divide,
  );
  const share = element("span", { class: "share" });
  const button = (label, title, path, does) =>
    element("button", { type: "button", class: `quiet ${label === "Open" ? "open" : ""}`, title, "aria-label": `${label} ${photo.name}`, onclick: does }, icon(path));
  const tools = element(
    "span", { class: "tools" },
    button("Download the picture of", "Download this picture as shown (PNG)", DOWNLOAD_ICON, () => actions.download(index)),
    button("Open", "Open over the whole window (Enter or double click)", OPEN_ICON, () => actions.open(index)),
    button("Hide", "Hide this photo", HIDE_ICON, () => actions.hide(index)),
    ...(actions.remove ? [button("Remove", "Remove this photo and fit the colours again", REMOVE_ICON, () => actions.remove(index))] : []),
  );
  const caption = element("figcaption", {}, element("span", { class: "name", title: photo.name }, photo.name), share, tools);
  const tile = {
    photo, index, frame, share, divide, main, side, panes: [side, main], at: -1, pinMarks: [],
    figure: element("figure", { class: "tile" }, frame, caption),
    image: main.image, marks: main.marks, heatCanvas: heat,
    colors: colors.getContext("2d"), heat: heat.getContext("2d"),
    pixels: new ImageData(w, h), heatPixels: new ImageData(w, h),
  };
  listenPointer(tile, actions);
  listenKeys(tile, actions);
  listenDivide(tile, actions);
  return tile;
}

// The place of the pointer in a photo: { index (-1 outside), x, y, pane }, with x and y in patches of the grid.
export function placeOf(tile, event) {
  const within = ({ pane }) => {
    const box = pane.getBoundingClientRect();
    return event.clientX >= box.left && event.clientX < box.right && event.clientY >= box.top && event.clientY < box.bottom;
  };
  const pane = tile.side.pane.offsetWidth && within(tile.side) ? tile.side : tile.main;
  const box = pane.marks.getBoundingClientRect();
  const [h, w] = tile.photo.grid;
  const x = ((event.clientX - box.left) / box.width) * w;
  const y = ((event.clientY - box.top) / box.height) * h;
  const inside = x >= 0 && y >= 0 && x < w && y < h;
  return { index: inside ? Math.floor(y) * w + Math.floor(x) : -1, x, y, pane };
}

// The box of a patch in the window.
export function boxOf(pane, [h, w], index) {
  const box = pane.marks.getBoundingClientRect();
  const [left, top] = [box.left + ((index % w) / w) * box.width, box.top + (Math.floor(index / w) / h) * box.height];
  return { left, top, right: left + box.width / w, bottom: top + box.height / h };
}

function listenPointer(tile, actions) {
  const { frame } = tile;
  const pointers = new Map();
  let travelled = 0;
  let spread = 0;
  let held = 0; // the timer of a long press
  let tool = null; // the tool that handles this press
  const at = (event) => ({ tile, photo: tile.index, event, ...placeOf(tile, event) });
  const over = (event) => {
    const place = placeOf(tile, event);
    if (place.index === tile.at) return;
    tile.at = place.index;
    if (place.index < 0) actions.leave();
    else actions.hover(tile.index, place.index, boxOf(place.pane, tile.photo.grid, place.index));
  };
  const pinch = (box) => {
    const [a, b] = [...pointers.values()];
    const now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    const x = (a.clientX + b.clientX) / 2 - box.left;
    const y = (a.clientY + b.clientY) / 2 - box.top;
    if (spread) actions.zoom(now / spread, x / box.width, y / box.height);
    spread = now;
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.target === tile.divide) return;
    pointers.set(event.pointerId, event);
    [travelled, spread] = [0, 0];
    clearTimeout(held);
    if (event.button !== 0) return;
    frame.setPointerCapture(event.pointerId);
    if (pointers.size === 1 && actions.tool()) {
      tool = actions.tool();
      tool.down?.(at(event));
    } else if (event.pointerType === "touch" && pointers.size === 1) {
      held = setTimeout(() => {
        const { index } = placeOf(tile, event);
        pointers.delete(event.pointerId);
        if (index >= 0) actions.pin(tile.index, index);
      }, LONG_PRESS);
    }
  });
  frame.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (before) {
      const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
      travelled += Math.abs(dx) + Math.abs(dy);
      pointers.set(event.pointerId, event);
      if (travelled > 8) clearTimeout(held);
      const box = placeOf(tile, event).pane.pane.getBoundingClientRect();
      if (pointers.size === 2) return pinch(box);
      if (tool) tool.move?.(at(event));
      else if (travelled > 4) actions.pan(dx / box.width, dy / box.height);
    }
    over(event);
  });
  // After a click, WebKit sends events as if the pointer had left and entered again.
  frame.addEventListener("pointerenter", (event) => {
    if (event.pointerType !== "touch") over(event);
  });
  // This event comes earlier than pointermove, which waits for the next frame; the similarities are computed meanwhile.
  frame.addEventListener("pointerrawupdate", (event) => {
    const index = event.buttons ? -1 : placeOf(tile, event).index;
    if (index >= 0 && index !== tile.at) actions.foresee(tile.index, index);
  });
  const end = (event) => {
    clearTimeout(held);
    const known = pointers.delete(event.pointerId);
    if (tool && known) {
      if (event.type === "pointerup") tool.up?.(at(event));
      else tool.cancel?.();
      tool = null;
      return;
    }
    if (event.type !== "pointerup" || !known || travelled > 8 || event.button !== 0) return;
    const { index, pane } = placeOf(tile, event);
    const [x, y] = [event.clientX, event.clientY];
    const double = event.timeStamp - tapped.at < DOUBLE && Math.hypot(x - tapped.x, y - tapped.y) < 8;
    tapped = { at: double ? -Infinity : event.timeStamp, x, y };
    if (double) actions.open(tile.index, true);
    else if (index < 0) return;
    else if (event.pointerType === "touch") {
      tile.at = index;
      actions.hover(tile.index, index, boxOf(pane, tile.photo.grid, index));
    }
    else actions.pin(tile.index, index);
  };
  frame.addEventListener("pointerup", end);
  frame.addEventListener("pointercancel", end);
  frame.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "touch") return; // the tapped patch stays
    tile.at = -1;
    actions.leave();
  });
  frame.addEventListener("contextmenu", (event) => {
    if (event.pointerType === "touch") event.preventDefault();
  });
  frame.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls
      event.preventDefault();
      const box = placeOf(tile, event).pane.pane.getBoundingClientRect();
      actions.zoom(Math.exp(-event.deltaY / 300), (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    },
    { passive: false },
  );
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function listenKeys(tile, actions) {
  const { frame } = tile;
  frame.addEventListener("keydown", (event) => {
    if (event.target !== frame || event.ctrlKey || event.metaKey || event.altKey) return;
    const [h, w] = tile.photo.grid;
    const step = ARROWS[event.key];
    if (step && actions.arrow(step, event.shiftKey)) {
      // went to another photo, or to another part of a zoomed photo
    } else if (step) {
      const first = tile.at < 0;
      const from = first ? Math.floor(h / 2) * w + Math.floor(w / 2) : tile.at;
      const x = Math.min(Math.max((from % w) + (first ? 0 : step[0]), 0), w - 1);
      const y = Math.min(Math.max(Math.floor(from / w) + (first ? 0 : step[1]), 0), h - 1);
      tile.at = y * w + x;
      actions.reach(tile.index, tile.at);
      actions.hover(tile.index, tile.at, boxOf(tile.main, tile.photo.grid, tile.at), true);
    } else if (event.key === " " && tile.at >= 0) {
      actions.pin(tile.index, tile.at);
    } else if (event.key === "Enter") {
      actions.open(tile.index);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  frame.addEventListener("blur", () => {
    tile.at = -1;
    actions.leave();
  });
}

// The divider between photo and colours, if one frame holds both.
function listenDivide(tile, actions) {
  const { divide, frame } = tile;
  divide.addEventListener("pointerdown", (event) => {
    event.stopPropagation();
    divide.setPointerCapture(event.pointerId);
  });
  divide.addEventListener("pointermove", (event) => {
    if (!divide.hasPointerCapture(event.pointerId)) return;
    const box = frame.getBoundingClientRect();
    actions.divide(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
  });
  divide.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -0.02, ArrowRight: 0.02, Home: -1, End: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    actions.divide(null, by);
  });
}
