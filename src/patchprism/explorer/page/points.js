// Draws the points of the scatter pixel by pixel, so that 50,000 points can be moved smoothly without a GPU. No DOM.

const MUTED_POINT = 0x59908880; // background patches, as 0xAABBGGRR
const DIM_POINT = 0x38000000;

export class PointField {
  constructor() {
    this.width = this.height = 0;
    this.turn = { yaw: -0.6, pitch: 0.45 };
    this.home();
  }

  home() {
    this.zoom = 1;
    this.centre = [0, 0];
  }

  resize(width, height) {
    if (width === this.width && height === this.height) return;
    this.width = width;
    this.height = height;
    this.words = new Uint32Array(width * height);
    this.ids = new Int32Array(width * height);
    this.depths = new Float32Array(width * height);
  }

  // axes: two or three arrays of numbers; shown (n) says which patches determine the range of each axis.
  place(axes, shown) {
    const n = axes[0].length;
    this.count = n;
    this.solid = axes.length === 3;
    this.axes = axes.map((values) => {
      let [low, high] = [Infinity, -Infinity];
      for (let i = 0; i < n; i++) {
        if (!shown[i]) continue;
        if (values[i] < low) low = values[i];
        if (values[i] > high) high = values[i];
      }
      if (!(high > low)) [low, high] = [(Number.isFinite(low) ? low : 0) - 1, (Number.isFinite(low) ? low : 0) + 1];
      const placed = new Float32Array(n);
      for (let i = 0; i < n; i++) placed[i] = (2 * (values[i] - low)) / (high - low) - 1;
      return placed;
    });
    if (this.x?.length !== n) [this.x, this.y, this.z] = [0, 1, 2].map(() => new Float32Array(n));
  }

  // The ends of each axis in pixels: [x, y] of low and high.
  ends() {
    return this.axes.map((_, k) => [-1, 1].map((end) => this.toPixels(this.axes.map((__, other) => (other === k ? end : this.solid ? 0 : -1)))));
  }

  matrix() {
    if (!this.solid) return [[1, 0, 0], [0, 1, 0], [0, 0, 0]];
    const { yaw, pitch } = this.turn;
    const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    return [[cy, 0, sy], [sy * sp, cp, -cy * sp], [-sy * cp, sp, cy * cp]];
  }

  get scale() {
    return (this.solid ? 0.6 : 0.92) * 0.5 * Math.min(this.width, this.height) * this.zoom;
  }

  toPixels(place) {
    const [right, up] = this.matrix();
    const sum = (row) => row[0] * place[0] + row[1] * place[1] + row[2] * (place[2] ?? 0);
    return [this.width / 2 + this.scale * (sum(right) - this.centre[0]), this.height / 2 - this.scale * (sum(up) - this.centre[1])];
  }

  // colors: bytes (n, 3); visible: (n), or null for all; chosen: (n), or null; size: of a point in pixels; background:
  // whether patches that are not visible are drawn as well.
  draw({ colors, visible, chosen, size, background }) {
    this.drawn = background ? null : visible;
    const { words, ids, depths, x, y, z, axes, width, height, count } = this;
    const [right, up, near] = this.matrix();
    const { scale, centre } = this;
    const [a, b, c = a] = axes;
    const [left, top] = [width / 2 - scale * centre[0], height / 2 + scale * centre[1]];
    for (let i = 0; i < count; i++) {
      x[i] = left + scale * (right[0] * a[i] + right[1] * b[i] + right[2] * c[i]);
      y[i] = top - scale * (up[0] * a[i] + up[1] * b[i] + up[2] * c[i]);
      z[i] = near[0] * a[i] + near[1] * b[i] + near[2] * c[i];
    }
    words.fill(0);
    ids.fill(-1);
    depths.fill(-1e9);
    // Less important points are drawn first, so that they do not hide the others.
    const rank = (i) => (visible && !visible[i] ? 0 : 1) + (chosen?.[i] ? 2 : 0);
    const last = chosen ? 3 : 1;
    for (let pass = visible && background ? 0 : 1; pass <= last; pass++) {
      if (pass === 2 && !background) continue;
      const behind = pass * 4; // later passes are drawn in front of earlier ones
      const wide = pass === 0 ? Math.max(1, size - 1) : size;
      for (let i = 0; i < count; i++) {
        if (rank(i) !== pass) continue;
        const px = Math.round(x[i] - wide / 2);
        const py = Math.round(y[i] - wide / 2);
        if (px < 0 || py < 0 || px + wide > width || py + wide > height) continue;
        const shown = pass & 1;
        let word = shown ? 0xff000000 | (colors[3 * i + 2] << 16) | (colors[3 * i + 1] << 8) | colors[3 * i] : MUTED_POINT;
        if (chosen && pass < 2) word = (word & 0xffffff) | DIM_POINT;
        else if (pass === 2) word = 0xff00b4ff; // a chosen patch of the background
        const depth = z[i] + behind;
        for (let row = py; row < py + wide; row++) {
          for (let at = row * width + px; at < row * width + px + wide; at++) {
            if (depth < depths[at]) continue;
            depths[at] = depth;
            words[at] = word;
            ids[at] = i;
          }
        }
      }
    }
  }

  // The point nearest to a pixel within some reach, or -1.
  at(px, py, reach) {
    let [best, least] = [-1, Infinity];
    for (let dy = -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) {
        const [x, y] = [Math.round(px) + dx, Math.round(py) + dy];
        if (x < 0 || y < 0 || x >= this.width || y >= this.height) continue;
        const id = this.ids[y * this.width + x];
        if (id < 0 || dx * dx + dy * dy >= least) continue;
        [best, least] = [id, dx * dx + dy * dy];
      }
    }
    return best;
  }

  // Whether each point lies inside a closed line [[x, y], ...], as bytes.
  within(line) {
    const found = insideOf(line, this.x, this.y);
    if (this.drawn) for (let i = 0; i < found.length; i++) found[i] &= this.drawn[i];
    return found;
  }
}

// Whether places lie inside a closed line, found by counting the crossings of a ray.
export function insideOf(line, x, y) {
  const found = new Uint8Array(x.length);
  const [xs, ys] = [line.map((p) => p[0]), line.map((p) => p[1])];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  for (let i = 0; i < x.length; i++) {
    if (x[i] < left || x[i] > right || y[i] < top || y[i] > bottom) continue;
    let inside = 0;
    for (let j = 0, k = line.length - 1; j < line.length; k = j++) {
      if (ys[j] > y[i] !== ys[k] > y[i] && x[i] < ((xs[k] - xs[j]) * (y[i] - ys[j])) / (ys[k] - ys[j]) + xs[j]) inside ^= 1;
    }
    found[i] = inside;
  }
  return found;
}
