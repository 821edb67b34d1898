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
    for (let d = 0; d < dims; d++) {
      const base = d * n;
      const own = codes[base + query];
      if (own === 0) continue; // half of the components of little variance are
      for (let i = 0; i < n; i++) dots[i] += own * codes[base + i];
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
