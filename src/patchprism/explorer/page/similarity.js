// Cosine similarity of one patch to all, from tokens reduced to a few small whole numbers.

export class Similarity {
  constructor(codes, offsets, info) {
    this.n = offsets.length;
    this.dims = info.dims;
    this.codes = codes;
    this.offsets = offsets;
    this.square = info.step * info.step;
    this.offsetStep = info.offset_step;
    this.dots = new Int32Array(this.n);
    this.result = new Float32Array(this.n);
  }

  // Similarities of patch `query` to all, Float32Array; overwritten by the next call.
  of(query) {
    const { n, dims, codes, dots, offsets, result } = this;
    dots.fill(0);
    const used = [];
    // Many components of little variance are 0 here.
    for (let d = 0; d < dims; d++) if (codes[d * n + query] !== 0) used.push(d);
    // Four at a time: the sums are then read and written a quarter as often.
    for (let at = 0; at < used.length; at += 4) {
      const [p, q, r, s] = [0, 1, 2, 3].map((k) => codes.subarray(n * (used[at + k] ?? 0), n * ((used[at + k] ?? 0) + 1)));
      const [a, b, c, d] = [0, 1, 2, 3].map((k) => (at + k < used.length ? codes[used[at + k] * n + query] : 0));
      for (let i = 0; i < n; i++) dots[i] += a * p[i] + b * q[i] + c * r[i] + d * s[i];
    }
    const mine = offsets[query];
    for (let i = 0; i < n; i++) result[i] = dots[i] * this.square + (mine + offsets[i]) * this.offsetStep;
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
