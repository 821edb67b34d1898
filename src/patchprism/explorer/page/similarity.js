// Cosine similarity of one patch to all, from tokens whose spectra came as a few small whole numbers.

import { Decoder } from "./coding.js";

// The orthonormal discrete cosine transform of n numbers, a row a frequency.
function cosines(n) {
  const matrix = new Float32Array(n * n);
  for (let k = 0; k < n; k++) {
    for (let x = 0; x < n; x++) matrix[k * n + x] = Math.cos((Math.PI * (2 * x + 1) * k) / (2 * n)) * Math.sqrt((k ? 2 : 1) / n);
  }
  return matrix;
}

// tokens.bands_of: the band of every frequency of a photo's transform.
function bandsOf([h, w], edges) {
  const bands = new Uint8Array(h * w);
  for (let v = 0, i = 0; v < h; v++) {
    for (let u = 0; u < w; u++, i++) {
      const square = (v / h) * (v / h) + (u / w) * (u / w);
      let band = 0;
      while (band < edges.length && square >= edges[band]) band++;
      bands[i] = band;
    }
  }
  return bands;
}

// One dimension of one photo: codes read, made waves along the photo's rows, then summed down its columns.
function restoreOne(decoder, kinds, less, step, [h, w], down, across, lines, out) {
  let used = 0;
  const rows = restoreOne.rows;
  for (let v = 0, i = 0; v < h; v++) {
    const at = used * w;
    let some = false;
    for (let u = 0; u < w; u++, i++) {
      const kind = kinds[i];
      if (!kind) continue;
      const code = decoder.next(kind);
      if (!code) continue;
      const size = code < 0 ? -code : code;
      const value = (size <= 3 ? size - less[4 * kind + size] : size) * (code < 0 ? -step : step);
      if (!some) lines.fill(0, at, at + w);
      some = true;
      for (let x = 0; x < w; x++) lines[at + x] += value * across[u * w + x];
    }
    if (some) rows[used++] = v;
  }
  for (let y = 0; y < h; y++) {
    const to = y * w;
    for (let r = 0; r < used; r++) {
      const weight = down[rows[r] * h + y];
      const from = r * w;
      for (let x = 0; x < w; x++) out[to + x] += weight * lines[from + x];
    }
  }
}
restoreOne.rows = new Uint16Array(65536);

// tokens.restore, photo by photo and dimension by dimension; yields now and then, to let the page breathe.
function* restore(buffers, info, photos, values, n) {
  const { dims, bands: edges, shrink } = info;
  const steps = buffers["token-steps"];
  const classes = buffers["token-classes"];
  const nBands = edges.length + 1;
  const decoder = new Decoder(buffers.tokens);
  const less = new Float32Array(4 * shrink.length);
  shrink.forEach((row, kind) => less.set(row, 4 * kind + 1));
  const tables = new Map();
  for (const { start, grid } of photos) {
    const [h, w] = grid;
    const key = grid.join();
    if (!tables.has(key)) tables.set(key, [bandsOf(grid, edges), cosines(h), cosines(w)]);
    const [bands, down, across] = tables.get(key);
    const lines = new Float32Array(h * w);
    const kinds = new Uint8Array(h * w);
    for (let d = 0; d < dims; d++) {
      for (let i = 0; i < h * w; i++) kinds[i] = classes[d * nBands + bands[i]];
      restoreOne(decoder, kinds, less, steps[d], grid, down, across, lines, values.subarray(d * n + start, d * n + start + h * w));
      if (d % 16 === 15) yield;
    }
  }
}

// tokens.known_values: coordinates of the unit tokens that components and norms tell, arrays of n.
export function knownOf(components, norms, table, normStep) {
  const k = components.length;
  const n = norms.length;
  const scale = Float64Array.from(norms, (norm) => Math.exp(-norm * normStep));
  return Array.from({ length: table.length / k - 1 }, (_, r) => {
    const values = new Float64Array(n);
    for (let j = 0; j < k; j++) {
      const weight = table[(r + 1) * k + j];
      for (let i = 0; i < n; i++) values[i] += weight * (components[j][i] + table[j]);
    }
    for (let i = 0; i < n; i++) values[i] *= scale[i];
    return values;
  });
}

export class Similarity {
  constructor(buffers, info, photos, known) {
    this.offsets = buffers.offsets;
    this.n = this.offsets.length;
    this.dims = known.length + info.dims;
    this.offsetStep = info.offset_step;
    this.values = new Float32Array(this.dims * this.n);
    known.forEach((values, d) => this.values.set(values, d * this.n));
    this.result = new Float32Array(this.n);
    this.work = restore(buffers, info, photos, this.values.subarray(known.length * this.n), this.n);
    this.ready = false;
    this.query = -1; // whose similarities `result` holds
  }

  // Restores tokens for about so many milliseconds; true once all are there.
  prepare(milliseconds = Infinity) {
    const end = performance.now() + milliseconds;
    while (!this.ready && performance.now() < end) this.ready = this.work.next().done;
    return this.ready;
  }

  // Similarities of patch `query` to all, Float32Array; overwritten by the next call for another patch.
  of(query) {
    const { n, dims, values, offsets, result } = this;
    if (query === this.query) return result;
    this.prepare();
    this.query = query;
    const mine = offsets[query];
    for (let i = 0; i < n; i++) result[i] = (mine + offsets[i]) * this.offsetStep;
    const row = (d) => (d < dims ? values.subarray(n * d, n * (d + 1)) : values.subarray(0, n));
    const weight = (d) => (d < dims ? values[n * d + query] : 0);
    // Eight at a time: the sums are then read and written an eighth as often.
    for (let d = 0; d < dims; d += 8) {
      const [p0, p1, p2, p3, p4, p5, p6, p7] = [0, 1, 2, 3, 4, 5, 6, 7].map((k) => row(d + k));
      const [a0, a1, a2, a3, a4, a5, a6, a7] = [0, 1, 2, 3, 4, 5, 6, 7].map((k) => weight(d + k));
      for (let i = 0; i < n; i++) {
        result[i] += a0 * p0[i] + a1 * p1[i] + a2 * p2[i] + a3 * p3[i] + (a4 * p4[i] + a5 * p5[i] + a6 * p6[i] + a7 * p7[i]);
      }
    }
    result[query] = 1;
    return result;
  }
}

// The most similar patch in each photo but `own`: [{ photo, patch, value }].
export function bestMatches(similarities, photos, own) {
  const best = [];
  photos.forEach(({ start, grid }, photo) => {
    if (photo === own) return;
    const end = start + grid[0] * grid[1];
    let patch = start;
    for (let i = start + 1; i < end; i++) if (similarities[i] > similarities[patch]) patch = i;
    best.push({ photo, patch, value: similarities[patch] });
  });
  return best;
}

// A pin's best match in every other photo, each told mutual if the pin is also its best in the pin's photo.
export function pinMatches(similarity, photos, own, patch) {
  const matches = bestMatches(similarity.of(patch), photos, own);
  const { start, grid } = photos[own];
  for (const match of matches) {
    const back = similarity.of(match.patch);
    let best = start;
    for (let i = start + 1; i < start + grid[0] * grid[1]; i++) if (back[i] > back[best]) best = i;
    match.mutual = best === patch;
  }
  return matches;
}
