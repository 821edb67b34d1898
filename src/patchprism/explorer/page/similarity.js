// Cosine similarity of one patch to all others, from the reduced tokens of explorer/tokens.py.

export class Similarity {
  constructor(codes, scales, photos) {
    this.codes = codes; // (n, dims) int8
    this.squares = Float64Array.from(scales, (scale) => scale * scale);
    this.photos = photos;
    this.dims = scales.length;
    this.count = codes.length / scales.length;
    this.result = new Float32Array(this.count);
    this.back = new Float32Array(this.count);
    this.query = -1; // the patch whose similarities are in `result`
  }

  // Similarities of patch `query` to all patches, as a Float32Array that the next call for another patch overwrites.
  of(query) {
    if (query === this.query) return this.result;
    this.query = query;
    return this.fill(this.result, query, 0, this.count);
  }

  // Similarities to the patches of one photo, in their part of an array that the next call overwrites.
  within(photo, query) {
    const { start, grid } = this.photos[photo];
    return this.fill(this.back, query, start, start + grid[0] * grid[1]);
  }

  // Similarity of two patches.
  between(a, b) {
    if (a === b) return 1;
    const { codes, squares, dims } = this;
    let sum = 0;
    for (let d = 0, i = a * dims, j = b * dims; d < dims; d++, i++, j++) sum += squares[d] * codes[i] * codes[j];
    return sum;
  }

  fill(result, query, start, end) {
    const { codes, squares, dims } = this;
    const exact = squares.map((square, d) => square * codes[query * dims + d]);
    // Integers are four times as fast. They are scaled so that no sum of a quarter of the products exceeds 32 bits.
    const most = exact.reduce((largest, value) => Math.max(largest, Math.abs(value)), 1e-30);
    const scale = Math.floor((2 ** 31 - 1) / (127 * (Math.ceil(dims / 4) + 3))) / most;
    const weights = Int32Array.from(exact, (value) => Math.round(value * scale));
    for (let i = start, at = start * dims; i < end; i++) {
      // Four independent sums, which the processor computes in parallel.
      let [a, b, c, d] = [0, 0, 0, 0];
      let k = 0;
      for (; k + 3 < dims; k += 4, at += 4) {
        a = (a + Math.imul(weights[k], codes[at])) | 0;
        b = (b + Math.imul(weights[k + 1], codes[at + 1])) | 0;
        c = (c + Math.imul(weights[k + 2], codes[at + 2])) | 0;
        d = (d + Math.imul(weights[k + 3], codes[at + 3])) | 0;
      }
      for (; k < dims; k++, at++) a = (a + Math.imul(weights[k], codes[at])) | 0;
      result[i] = (a + b + c + d) / scale;
    }
    if (query >= start && query < end) result[query] = 1;
    return result;
  }
}

// The most similar patch of a photo among those of the mask `among` (null: all); -1 if there is none.
function bestIn(similarities, { start, grid }, among, also = -1) {
  let best = -1;
  for (let i = start; i < start + grid[0] * grid[1]; i++) {
    if (among && !among[i] && i !== also) continue;
    if (best < 0 || similarities[i] > similarities[best]) best = i;
  }
  return best;
}

// The best match of a pin in every other photo, best first: [{ photo, patch, value, mutual }]. A match is mutual if the pin is
// also the best match of the other patch in the pin's photo. among: a mask of the patches that may match, or null for all.
export function pinMatches(similarity, photos, own, patch, among = null) {
  const similarities = similarity.of(patch);
  const matches = photos.flatMap((photo, index) => {
    if (index === own) return [];
    const match = bestIn(similarities, photo, among);
    if (match < 0) return [];
    const mutual = bestIn(similarity.within(own, match), photos[own], among, patch) === patch;
    return [{ photo: index, patch: match, value: similarities[match], mutual }];
  });
  return matches.sort((a, b) => b.value - a.value);
}
