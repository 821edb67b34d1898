// A linear head, as src/patchprism/prism/head.py defines it: its fit, its use and its file. No DOM.
//
// Python minimises the same function of the same tokens; tests/explorer/test_head_page.py compares the weights.

import { readTensors, writeTensors } from "./prism.js";

export const DECISION_GRID = 2 ** -12; // decisions are rounded to multiples of this
const FIT_MEMORY = 12; // steps that L-BFGS remembers
const FIT_TOLERANCE = 1e-9; // largest partial derivative, by C and the number of patches
const HEAD_VERSION = 1;
const HEAD_ENTRY = "patchprism_head";
export const HEAD_NAME = "taught.head.safetensors"; // build.py has the same, for commands
const AXIS_STEPS = 32767;

const dot = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

// Logistic regression that is solved a few milliseconds at a time.
export class HeadFit {
  // rows: Float64Array (n, width); classes: n numbers below `count`; start: weights to begin with, or null.
  constructor({ rows, width, classes, count, C = 10, start = null }) {
    Object.assign(this, { rows, width, classes, count, C });
    this.n = classes.length;
    this.sizes = new Array(count).fill(0);
    for (const k of classes) this.sizes[k]++;
    // All classes weigh the same.
    this.shares = this.sizes.map((size) => (size ? (C * this.n) / (count * size) : 0));
    this.length = count * (width + 1);
    this.at = start?.length === this.length ? Float64Array.from(start) : new Float64Array(this.length);
    this.steps = [];
    this.done = false;
    [this.value, this.slope] = this.evaluate(this.at);
  }

  // The objective and its derivatives at some weights (K, width) and intercepts (K).
  evaluate(at) {
    const { rows, width, classes, count, n, shares } = this;
    const slope = new Float64Array(this.length);
    const bias = count * width;
    let value = 0;
    for (let i = 0; i < bias; i++) {
      value += at[i] * at[i];
      slope[i] = at[i];
    }
    value /= 2;
    const score = new Float64Array(count);
    for (let i = 0; i < n; i++) {
      const row = i * width;
      let most = -Infinity;
      for (let k = 0; k < count; k++) {
        let sum = at[bias + k];
        for (let d = 0, w = k * width; d < width; d++, w++) sum += at[w] * rows[row + d];
        score[k] = sum;
        if (sum > most) most = sum;
      }
      let total = 0;
      for (let k = 0; k < count; k++) total += score[k] = Math.exp(score[k] - most);
      const own = classes[i];
      const share = shares[own];
      value -= share * Math.log(score[own] / total);
      for (let k = 0; k < count; k++) {
        const pull = share * (score[k] / total - (k === own ? 1 : 0));
        slope[bias + k] += pull;
        for (let d = 0, w = k * width; d < width; d++, w++) slope[w] += pull * rows[row + d];
      }
    }
    return [value, slope];
  }

  // The direction of L-BFGS (Nocedal and Wright, 2006, algorithm 7.4).
  direction() {
    const way = Float64Array.from(this.slope, (value) => -value);
    const shares = [];
    for (const { step, turn, rho } of [...this.steps].reverse()) {
      const share = rho * dot(step, way);
      shares.push(share);
      for (let i = 0; i < way.length; i++) way[i] -= share * turn[i];
    }
    const last = this.steps.at(-1);
    const scale = last ? 1 / (last.rho * dot(last.turn, last.turn)) : 1 / Math.max(1, Math.sqrt(dot(way, way)));
    for (let i = 0; i < way.length; i++) way[i] *= scale;
    for (const { step, turn, rho } of this.steps) {
      const share = shares.pop() - rho * dot(turn, way);
      for (let i = 0; i < way.length; i++) way[i] += share * step[i];
    }
    return way;
  }

  // One step; false once nothing is left to gain.
  advance() {
    const steepest = this.slope.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    if (steepest <= FIT_TOLERANCE * this.C * this.n) return false;
    const way = this.direction();
    const fall = dot(way, this.slope);
    if (!(fall < 0)) return false;
    for (let size = 1; size > 1e-12; size /= 2) {
      const next = this.at.map((value, i) => value + size * way[i]);
      const [value, slope] = this.evaluate(next);
      if (!(value <= this.value + 1e-4 * size * fall)) continue;
      const step = way.map((each) => each * size);
      const turn = slope.map((each, i) => each - this.slope[i]);
      const bent = dot(step, turn);
      if (bent > 1e-12 * dot(turn, turn)) {
        this.steps.push({ step, turn, rho: 1 / bent });
        if (this.steps.length > FIT_MEMORY) this.steps.shift();
      }
      const gained = this.value - value;
      [this.at, this.value, this.slope] = [next, value, slope];
      return gained > 1e-16 * Math.abs(value);
    }
    return false; // where float64 ends
  }

  // Goes on for so many milliseconds, at least one step; true once it is solved.
  run(milliseconds = Infinity, now = () => performance.now()) {
    const end = now() + milliseconds;
    do {
      if (this.done) return true;
      this.done = !this.advance();
    } while (now() < end);
    return this.done;
  }

  // Weights (K, width) and intercepts (K), which add up to 0 over the classes.
  get head() {
    const { count, width, at } = this;
    const weights = at.slice(0, count * width);
    const bias = at.slice(count * width);
    for (let d = 0; d < width; d++) {
      let mean = 0;
      for (let k = 0; k < count; k++) mean += weights[k * width + d] / count;
      for (let k = 0; k < count; k++) weights[k * width + d] -= mean;
    }
    const mean = bias.reduce((sum, value) => sum + value, 0) / count;
    return { weights, bias: bias.map((value) => value - mean), width };
  }
}

// The rows of reduced tokens that have a mark, as numbers. marks: [[patch, class], ...].
export function markedRows(similarity, scales, marks) {
  const { codes, dims } = similarity;
  const rows = new Float64Array(marks.length * dims);
  marks.forEach(([patch], i) => {
    for (let d = 0; d < dims; d++) rows[i * dims + d] = codes[patch * dims + d] * scales[d];
  });
  return rows;
}

// w_k . x + b_k of all patches from reduced tokens, (n, K), rounded as Python does.
export function decisionsOf({ weights, bias, width }, { codes, count }, scales) {
  const K = bias.length;
  const scaled = weights.map((value, i) => value * scales[i % width]);
  const out = new Float64Array(count * K);
  for (let i = 0; i < count; i++) {
    for (let k = 0; k < K; k++) {
      let sum = bias[k];
      for (let d = 0, c = i * width, w = k * width; d < width; d++, c++, w++) sum += scaled[w] * codes[c];
      out[i * K + k] = Math.round(sum / DECISION_GRID) * DECISION_GRID;
    }
  }
  return out;
}

// What decisions (n, K) say: score, 1 - p(background); the class of each patch; and how sure that is, p(class).
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

// A head of reduced tokens as one of full tokens, and back. axes: Int16Array (dims, full), in steps of 1 / 32767.
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

// The head's file, as prism/head_file.py lays it out; a head of full tokens with classes, C, patches and origin.
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
  if (!names || !finite || !(C > 0) || !Array.isArray(patches)) throw new Error("This head is damaged: its classes and weights do not fit.");
  return { weights: weights.values, bias: bias.values, width, classes, C, photos, patches, origin: origin ?? {} };
}
