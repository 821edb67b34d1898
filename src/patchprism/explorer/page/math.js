// The mathematics of the page, which gives the same bytes as Python for the same settings. No DOM, no state.
//
// Numbers in JavaScript are float64, and so are Python's computations of colours. Where Python rounds to float32, Math.fround
// is used here. tests/explorer/test_math.py compares both for a table of settings.

import { fillCube } from "./oklab.js";

export const FLAT = 0.5;

// prism/colors.py: scale_range of one value. If span <= 0, the channel is flat.
export function scaleRange(value, low, high) {
  const span = high - low;
  if (span <= 0) return FLAT;
  return Math.fround(Math.min(Math.max((value - low) / span, 0), 1));
}

// prism/colors.py: scale_sigmoid of one value.
export function scaleSigmoid(value, deviation) {
  if (deviation <= 0) return FLAT;
  return Math.fround(0.5 + 0.5 * Math.tanh(value / deviation));
}

// support/arrays.py: to_uint8 of one float32, multiplied by 255 in float32 and rounded half to even.
export function toUint8(value) {
  const scaled = Math.fround(Math.min(Math.max(value, 0), 1) * 255);
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  if (rest > 0.5 || (rest === 0.5 && floor % 2 === 1)) return floor + 1;
  return floor;
}

// prism/axes.py: split_at, a mask that is 1 where the score is strictly on the side.
export function splitAt(scores, threshold, side, mask = new Uint8Array(scores.length)) {
  const edge = Math.fround(threshold);
  if (side === "none") mask.fill(1);
  else if (side === "above") for (let i = 0; i < scores.length; i++) mask[i] = scores[i] > edge ? 1 : 0;
  else for (let i = 0; i < scores.length; i++) mask[i] = scores[i] < edge ? 1 : 0;
  return mask;
}

// One pass over a grid with a cross of five patches: erosion for value 1, dilation for value 0. Patches outside the grid are
// ignored.
function crossPass(mask, h, w, value) {
  const result = mask.slice();
  const other = 1 - value;
  for (let y = 0, i = 0; y < h; y++) {
    for (let x = 0; x < w; x++, i++) {
      if (
        (y > 0 && mask[i - w] === other) ||
        (y < h - 1 && mask[i + w] === other) ||
        (x > 0 && mask[i - 1] === other) ||
        (x < w - 1 && mask[i + 1] === other)
      ) {
        result[i] = other;
      }
    }
  }
  return result;
}

// prism/morphology.py: clean, which opens and then closes a mask.
export function cleanMask(mask, h, w, opening, closing) {
  for (let n = 0; n < opening; n++) mask = crossPass(mask, h, w, 1);
  for (let n = 0; n < opening; n++) mask = crossPass(mask, h, w, 0);
  for (let n = 0; n < closing; n++) mask = crossPass(mask, h, w, 0);
  for (let n = 0; n < closing; n++) mask = crossPass(mask, h, w, 1);
  return mask;
}

// The masks of all photos in one array: thresholded, then cleaned photo by photo.
export function masksOf(scores, photos, settings) {
  const mask = splitAt(scores, settings.threshold, settings.side);
  if (!settings.opening && !settings.closing) return mask;
  for (const { start, grid } of photos) {
    const [h, w] = grid;
    const part = mask.subarray(start, start + h * w);
    part.set(cleanMask(part, h, w, settings.opening, settings.closing));
  }
  return mask;
}

// prism/colors.py: lay_out, and to_uint8. Values (n, 3), float32, are changed in place; returns their bytes.
function laidOut(values, space, bytes) {
  if (space === "oklab") for (let at = 0; at < values.length; at += 3) fillCube(values, at);
  for (let i = 0; i < values.length; i++) bytes[i] = toUint8(values[i]);
  return bytes;
}

// prism/fitted.py: colors_of. Bytes (n, 3) of the object components of all patches, foreground or not.
export function objectColors(components, pca, range, settings, bytes) {
  const n = components[0].length;
  const scaled = new Float32Array(3 * n);
  for (let channel = 0; channel < 3; channel++) {
    const signed = settings.components[channel];
    const index = Math.abs(signed) - 1;
    const sign = Math.sign(signed);
    const values = components[index];
    const deviation = pca.deviation[index];
    if (settings.scaling === "sigmoid") {
      for (let i = 0, at = channel; i < n; i++, at += 3) scaled[at] = scaleSigmoid(values[i] * sign, deviation);
      continue;
    }
    const a = range.low[index] * sign;
    const b = range.high[index] * sign;
    const low = Math.min(a, b);
    const high = deviation > 0 ? Math.max(a, b) : low;
    for (let i = 0, at = channel; i < n; i++, at += 3) scaled[at] = scaleRange(values[i] * sign, low, high);
  }
  return laidOut(scaled, settings.space, bytes);
}

// prism/axes.py: all_patch_values, as three arrays. Background patches get the smallest value in their photo.
export function allPatchValues(components, photos, mask, chosen) {
  const n = mask.length;
  const channels = chosen.map((signed) => {
    const values = components[Math.abs(signed) - 1];
    const sign = Math.sign(signed);
    const result = new Float64Array(n);
    for (let i = 0; i < n; i++) result[i] = values[i] * sign;
    return result;
  });
  for (const { start, grid } of photos) {
    const end = start + grid[0] * grid[1];
    let smallest = Infinity;
    for (const values of channels) for (let i = start; i < end; i++) if (values[i] < smallest) smallest = values[i];
    for (const values of channels) for (let i = start; i < end; i++) if (!mask[i]) values[i] = smallest;
  }
  return channels;
}

// The range of each channel of the all-patch picture, as the fit finds it.
export function extentOf(channels) {
  const low = [];
  const high = [];
  for (const values of channels) {
    let least = Infinity;
    let most = -Infinity;
    for (let i = 0; i < values.length; i++) {
      if (values[i] < least) least = values[i];
      if (values[i] > most) most = values[i];
    }
    low.push(least);
    high.push(most);
  }
  return { low, high };
}

// The all-patch picture's bytes (n, 3).
export function allColors(channels, range, pca, settings, bytes) {
  const scaled = new Float32Array(bytes.length);
  for (let channel = 0; channel < 3; channel++) {
    const flat = pca.deviation[Math.abs(settings.components[channel]) - 1] === 0;
    const low = range.low[channel];
    const high = flat ? low : range.high[channel];
    const values = channels[channel];
    for (let i = 0, at = channel; i < values.length; i++, at += 3) scaled[at] = scaleRange(values[i], low, high);
  }
  return laidOut(scaled, settings.space, bytes);
}

// Counts of the scores in equal bins of [0, 1].
export function histogramOf(scores, bins) {
  const counts = new Int32Array(bins);
  for (let i = 0; i < scores.length; i++) counts[Math.min(bins - 1, Math.floor(scores[i] * bins))]++;
  return counts;
}

// pictures/render.py: _along. The patch of each pixel along one side, or `patches` outside the crop.
export function patchAlong(pixels, patches, start, stop) {
  const index = new Int32Array(pixels);
  const scale = patches / (stop - start);
  for (let i = 0; i < pixels; i++) {
    const centre = i + 0.5;
    index[i] = centre >= start && centre < stop ? Math.min(Math.floor((centre - start) * scale), patches - 1) : patches;
  }
  return index;
}

// pictures/render.py: paint and overlay. RGBA of a photo at its own resolution.
//
// colors: bytes (h*w, 3); visible (h*w) says which patches have a colour. Other pixels have the grey value `fill`. If photo
// (RGBA of H*W) is given, they show the photo, and patches are blended with it by `alpha`, in steps of 1/256 as in Python.
export function paintPicture({ colors, visible, grid, crop, size, fill, photo, alpha }) {
  const [height, width] = size;
  const [h, w] = grid;
  const rows = patchAlong(height, h, crop[1], crop[3]);
  const columns = patchAlong(width, w, crop[0], crop[2]);
  const out = new Uint8ClampedArray(height * width * 4);
  const share = photo ? roundHalfEven(alpha * 256) : 256;
  for (let y = 0, at = 0; y < height; y++) {
    const row = rows[y];
    for (let x = 0; x < width; x++, at += 4) {
      const column = columns[x];
      const patch = row < h && column < w ? row * w + column : -1;
      const shown = patch >= 0 && visible[patch];
      for (let c = 0; c < 3; c++) {
        if (photo) {
          const weight = shown ? share : 0;
          const color = shown ? colors[3 * patch + c] : 0;
          out[at + c] = (color * weight + photo[at + c] * (256 - weight) + 128) >> 8;
        } else {
          out[at + c] = shown ? colors[3 * patch + c] : fill;
        }
      }
      out[at + 3] = 255;
    }
  }
  return out;
}

export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}

// pictures/sheet.py: viridis of one value in [0, 1], linear between anchors. Writes three bytes into `bytes` at `at`.
const VIRIDIS =
  "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d " +
  "2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a " +
  "3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725";
const ANCHORS = VIRIDIS.split(" ").map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255));

export function putMapped(value, bytes, at) {
  const last = ANCHORS.length - 1;
  const clipped = Math.min(Math.max(value, 0), 1);
  const j = Math.min(Math.floor(clipped * last), last - 1);
  for (let c = 0; c < 3; c++) {
    const slope = (ANCHORS[j + 1][c] - ANCHORS[j][c]) / (1 / last);
    const mapped = clipped >= 1 ? ANCHORS[last][c] : slope * (clipped - j / last) + ANCHORS[j][c];
    bytes[at + c] = roundHalfEven(Math.min(Math.max(mapped, 0), 1) * 255);
  }
}

// A table of n colours, for heat maps that follow the pointer.
export function mappedTable(n) {
  const table = new Uint8Array(3 * n);
  for (let i = 0; i < n; i++) putMapped(i / (n - 1), table, 3 * i);
  return table;
}

// The picture of the scores, bytes (n, 3).
export function scoreColors(scores, bytes) {
  for (let i = 0; i < scores.length; i++) putMapped(scores[i], bytes, 3 * i);
  return bytes;
}
