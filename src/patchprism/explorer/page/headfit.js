// Fits a linear head: logistic regression on unit tokens, solved in steps of a few milliseconds. No DOM.
//
// Python minimises the same function of the same tokens; tests/explorer/test_head_page.py compares the weights.
//
// Three measures make many marks fast: the first steps use only a part of the marks; near the solution, the curvature of a
// sample of the marks is factorised once, and L-BFGS starts from it; and four rows are multiplied at a time.

import { cholesky, gram, rowDots, rowSums, solveCholesky } from "./linear.js";

const FIT_MEMORY = 12; // number of steps that L-BFGS remembers
const FIT_SLOPE = 1e-9; // stops at this largest partial derivative, divided by C and the number of patches
const FIT_STEP = 1e-6; // stops at this size of the next step, relative to the largest weight
const FIT_ROUGH = 1e-2; // the same for a first approximation
const FIT_PARTS = [1024, 4096]; // number of marks in the first rounds
const FIT_LEAST = 64; // marks of each class in these rounds, if it has so many
const FIT_SAMPLED = 4; // size of the sample for the curvature, in multiples of the width
const FIT_PAYS = 20; // the curvature is computed if that costs no more than this many steps
const FIT_REFRESHED = 30; // number of steps after which the curvature is computed again

const dot = (a, b) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};
const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

export class HeadFit {
  // rows: (n, width) numbers; scales: one step of each dimension (1 by default); classes: n numbers below `count`; start:
  // `at` of a fit with the same width and count to start from, or null; like: a fit to start from, whose curvature is used
  // as well.
  constructor({ rows, scales = null, width, classes, count, C = 10, like = null, start = like?.at }) {
    Object.assign(this, { rows, scales, width, classes, count, C });
    this.n = classes.length;
    this.sizes = new Array(count).fill(0);
    for (const k of classes) this.sizes[k]++;
    // All classes have the same total weight.
    this.shares = this.sizes.map((size) => (size ? (C * this.n) / (count * size) : 0));
    // Two classes get opposite weights, so only their difference is fitted.
    this.vectors = count === 2 ? 1 : count;
    this.penalty = count === 2 ? 0.5 : 1;
    this.length = this.vectors * (width + 1);
    const given = start?.length === this.length;
    this.at = given ? Float64Array.from(start) : new Float64Array(this.length);
    this.chances = new Float64Array(this.n * this.vectors); // probabilities of the marks in the last evaluation
    this.sampled = Math.min(this.n, FIT_SAMPLED * (width + 1));
    this.many = this.sampled * (width + 1) < FIT_PAYS * 4 * this.n;
    this.near = given && this.many;
    this.factors = (given && like?.factors) || null;
    this.share = this.factors ? (like.share * like.n) / this.n : 1; // the curvature of this fit relative to that of the factors
    this.rough = false; // whether this is a first approximation on a part of the marks
    this.parts = given ? [] : FIT_PARTS.filter((part) => this.n > 1.5 * part);
    this.part = null;
    this.done = false;
  }

  // A fit on a part of the marks of each class.
  partOf(size, start) {
    const { rows, width, classes, count, C, n, scales } = this;
    const wanted = this.sizes.map((own) => Math.min(own, Math.max(FIT_LEAST, Math.round((own * size) / n))));
    const seen = new Array(count).fill(0);
    const chosen = [];
    classes.forEach((k, i) => {
      // Evenly spaced among the marks of the class.
      if (Math.floor(((seen[k] + 1) * wanted[k]) / this.sizes[k]) > Math.floor((seen[k] * wanted[k]) / this.sizes[k])) chosen.push(i);
      seen[k]++;
    });
    const some = new rows.constructor(chosen.length * width);
    chosen.forEach((i, j) => some.set(rows.subarray(i * width, (i + 1) * width), j * width));
    const part = new HeadFit({ rows: some, scales, width, classes: chosen.map((i) => classes[i]), count, C: (C * n) / chosen.length, start });
    Object.assign(part, { parts: [], rough: true, near: false });
    return part;
  }

  // The objective and its derivatives at some weights (vectors, width) and intercepts (vectors).
  evaluate(at) {
    const { rows, scales, width, classes, n, vectors, shares, penalty, chances } = this;
    const bias = vectors * width;
    const scaled = at.slice(0, bias);
    if (scales) for (let i = 0; i < bias; i++) scaled[i] *= scales[i % width];
    const sums = new Float64Array(this.length);
    const [scores, pulls] = [new Float64Array(4 * vectors), new Float64Array(4 * vectors)];
    let value = 0;
    for (let i = 0; i < bias; i++) value += at[i] * at[i];
    value *= penalty / 2;
    for (let i = 0; i < n; i += 4) {
      const many = Math.min(4, n - i);
      for (let k = 0; k < vectors; k++) rowDots(rows, i * width, many, width, scaled, k * width, at[bias + k], scores, 4 * k);
      for (let j = 0; j < many; j++) {
        const own = classes[i + j];
        const share = shares[own];
        if (vectors === 1) {
          const margin = own ? scores[j] : -scores[j];
          value += share * (margin > 0 ? Math.log1p(Math.exp(-margin)) : Math.log1p(Math.exp(margin)) - margin);
          const miss = (chances[i + j] = 1 / (1 + Math.exp(margin)));
          pulls[j] = own ? -share * miss : share * miss;
          continue;
        }
        let most = -Infinity;
        for (let k = 0; k < vectors; k++) most = Math.max(most, scores[4 * k + j]);
        let total = 0;
        for (let k = 0; k < vectors; k++) total += pulls[4 * k + j] = Math.exp(scores[4 * k + j] - most);
        value -= share * (scores[4 * own + j] - most - Math.log(total));
        for (let k = 0; k < vectors; k++) {
          const chance = (chances[(i + j) * vectors + k] = pulls[4 * k + j] / total);
          pulls[4 * k + j] = share * (chance - (k === own ? 1 : 0));
        }
      }
      for (let k = 0; k < vectors; k++) {
        rowSums(rows, i * width, many, width, pulls, 4 * k, sums, k * width);
        for (let j = 0; j < many; j++) sums[bias + k] += pulls[4 * k + j];
      }
    }
    for (let i = 0; i < bias; i++) sums[i] = penalty * at[i] + (scales ? sums[i] * scales[i % width] : sums[i]);
    return [value, sums];
  }

  // The first scaling of steps: one over the curvature along each weight, if all classes were equally probable.
  lookAround() {
    const { rows, scales, width, classes, count, n, shares, vectors } = this;
    const sums = new Float64Array(width + 1);
    for (let i = 0; i < n; i++) {
      const share = shares[classes[i]] * (1 / count) * (1 - 1 / count);
      for (let d = 0, at = i * width; d < width; d++, at++) sums[d] += share * rows[at] * rows[at];
      sums[width] += share;
    }
    const inverse = new Float64Array(this.length);
    for (let i = 0; i < vectors * width; i++) inverse[i] = 1 / (this.penalty + sums[i % width] * (scales ? scales[i % width] ** 2 : 1));
    this.diagonal = inverse.fill(1 / (sums[width] || 1), vectors * width);
    this.begin();
  }

  // Factorises the curvature of each vector at the present weights, from all marks or from a sample of them, which is drawn in
  // proportion to their curvature.
  lookCloser() {
    const { rows, scales, width, classes, n, shares, vectors, chances } = this;
    const size = width + 1;
    const m = this.sampled;
    this.share = 1;
    this.factors = Array.from({ length: vectors }, (_, k) => {
      const bent = Float64Array.from({ length: n }, (__, i) => shares[classes[i]] * chances[i * vectors + k] * (1 - chances[i * vectors + k]));
      const total = bent.reduce((sum, value) => sum + value, 0);
      const sample = new Float64Array(size * m);
      let [sum, taken] = [0, 0];
      for (let i = 0; i < n && taken < m; i++) {
        sum += bent[i];
        const times = n === m ? 1 : Math.floor((sum / total) * m + 0.5) - Math.floor(((sum - bent[i]) / total) * m + 0.5);
        if (!(times > 0)) continue;
        const root = Math.sqrt(n === m ? bent[i] : (times * total) / m);
        for (let d = 0, at = i * width; d < width; d++, at++) sample[d * m + taken] = root * rows[at] * (scales ? scales[d] : 1);
        sample[width * m + taken] = root;
        taken++;
      }
      const curved = gram(sample, size, m);
      for (let d = 0; d < width; d++) curved[d * size + d] += this.penalty;
      curved[width * size + width] += 1e-6 * (1 + total);
      return cholesky(curved, size);
    });
    this.begin();
  }

  begin() {
    this.steps = [];
    this.since = 0;
  }

  // Multiplies a vector by the approximate inverse of the curvature, in place.
  bend(way) {
    const { width, vectors, factors, diagonal, steps } = this;
    if (factors) {
      const own = new Float64Array(width + 1);
      for (let k = 0; k < vectors; k++) {
        own.set(way.subarray(k * width, (k + 1) * width));
        own[width] = way[vectors * width + k];
        solveCholesky(factors[k], own, width + 1);
        for (let d = 0; d <= width; d++) own[d] *= this.share;
        way.set(own.subarray(0, width), k * width);
        way[vectors * width + k] = own[width];
      }
      return;
    }
    let scale = 1;
    const last = steps.at(-1);
    if (last) {
      let bent = 0;
      for (let i = 0; i < way.length; i++) bent += last.turn[i] * last.turn[i] * diagonal[i];
      scale = 1 / (last.rho * bent);
    }
    for (let i = 0; i < way.length; i++) way[i] *= scale * diagonal[i];
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
    this.bend(way);
    for (const { step, turn, rho } of this.steps) {
      const share = shares.pop() - rho * dot(turn, way);
      for (let i = 0; i < way.length; i++) way[i] += share * step[i];
    }
    return way;
  }

  // Advances the fit on a part of the marks; when it is done, its weights are the start of the next.
  advancePart() {
    this.part ??= this.partOf(this.parts[0], this.at);
    if (this.part.advance()) return;
    Object.assign(this, { at: this.part.at, near: this.many, part: null, parts: this.parts.slice(1) });
  }

  // Makes one step; returns false at the minimum.
  advance() {
    if (this.parts.length) {
      this.advancePart();
      return true;
    }
    if (!this.slope) {
      [this.value, this.slope] = this.evaluate(this.at);
      if (this.factors) this.begin();
      else if (this.near) this.lookCloser();
      else this.lookAround();
    } else if (this.factors && this.since >= FIT_REFRESHED) this.lookCloser();
    if (!this.factors && largest(this.slope) <= FIT_SLOPE * this.C * this.n) return false;
    const way = this.direction();
    const fall = dot(way, this.slope);
    if (!(fall < 0)) return false;
    const [far, reach] = [largest(way), largest(this.at) || 1e-12];
    if (this.factors && far <= FIT_STEP * reach) return false;
    if (!this.factors && (this.many || this.rough) && this.steps.length && far <= FIT_ROUGH * reach) {
      if (this.rough) return false;
      this.lookCloser();
      return true;
    }
    this.since++;
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
    return false; // the precision of float64 is reached
  }

  // Advances for so many milliseconds, at least one step; returns true when the fit is done.
  run(milliseconds = Infinity, now = () => performance.now()) {
    const end = now() + milliseconds;
    do {
      if (this.done) return true;
      this.done = !this.advance();
    } while (now() < end);
    return this.done;
  }

  // Weights (K, width) and intercepts (K); both add up to 0 over the classes.
  get head() {
    const { count, width } = this;
    const at = this.part?.at ?? this.at;
    if (this.vectors === 1) {
      const half = at.map((value) => value / 2);
      const weights = new Float64Array(2 * width);
      weights.set(half.subarray(0, width).map((value) => -value));
      weights.set(half.subarray(0, width), width);
      return { weights, bias: Float64Array.of(-half[width], half[width]), width };
    }
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
