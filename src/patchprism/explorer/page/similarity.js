// Cosine similarity of one patch to all, from tokens whose spectra came as a few small whole numbers.
//
// A cosine is a sum over dimensions, and a transform of a sum is the sum of transforms: so the spectra are summed as
// they came, most of their numbers 0 and left out, and each photo is transformed once. Tokens are never restored.

import { Decoder } from "./coding.js";

// The orthonormal discrete cosine transform of n numbers, a row a place, a column a frequency.
function cosines(n) {
  const matrix = new Float64Array(n * n);
  for (let x = 0; x < n; x++) {
    for (let k = 0; k < n; k++) matrix[x * n + k] = Math.cos((Math.PI * (2 * x + 1) * k) / (2 * n)) * Math.sqrt((k ? 2 : 1) / n);
  }
  return matrix;
}

// spectrum.bands_of: the band of every frequency of a photo's transform.
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

// One photo's spectra: of each frequency the numbers that are not 0, and which dimensions they are of. So a sum over
// dimensions stays in a register, which takes half the time of adding dimension after dimension to a picture.
class Spectrum {
  constructor({ start, grid: [h, w] }, down, across) {
    Object.assign(this, { start, h, w, down, across });
    this.ends = new Uint32Array(h * w); // of each frequency's numbers
    this.sums = new Float64Array(h * w);
    this.lines = new Float64Array(h * w);
  }

  // What was read dimension by dimension: numbers, their frequencies, and where each dimension's end.
  fill(numbers, places, ends) {
    const used = ends[ends.length - 1];
    const at = new Uint32Array(this.h * this.w + 1);
    for (let j = 0; j < used; j++) at[places[j] + 1]++;
    for (let i = 1; i < at.length; i++) at[i] += at[i - 1];
    this.numbers = new Float32Array(used);
    this.dims = new Uint16Array(used);
    for (let d = 0, j = 0; d < ends.length; d++) {
      for (; j < ends[d]; j++) {
        const to = at[places[j]]++;
        this.numbers[to] = numbers[j];
        this.dims[to] = d;
      }
    }
    this.ends.set(at.subarray(0, -1));
  }

  // A patch's token: how much of each dimension is in it.
  token(index, weights) {
    const { h, w, down, across, ends, numbers, dims } = this;
    const [y, x] = [Math.floor(index / w), index % w];
    weights.fill(0);
    for (let v = 0, i = 0, j = 0; v < h; v++) {
      for (let u = 0; u < w; u++, i++) {
        const wave = down[y * h + v] * across[x * w + u];
        for (const end = ends[i]; j < end; j++) weights[dims[j]] += wave * numbers[j];
      }
    }
  }

  // Adds the products of a token with the photo's to the photo's part of `result`.
  addTo(result, weights) {
    const { h, w, start, down, across, ends, numbers, dims, sums, lines } = this;
    for (let i = 0, j = 0; i < ends.length; i++) {
      // Four sums, none of which waits for the one before.
      let a = 0;
      let b = 0;
      let c = 0;
      let d = 0;
      const end = ends[i];
      for (; j + 3 < end; j += 4) {
        a += weights[dims[j]] * numbers[j];
        b += weights[dims[j + 1]] * numbers[j + 1];
        c += weights[dims[j + 2]] * numbers[j + 2];
        d += weights[dims[j + 3]] * numbers[j + 3];
      }
      for (; j < end; j++) a += weights[dims[j]] * numbers[j];
      sums[i] = a + b + c + d;
    }
    for (let x = 0; x < w; x++) {
      for (let v = 0; v < h; v++) {
        let sum = 0;
        for (let u = 0; u < w; u++) sum += sums[v * w + u] * across[x * w + u];
        lines[x * h + v] = sum;
      }
    }
    for (let y = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        let sum = 0;
        for (let v = 0; v < h; v++) sum += lines[x * h + v] * down[y * h + v];
        result[start + y * w + x] += sum;
      }
    }
  }
}

// All photos' spectra; yields now and then, to let the page breathe.
function* readSpectra(buffers, info, spectra) {
  const { dims, bands: edges, shrink } = info;
  const steps = buffers["token-steps"];
  const classes = buffers["token-classes"];
  const nBands = edges.length + 1;
  const decoder = new Decoder(buffers.tokens);
  const less = new Float32Array(4 * shrink.length);
  shrink.forEach((row, kind) => less.set(row, 4 * kind + 1));
  const most = Math.max(0, ...spectra.map(({ h, w }) => h * w));
  const [numbers, places, ends] = [new Float32Array(dims * most), new Uint32Array(dims * most), new Uint32Array(dims)];
  for (const spectrum of spectra) {
    const bands = bandsOf([spectrum.h, spectrum.w], edges);
    let used = 0;
    for (let d = 0; d < dims; d++) {
      const step = steps[d];
      for (let i = 0; i < bands.length; i++) {
        const kind = classes[d * nBands + bands[i]];
        const code = kind ? decoder.next(kind) : 0;
        if (!code) continue;
        const size = code < 0 ? -code : code;
        places[used] = i;
        numbers[used++] = (size <= 3 ? size - less[4 * kind + size] : size) * (code < 0 ? -step : step);
      }
      ends[d] = used;
      if (d % 16 === 15) yield;
    }
    spectrum.fill(numbers, places, ends);
    yield;
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

// Pairs of patches whose cosine the rest gets wrong by more than the tolerance, from both sides: of patch i, the entries
// from ends[i - 1] to ends[i] of `others` and `values`.
function readCorrections(bytes, n, tolerance) {
  const decoder = new Decoder(bytes);
  const count = decoder.count / 2;
  const pairs = new Float64Array(count); // up to n * n, which may be beyond 32 bits
  for (let k = 0, pair = 0; k < count; k++) pairs[k] = pair += decoder.next(0);
  const ends = new Uint32Array(n + 1);
  const patches = (pair) => [Math.floor(pair / n), pair % n];
  for (const pair of pairs) for (const patch of patches(pair)) ends[patch + 1]++;
  for (let i = 1; i <= n; i++) ends[i] += ends[i - 1];
  const others = new Uint32Array(2 * count);
  const values = new Float32Array(2 * count);
  for (const pair of pairs) {
    const [a, b] = patches(pair);
    const value = decoder.next(1) * tolerance;
    for (const [own, other] of [[a, b], [b, a]]) {
      others[ends[own]] = other;
      values[ends[own]++] = value;
    }
  }
  return { ends: ends.subarray(0, n), others, values };
}

export class Similarity {
  constructor(buffers, info, photos, known) {
    this.offsets = Float64Array.from(buffers.offsets, (offset) => offset * info.offset_step);
    this.known = known;
    const waves = new Map();
    const wavesOf = (n) => waves.get(n) ?? waves.set(n, cosines(n)).get(n);
    this.spectra = photos.map((photo) => new Spectrum(photo, wavesOf(photo.grid[0]), wavesOf(photo.grid[1])));
    this.weights = new Float64Array(info.dims);
    this.result = new Float32Array(this.offsets.length);
    this.back = new Float32Array(this.offsets.length);
    this.corrections = readCorrections(buffers.corrections, this.offsets.length, info.tolerance);
    this.work = readSpectra(buffers, info, this.spectra);
    this.ready = false;
    this.query = -1; // whose similarities `result` holds
  }

  // Reads spectra for about so many milliseconds; true once all are there.
  prepare(milliseconds = Infinity) {
    const end = performance.now() + milliseconds;
    while (!this.ready && performance.now() < end) this.ready = this.work.next().done;
    return this.ready;
  }

  // Similarities of patch `query` to all, Float32Array; overwritten by the next call for another patch.
  of(query) {
    if (query === this.query) return this.result;
    this.prepare();
    this.query = query;
    return this.fill(this.result, query, this.spectra);
  }

  // The same to the patches of one photo, in their part of an array that the next call overwrites.
  within(photo, query) {
    this.prepare();
    return this.fill(this.back, query, [this.spectra[photo]]);
  }

  fill(result, query, spectra) {
    const { offsets, known, weights } = this;
    const own = this.spectra.findLast(({ start }) => start <= query);
    own.token(query - own.start, weights);
    for (const spectrum of spectra) {
      const end = spectrum.start + spectrum.h * spectrum.w;
      for (let i = spectrum.start; i < end; i++) result[i] = offsets[query] + offsets[i];
      for (const values of known) {
        const weight = values[query];
        for (let i = spectrum.start; i < end; i++) result[i] += weight * values[i];
      }
      spectrum.addTo(result, weights);
    }
    // Where only one photo was asked for, what others get is overwritten or never read.
    const { ends, others, values } = this.corrections;
    for (let j = query ? ends[query - 1] : 0; j < ends[query]; j++) result[others[j]] += values[j];
    result[query] = 1;
    return result;
  }
}

// The patch of a photo that is most similar.
function bestIn(similarities, { start, grid }) {
  let best = start;
  for (let i = start + 1; i < start + grid[0] * grid[1]; i++) if (similarities[i] > similarities[best]) best = i;
  return best;
}

// A pin's best match in every other photo, each told mutual if the pin is also its best in the pin's photo:
// [{ photo, patch, value, mutual }].
export function pinMatches(similarity, photos, own, patch) {
  const similarities = similarity.of(patch);
  return photos.flatMap((photo, index) => {
    if (index === own) return [];
    const match = bestIn(similarities, photo);
    const mutual = bestIn(similarity.within(own, match), photos[own]) === patch;
    return [{ photo: index, patch: match, value: similarities[match], mutual }];
  });
}
