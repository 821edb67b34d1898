// Upsamples values per patch to a finer grid, as features/finer.py does: joint bilateral upsampling, guided by the photo
// (Kopf, Cohen, Lischinski and Uyttendaele, 2007). No DOM.

const DISTANCE = 0.7; // standard deviation of the distance, in cells of the coarser grid
const COLOR = 0.05; // standard deviation of the colour difference; colours are in [0, 1]
const MOST_DOUBLINGS = 3;

// How often a grid can be doubled before its cells are smaller than the pixels of the photo's crop.
export function doublingsFor([height, width], [h, w]) {
  const pixels = Math.min(height / h, width / w);
  return Math.min(Math.max(Math.floor(Math.log2(Math.max(pixels, 1))), 0), MOST_DOUBLINGS);
}

// Mean colour of each cell of a grid, (h * w * 3) in [0, 1], of pixels RGBA (height * width).
export function meanColors(pixels, [height, width], [h, w]) {
  const sums = new Float64Array(3 * h * w);
  const counts = new Float64Array(h * w);
  for (let y = 0; y < height; y++) {
    const row = Math.min(Math.floor(((y + 0.5) * h) / height), h - 1) * w;
    for (let x = 0; x < width; x++) {
      const cell = row + Math.min(Math.floor(((x + 0.5) * w) / width), w - 1);
      counts[cell]++;
      for (let c = 0; c < 3; c++) sums[3 * cell + c] += pixels[4 * (y * width + x) + c];
    }
  }
  return sums.map((sum, i) => sum / 255 / Math.max(counts[Math.floor(i / 3)], 1));
}

function halved(guide, [h, w]) {
  const out = new Float64Array((guide.length / 4) | 0);
  for (let y = 0; y < h / 2; y++) {
    for (let x = 0; x < w / 2; x++) {
      for (let c = 0; c < 3; c++) {
        const at = 3 * (2 * y * w + 2 * x) + c;
        out[3 * ((y * w) / 2 + x) + c] = (guide[at] + guide[at + 3] + guide[at + 3 * w] + guide[at + 3 * w + 3]) / 4;
      }
    }
  }
  return out;
}

// Doubles a grid: (h * w * channels) -> (2 h * 2 w * channels), given the mean colours of the cells of both grids.
function doubled(values, [h, w], channels, coarse, fine) {
  const out = new Float32Array(4 * h * w * channels);
  const [weights, cells] = [new Float64Array(9), new Int32Array(9)];
  for (let y = 0; y < 2 * h; y++) {
    for (let x = 0; x < 2 * w; x++) {
      const [row, column] = [y >> 1, x >> 1];
      const [down, across] = [y & 1 ? 0.25 : -0.25, x & 1 ? 0.25 : -0.25];
      const at = 3 * (2 * y * w + x);
      let most = -Infinity;
      for (let k = 0; k < 9; k++) {
        const [dy, dx] = [Math.floor(k / 3) - 1, (k % 3) - 1];
        const cell = Math.min(Math.max(row + dy, 0), h - 1) * w + Math.min(Math.max(column + dx, 0), w - 1);
        const [r, g, b] = [fine[at] - coarse[3 * cell], fine[at + 1] - coarse[3 * cell + 1], fine[at + 2] - coarse[3 * cell + 2]];
        const far = (dy - down) ** 2 + (dx - across) ** 2;
        cells[k] = cell;
        weights[k] = -(r * r + g * g + b * b) / (2 * COLOR ** 2) - far / (2 * DISTANCE ** 2);
        if (weights[k] > most) most = weights[k];
      }
      let sum = 0;
      for (let k = 0; k < 9; k++) sum += weights[k] = Math.exp(weights[k] - most);
      const to = (2 * y * w + x) * channels;
      for (let k = 0; k < 9; k++) {
        const share = weights[k] / sum;
        for (let c = 0; c < channels; c++) out[to + c] += share * values[cells[k] * channels + c];
      }
    }
  }
  return out;
}

// The guides of the grids: mean colours at the finest grid, then at each coarser one, down to the grid of the values.
export function guidesOf(pixels, size, [h, w], doublings) {
  let grid = [h << doublings, w << doublings];
  const guides = [meanColors(pixels, size, grid)];
  for (let i = 0; i < doublings; i++) {
    guides.push(halved(guides[i], grid));
    grid = [grid[0] / 2, grid[1] / 2];
  }
  return guides;
}

// Upsamples values (h * w * channels) to the grid of the first guide.
export function finer(values, [h, w], channels, guides) {
  let [found, grid] = [values, [h, w]];
  for (let i = guides.length - 1; i > 0; i--) {
    found = doubled(found, grid, channels, guides[i], guides[i - 1]);
    grid = [2 * grid[0], 2 * grid[1]];
  }
  return found;
}
