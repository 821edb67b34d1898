// The guided filter, as pictures/upsample.py has it: edges of the photo say where colours change between patches.
// He, Sun and Tang, "Guided Image Filtering" (2013); fitted on patches and applied to pixels. No DOM.

const EPSILON = 1e-3;

// Mean over the 3 x 3 patches around each, cut off at the borders; values (h * w * n).
function boxMean(values, h, w, n) {
  const out = new Float64Array(values.length);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const [top, bottom] = [Math.max(y - 1, 0), Math.min(y + 1, h - 1)];
      const [left, right] = [Math.max(x - 1, 0), Math.min(x + 1, w - 1)];
      const count = (bottom - top + 1) * (right - left + 1);
      for (let k = 0; k < n; k++) {
        let sum = 0;
        for (let v = top; v <= bottom; v++) for (let u = left; u <= right; u++) sum += values[(v * w + u) * n + k];
        out[(y * w + x) * n + k] = sum / count;
      }
    }
  }
  return out;
}

// Solves the symmetric positive 3 x 3 system m x = b.
function solve3([a, b, c, d, e, f], x, y, z) {
  // m = [[a, b, c], [b, d, e], [c, e, f]]
  const [p, q, r] = [d * f - e * e, c * e - b * f, b * e - c * d];
  const determinant = a * p + b * q + c * r;
  const [s, t, u] = [a * f - c * c, b * c - a * e, a * d - b * b];
  return [(p * x + q * y + r * z) / determinant, (q * x + s * y + t * z) / determinant, (r * x + t * y + u * z) / determinant];
}

// Slopes and offsets of each patch's windows: (h * w * channels * 4), three slopes and an offset each.
function coefficientsOf(means, values, [h, w], channels) {
  const n = h * w;
  const centre = [0, 1, 2].map((g) => {
    let sum = 0;
    for (let i = 0; i < n; i++) sum += means[3 * i + g];
    return sum / n;
  });
  const guide = means.map((value, i) => value - centre[i % 3]);
  const products = new Float64Array(6 * n);
  const shared = new Float64Array(3 * channels * n);
  for (let i = 0; i < n; i++) {
    const [r, g, b] = [guide[3 * i], guide[3 * i + 1], guide[3 * i + 2]];
    products.set([r * r, r * g, r * b, g * g, g * b, b * b], 6 * i);
    for (let c = 0; c < channels; c++) {
      const value = values[channels * i + c];
      shared.set([r * value, g * value, b * value], 3 * (channels * i + c));
    }
  }
  const [meanGuide, meanValues] = [boxMean(guide, h, w, 3), boxMean(values, h, w, channels)];
  const [meanProducts, meanShared] = [boxMean(products, h, w, 6), boxMean(shared, h, w, 3 * channels)];
  const fitted = new Float64Array(4 * channels * n);
  for (let i = 0; i < n; i++) {
    const [r, g, b] = [meanGuide[3 * i], meanGuide[3 * i + 1], meanGuide[3 * i + 2]];
    const own = [r * r, r * g, r * b, g * g, g * b, b * b];
    const spread = own.map((value, k) => meanProducts[6 * i + k] - value + (k === 0 || k === 3 || k === 5 ? EPSILON : 0));
    for (let c = 0; c < channels; c++) {
      const mean = meanValues[channels * i + c];
      const at = 3 * (channels * i + c);
      const slopes = solve3(spread, meanShared[at] - r * mean, meanShared[at + 1] - g * mean, meanShared[at + 2] - b * mean);
      const offset = mean - slopes[0] * (r + centre[0]) - slopes[1] * (g + centre[1]) - slopes[2] * (b + centre[2]);
      fitted.set([...slopes, offset], 4 * (channels * i + c));
    }
  }
  return boxMean(fitted, h, w, 4 * channels);
}

// For each of n pixels along a side: the patch before its centre, and the weight of the one after.
function linearAlong(n, cells) {
  const before = new Int32Array(n);
  const share = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const place = Math.min(Math.max(((i + 0.5) * cells) / n - 0.5, 0), cells - 1);
    before[i] = Math.min(Math.floor(place), Math.max(cells - 2, 0));
    share[i] = place - before[i];
  }
  return { before, share };
}

// Mean colour of each patch, (h * w * 3) in [0, 1], of pixels RGBA (height * width).
export function patchMeans(pixels, [height, width], [h, w]) {
  const sums = new Float64Array(3 * h * w);
  const counts = new Float64Array(h * w);
  for (let y = 0; y < height; y++) {
    const row = Math.min(Math.floor(((y + 0.5) * h) / height), h - 1) * w;
    for (let x = 0; x < width; x++) {
      const patch = row + Math.min(Math.floor(((x + 0.5) * w) / width), w - 1);
      counts[patch]++;
      for (let c = 0; c < 3; c++) sums[3 * patch + c] += pixels[4 * (y * width + x) + c];
    }
  }
  return sums.map((sum, i) => sum / 255 / Math.max(counts[Math.floor(i / 3)], 1));
}

// values (h * w * channels) at the resolution of the photo's crop: pixels is that crop, RGBA of `size` (height,
// width). Clipped to the range of the values. Float32Array (height * width * channels).
export function guidedUp(values, grid, channels, pixels, size) {
  const [height, width] = size;
  const [h, w] = grid;
  const fitted = coefficientsOf(patchMeans(pixels, size, grid), values, grid, channels);
  const n = 4 * channels;
  const lows = new Float64Array(channels).fill(Infinity);
  const highs = new Float64Array(channels).fill(-Infinity);
  values.forEach((value, i) => {
    lows[i % channels] = Math.min(lows[i % channels], value);
    highs[i % channels] = Math.max(highs[i % channels], value);
  });
  const [rows, columns] = [linearAlong(height, h), linearAlong(width, w)];
  const line = new Float64Array(w * n);
  const out = new Float32Array(height * width * channels);
  for (let y = 0, to = 0, from = 0; y < height; y++) {
    const above = rows.before[y] * w * n;
    const below = Math.min(rows.before[y] + 1, h - 1) * w * n;
    for (let i = 0; i < line.length; i++) line[i] = fitted[above + i] + rows.share[y] * (fitted[below + i] - fitted[above + i]);
    for (let x = 0; x < width; x++, from += 4) {
      const left = columns.before[x] * n;
      const right = Math.min(columns.before[x] + 1, w - 1) * n;
      const share = columns.share[x];
      const [r, g, b] = [pixels[from] / 255, pixels[from + 1] / 255, pixels[from + 2] / 255];
      for (let c = 0; c < channels; c++, to++) {
        const [i, j] = [left + 4 * c, right + 4 * c];
        const value =
          (line[i] + share * (line[j] - line[i])) * r +
          (line[i + 1] + share * (line[j + 1] - line[i + 1])) * g +
          (line[i + 2] + share * (line[j + 2] - line[i + 2])) * b +
          line[i + 3] + share * (line[j + 3] - line[i + 3]);
        out[to] = Math.min(Math.max(value, lows[c]), highs[c]);
      }
    }
  }
  return out;
}
