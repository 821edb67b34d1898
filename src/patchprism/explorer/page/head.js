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
    this.curved = this.curvature();
    this.at = start?.length === this.length ? Float64Array.from(start) : new Float64Array(this.length);
    this.steps = [];
    this.done = false;
    [this.value, this.slope] = this.evaluate(this.at);
  }

  // One over the curvature along each weight where all classes are equally probable. Reduced tokens lie along their own
  // principal axes, so this is most of what there is to know of the curvature.
  curvature() {
    const { rows, width, classes, count, n, shares } = this;
    const sums = new Float64Array(width + 1);
    for (let i = 0; i < n; i++) {
      const share = shares[classes[i]] * (1 / count) * (1 - 1 / count);
      for (let d = 0, at = i * width; d < width; d++, at++) sums[d] += share * rows[at] * rows[at];
      sums[width] += share;
    }
    const inverse = new Float64Array(this.length);
    for (let k = 0; k < count; k++) for (let d = 0; d < width; d++) inverse[k * width + d] = 1 / (1 + sums[d]);
    return inverse.fill(1 / (sums[width] || 1), count * width);
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
    if (count === 2) return [value + this.twoClasses(at, slope), slope];
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

  // The same sum over the patches for two classes, whose scores differ by one product; adds to the derivatives.
  twoClasses(at, slope) {
    const { rows, width, classes, n, shares } = this;
    const between = new Float64Array(width);
    for (let d = 0; d < width; d++) between[d] = at[width + d] - at[d];
    const pulls = new Float64Array(width);
    let [value, total] = [0, 0];
    for (let i = 0; i < n; i++) {
      const row = i * width;
      let sum = at[2 * width + 1] - at[2 * width];
      for (let d = 0; d < width; d++) sum += between[d] * rows[row + d];
      const own = classes[i] ? sum : -sum;
      const share = shares[classes[i]];
      value += share * (own > 0 ? Math.log1p(Math.exp(-own)) : Math.log1p(Math.exp(own)) - own);
      const pull = (classes[i] ? -share : share) / (1 + Math.exp(own));
      total += pull;
      for (let d = 0; d < width; d++) pulls[d] += pull * rows[row + d];
    }
    for (let d = 0; d < width; d++) {
      slope[d] -= pulls[d];
      slope[width + d] += pulls[d];
    }
    slope[2 * width] -= total;
    slope[2 * width + 1] += total;
    return value;
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
    let scale = 1;
    if (last) {
      let bent = 0;
      for (let i = 0; i < way.length; i++) bent += last.turn[i] * last.turn[i] * this.curved[i];
      scale = 1 / (last.rho * bent);
    }
    for (let i = 0; i < way.length; i++) way[i] *= scale * this.curved[i];
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
  // Of two classes one is enough where the other has the same weights with the other sign, as a fit has.
  const opposite = K === 2 && bias[0] === -bias[1] && scaled.subarray(0, width).every((value, d) => value === -scaled[width + d]);
  for (let k = opposite ? 1 : 0; k < K; k++) {
    const own = scaled.subarray(k * width, (k + 1) * width);
    for (let i = 0, c = 0; i < count; i++) {
      // Four sums, none of which waits for the one before.
      let [e, f, g, h] = [bias[k], 0, 0, 0];
      let d = 0;
      for (; d + 3 < width; d += 4, c += 4) {
        e += own[d] * codes[c];
        f += own[d + 1] * codes[c + 1];
        g += own[d + 2] * codes[c + 2];
        h += own[d + 3] * codes[c + 3];
      }
      for (; d < width; d++, c++) e += own[d] * codes[c];
      out[i * K + k] = Math.round((e + f + g + h) / DECISION_GRID) * DECISION_GRID;
      if (opposite) out[i * K] = -out[i * K + 1];
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
