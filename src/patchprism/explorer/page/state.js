// The state of the page: its defaults, its text in the fragment of a URL, and its command.

import { HEAD_NAME } from "./head.js";

export const MODES = ["photo", "colours", "overlay", "score", "clusters", "attention"];
export const BACKGROUNDS = ["black", "photo", "grey"];
export const SPACES = ["rgb", "oklab"];
export const SORTS = ["given", "name", "share", "similar"];
export const MAX_MORPHOLOGY = 16;
export const MAX_PINS = 8;
export const MAX_SIZE = 6;

// Values that parts of the page add to links: key of the state -> { write(value) -> text, read(text, photos) -> value, or
// undefined for an invalid text }.
export const linked = new Map();

// The opening view of a message. defaults: those of the parts of the page.
export function initialState(header, defaults = {}) {
  const { fit, mask } = header;
  return {
    mode: "colours",
    basis: "object",
    threshold: mask.threshold ?? fit.threshold ?? 0.5,
    side: mask.side ?? fit.side,
    opening: mask.opening,
    closing: mask.closing,
    background: "black",
    components: fit.components.slice(),
    scaling: fit.scaling,
    space: fit.space,
    alpha: 0.6,
    smooth: false,
    guided: false, // whether the open photo's colours follow its edges
    beside: !header.no_photos, // whether the photo is shown beside its colours
    divide: 0.5,
    size: 1,
    sort: "given",
    hidden: [],
    single: null, // the photo that fills the window
    heat: true,
    heatRange: [0, 1],
    held: null, // the patch whose heat map is kept, { photo, index }
    everywhere: false, // whether matches may lie in the background
    zoom: 1,
    panX: 0.5,
    panY: 0.5,
    pins: [],
    fit: 0, // number of the fit that is shown; in a file with several layers, the layer
    ...defaults,
  };
}

const round = (value, digits) => Number(value.toFixed(digits));

// The values that differ from the opening view, so that most links are short.
export function toFragment(state, opening) {
  const parts = [];
  const put = (key, value, before) => {
    if (String(value) !== String(before)) parts.push(`${key}=${value}`);
  };
  put("m", state.mode, opening.mode);
  put("b", state.basis, opening.basis);
  put("t", state.threshold, opening.threshold);
  put("s", state.side, opening.side);
  put("o", state.opening, opening.opening);
  put("c", state.closing, opening.closing);
  put("g", state.background, opening.background);
  put("k", state.components.join(","), opening.components.join(","));
  put("n", state.scaling, opening.scaling);
  put("l", state.space, opening.space);
  put("a", state.alpha, opening.alpha);
  put("i", state.smooth ? 1 : 0, opening.smooth ? 1 : 0);
  put("h", state.heat ? 1 : 0, opening.heat ? 1 : 0);
  put("f", state.guided ? 1 : 0, opening.guided ? 1 : 0);
  put("w", state.beside ? 1 : 0, opening.beside ? 1 : 0);
  put("d", round(state.divide, 3), opening.divide);
  put("y", round(state.size, 2), opening.size);
  put("r", state.sort, opening.sort);
  put("x", state.hidden.join(","), opening.hidden.join(","));
  put("e", state.single ?? "", opening.single ?? "");
  put("u", state.heatRange.join(","), opening.heatRange.join(","));
  put("j", state.everywhere ? 1 : 0, opening.everywhere ? 1 : 0);
  if (state.held) parts.push(`q=${state.held.photo}.${state.held.index}`);
  for (const [key, { write }] of linked) put(key, write(state[key]), write(opening[key]));
  if (state.zoom !== 1) parts.push(`z=${round(state.zoom, 3)},${round(state.panX, 4)},${round(state.panY, 4)}`);
  if (state.pins.length) parts.push(`p=${state.pins.map((pin) => `${pin.photo}.${pin.index}`).join(",")}`);
  return parts.join("&");
}

const oneOf = (text, allowed, otherwise) => (allowed.includes(text) ? text : otherwise);
const within = (text, low, high, otherwise) => {
  const value = text === null || text === "" ? NaN : Number(text);
  return value >= low && value <= high ? value : otherwise;
};
const whole = (text, low, high, otherwise) => {
  const value = within(text, low, high, otherwise);
  return Number.isInteger(value) ? value : otherwise;
};

// "2.17" -> { photo: 2, index: 17 }, or null if there is no such patch.
function patchOf(text, photos) {
  const [photo, index] = text.split(".").map((number) => (number === "" ? NaN : Number(number)));
  const grid = photos[photo]?.grid;
  return grid && Number.isInteger(index) && index >= 0 && index < grid[0] * grid[1] ? { photo, index } : null;
}

// A fragment may come from anywhere, so invalid values are ignored.
export function fromFragment(text, opening, photos) {
  const given = new URLSearchParams(text.replace(/^#/, ""));
  const state = { ...opening, components: opening.components.slice(), pins: [] };
  const get = (key) => given.get(key);
  state.mode = oneOf(get("m"), MODES, opening.mode);
  state.basis = oneOf(get("b"), ["object", "all"], opening.basis);
  state.threshold = within(get("t"), 0, 1, opening.threshold);
  state.side = oneOf(get("s"), ["above", "below", "none"], opening.side);
  state.opening = whole(get("o"), 0, MAX_MORPHOLOGY, opening.opening);
  state.closing = whole(get("c"), 0, MAX_MORPHOLOGY, opening.closing);
  state.background = oneOf(get("g"), BACKGROUNDS, opening.background);
  const components = (get("k") ?? "").split(",").map(Number);
  if (components.length === 3 && components.every((c) => Number.isInteger(c) && c !== 0 && Math.abs(c) <= 8)) {
    state.components = components;
  }
  state.scaling = oneOf(get("n"), ["minmax", "percentile", "sigmoid"], opening.scaling);
  state.space = oneOf(get("l"), SPACES, opening.space);
  state.alpha = within(get("a"), 0, 1, opening.alpha);
  state.smooth = (get("i") ?? (opening.smooth ? "1" : "0")) === "1";
  state.heat = (get("h") ?? (opening.heat ? "1" : "0")) === "1";
  state.guided = (get("f") ?? (opening.guided ? "1" : "0")) === "1";
  state.beside = (get("w") ?? (opening.beside ? "1" : "0")) === "1";
  state.divide = within(get("d"), 0, 1, opening.divide);
  state.size = within(get("y"), 1, MAX_SIZE, opening.size);
  state.sort = oneOf(get("r"), SORTS, opening.sort);
  const hidden = new Set((get("x") ?? "").split(",").map((part) => whole(part, 0, photos.length - 1, -1)));
  hidden.delete(-1);
  if (hidden.size < photos.length) state.hidden = [...hidden];
  state.single = whole(get("e"), 0, photos.length - 1, opening.single);
  const [low, high] = (get("u") ?? "").split(",").map((part) => within(part, -1, 1, NaN));
  if (low < high) state.heatRange = [low, high];
  state.everywhere = (get("j") ?? (opening.everywhere ? "1" : "0")) === "1";
  state.held = patchOf(get("q") ?? "", photos);
  for (const [key, { read }] of linked) if (get(key) !== null) state[key] = read(get(key), photos) ?? opening[key];
  const [zoom, panX, panY] = (get("z") ?? "").split(",");
  state.zoom = within(zoom ?? null, 1, 16, 1);
  state.panX = within(panX ?? null, 0, 1, 0.5);
  state.panY = within(panY ?? null, 0, 1, 0.5);
  for (const part of (get("p") ?? "").split(",")) {
    const pin = patchOf(part, photos);
    if (pin && state.pins.length < MAX_PINS) state.pins.push(pin);
  }
  return state;
}

// Quotes a word for a POSIX shell.
export function shellWord(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

// Whether the command needs the prism that the page downloads, because a fit on these photos does not give it.
export function needsOwnPrism(header, state) {
  return (
    header.command.prism !== null &&
    (header.command.prism === PRISM_NAME ||
      state.components.join() !== header.fit.components.join() ||
      state.scaling !== header.fit.scaling ||
      state.space !== header.fit.space ||
      (state.basis === "all" && state.side === "none" && header.fit.side !== "none") ||
      // The command cannot set these to 0, because 0 means the value of the prism.
      (header.mask.opening > 0 && state.opening === 0) ||
      (header.mask.closing > 0 && state.closing === 0))
  );
}

export const PRISM_NAME = "explored.prism.safetensors";

// The command that reproduces the view, as a list of words.
export function commandWords(header, state) {
  const { command, fit } = header;
  const words = ["patchprism", "render", ...(command.input ?? header.photos.map((photo) => photo.source))];
  for (const option of command.options) words.push(...option);
  // If a head of the page is the foreground, the command fits the colours to it.
  const taught = state.headForeground;
  if (taught) words.push("--head", HEAD_NAME);
  // The colours of the whole image are scaled over all patches, as in a fit on all of them.
  const whole = !taught && state.basis === "all" && state.side === "none" && fit.side !== "none" && command.prism === null;
  if (taught || command.prism === null) {
    if (!taught) words.push("--threshold", whole ? "auto" : command.threshold, "--foreground", whole ? "none" : command.foreground);
    words.push("--scaling", state.scaling, `--components=${state.components.join(",")}`);
    if (state.space !== "rgb") words.push("--space", state.space);
  } else {
    words.push("--prism", needsOwnPrism(header, state) ? PRISM_NAME : command.prism);
  }
  const fitted = taught ? { threshold: 0.5, side: "above" } : fit;
  const changed = !whole && (state.side !== fitted.side || (state.side !== "none" && state.threshold !== fitted.threshold));
  // The downloaded prism already contains these, but repeating them changes nothing.
  if (changed || (!whole && header.mask.threshold !== null) || (!whole && header.mask.side !== null)) {
    if (state.side !== "none") words.push("--mask-threshold", String(state.threshold));
    words.push("--mask-side", state.side);
  }
  if (state.opening) words.push("--opening", String(state.opening));
  if (state.closing) words.push("--closing", String(state.closing));
  if (state.basis === "all") words.push("--basis", "all");
  if (state.mode === "overlay") words.push("--overlay", String(state.alpha));
  else if (state.mode === "score") words.push("--arrays");
  else if (state.mode === "clusters") words.push("--lens", "clusters", "--clusters", String(state.clusters));
  else if (state.mode === "attention") words.push("--lens", "attention");
  else if (state.background !== "black") words.push("--background", state.background);
  // If the photo is visible, the command would follow its edges by default, which the page does not.
  if (state.mode === "overlay" || words.includes("photo")) words.push("--upsample", "nearest");
  words.push("--out", "out");
  return words;
}

export function commandText(header, state) {
  return commandWords(header, state).map(shellWord).join(" ");
}
