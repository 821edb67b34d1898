// A linear head, as src/patchprism/prism/head.py defines it: its decisions and its file. headfit.js fits it. No DOM.

import { rowDots } from "./linear.js";
import { readTensors, writeTensors } from "./prism.js";

export const DECISION_GRID = 2 ** -12; // decisions are rounded to multiples of this
const HEAD_VERSION = 1;
const HEAD_ENTRY = "patchprism_head";
export const HEAD_NAME = "taught.head.safetensors"; // the same as in build.py, which names it in commands
const AXIS_STEPS = 32767;

// The reduced tokens of the marked patches, (n, dims) int8. marks: [[patch, class], ...].
export function markedRows({ codes, dims }, marks) {
  const rows = new Int8Array(marks.length * dims);
  marks.forEach(([patch], i) => rows.set(codes.subarray(patch * dims, (patch + 1) * dims), i * dims));
  return rows;
}

// Decisions w_k . x + b_k of all patches, (n, K), from reduced tokens, rounded as in Python.
export function decisionsOf({ weights, bias, width }, { codes, count }, scales) {
  const K = bias.length;
  const scaled = weights.map((value, i) => value * scales[i % width]);
  const out = new Float64Array(count * K);
  // A fit of two classes gives opposite weights, so one of them is enough.
  const opposite = K === 2 && bias[0] === -bias[1] && scaled.subarray(0, width).every((value, d) => value === -scaled[width + d]);
  const four = new Float64Array(4);
  for (let k = opposite ? 1 : 0; k < K; k++) {
    for (let i = 0; i < count; i += 4) {
      const many = Math.min(4, count - i);
      rowDots(codes, i * width, many, width, scaled, k * width, bias[k], four, 0);
      for (let j = 0; j < many; j++) {
        const at = (i + j) * K + k;
        out[at] = Math.round(four[j] / DECISION_GRID) * DECISION_GRID;
        if (opposite) out[at - 1] = -out[at];
      }
    }
  }
  return out;
}

// Score (1 - p(background)), class and certainty (p(class)) of each patch, from decisions (n, K).
export function readDecisions(decisions, K) {
  const n = decisions.length / K;
  const [score, sure, classes] = [new Float32Array(n), new Float32Array(n), new Uint8Array(n)];
  const shares = new Float64Array(K);
  for (let i = 0; i < n; i++) {
    let most = -Infinity;
    for (let k = 0; k < K; k++) most = Math.max(most, decisions[i * K + k]);
    let total = 0;
    for (let k = 0; k < K; k++) total += shares[k] = Math.exp(decisions[i * K + k] - most);
    let object = 0;
    let best = 1;
    for (let k = 1; k < K; k++) {
      object += shares[k];
      if (shares[k] > shares[best]) best = k;
    }
    score[i] = Math.min(object / total, 1);
    classes[i] = score[i] > 0.5 ? best : 0;
    sure[i] = shares[classes[i]] / total;
  }
  return { score, sure, classes };
}

// Converts a head of reduced tokens to one of full tokens, and back. axes: Int16Array (dims, full), in steps of 1 / 32767.
export function widened({ weights, bias, width }, axes) {
  const full = axes.length / width;
  const out = new Float64Array(bias.length * full);
  for (let k = 0; k < bias.length; k++) {
    for (let d = 0; d < width; d++) {
      const weight = weights[k * width + d] / AXIS_STEPS;
      for (let j = 0; j < full; j++) out[k * full + j] += weight * axes[d * full + j];
    }
  }
  return { weights: out, bias, width: full };
}

export function narrowed({ weights, bias, width: full }, axes) {
  const width = axes.length / full;
  const out = new Float64Array(bias.length * width);
  for (let k = 0; k < bias.length; k++) {
    for (let d = 0; d < width; d++) {
      let sum = 0;
      for (let j = 0; j < full; j++) sum += weights[k * full + j] * axes[d * full + j];
      out[k * width + d] = sum / AXIS_STEPS;
    }
  }
  return { weights: out, bias, width };
}

// Writes the file of a head, in the layout of prism/head_file.py. The head is one of full tokens, with classes, C, patches
// and origin.
export function writeHead({ weights, bias, width, classes, C, photos, patches, origin }) {
  const header = { version: HEAD_VERSION, classes, C, n_photos: photos, n_patches: patches, origin };
  const K = bias.length;
  return writeTensors({ weights: [[K, width], weights], bias: [[K], bias] }, { [HEAD_ENTRY]: JSON.stringify(header) });
}

export function readHead(bytes) {
  let said;
  let tensors;
  try {
    const found = readTensors(bytes);
    said = JSON.parse(found.metadata[HEAD_ENTRY]);
    tensors = found.tensors;
  } catch {
    throw new Error("This file is not a head, or it is damaged.");
  }
  if (!Number.isInteger(said?.version) || said.version < 1) throw new Error("This head is damaged: it has no version.");
  if (said.version > HEAD_VERSION) throw new Error(`This head has version ${said.version}; the page reads up to version ${HEAD_VERSION}.`);
  const { classes, C, n_photos: photos, n_patches: patches, origin } = said;
  const K = Array.isArray(classes) ? classes.length : 0;
  const names = K >= 2 && K <= 255 && classes.every((name) => typeof name === "string" && name.trim() && name.length <= 100) && new Set(classes).size === K;
  const [weights, bias] = [tensors.weights, tensors.bias];
  const width = weights?.shape[1];
  const sound = weights?.shape.length === 2 && weights.shape[0] === K && bias?.shape.length === 1 && bias.shape[0] === K && width > 0;
  const finite = sound && [...weights.values, ...bias.values].every((value) => Math.abs(value) <= 1e12);
  if (!names || !finite || !(C > 0) || !Array.isArray(patches)) throw new Error("This head is damaged: its classes and weights do not match.");
  return { weights: weights.values, bias: bias.values, width, classes, C, photos, patches, origin: origin ?? {} };
}
