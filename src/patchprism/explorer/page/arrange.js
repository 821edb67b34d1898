// Where the photos go: justified rows that fill the window. Numbers only, no DOM.

// Rows of about equal length: ends of the rows, by dynamic programming over the sums of the aspects.
function rowEnds(aspects, rows) {
  const n = aspects.length;
  const sums = [0];
  for (const aspect of aspects) sums.push(sums[sums.length - 1] + aspect);
  const target = sums[n] / rows;
  const cost = (from, to) => (sums[to] - sums[from] - target) ** 2;
  let best = Array.from({ length: n + 1 }, (_, to) => (to ? cost(0, to) : Infinity));
  const cuts = [];
  for (let row = 1; row < rows; row++) {
    const next = new Array(n + 1).fill(Infinity);
    const cut = new Array(n + 1).fill(0);
    for (let to = row + 1; to <= n; to++) {
      for (let from = row; from < to; from++) {
        const total = best[from] + cost(from, to);
        if (total < next[to]) [next[to], cut[to]] = [total, from];
      }
    }
    best = next;
    cuts.push(cut);
  }
  const ends = [n];
  for (let row = rows - 2; row >= 0; row--) ends.unshift(cuts[row][ends[0]]);
  return ends;
}

// Ways to cut n photos into rows: all of them for few photos, else rows of about equal length.
function* cutsOf(aspects) {
  const n = aspects.length;
  if (n <= 10) {
    for (let cuts = 0; cuts < 2 ** (n - 1); cuts++) {
      const ends = [];
      for (let i = 0; i < n - 1; i++) if (cuts & (1 << i)) ends.push(i + 1);
      yield [...ends, n];
    }
  } else for (let rows = 1; rows <= Math.min(n, 2 * Math.sqrt(n) + 4); rows++) yield rowEnds(aspects, rows);
}

// One way to lay photos out: rows of the given ends, each pane as large as fits, in a box of width x height.
function laidRows(aspects, ends, { width, height, gap, seam, caption, fold }) {
  const across = fold === "row" ? 2 : 1; // panes of a tile beside each other
  const down = fold === "column" ? 2 : 1;
  const seamX = (across - 1) * seam;
  const seamY = (down - 1) * seam;
  const rows = ends.map((end, r) => aspects.slice(r ? ends[r - 1] : 0, end));
  const heights = rows.map((row) => {
    const free = width - (row.length - 1) * gap - row.length * seamX;
    return free / (across * row.reduce((sum, aspect) => sum + aspect, 0));
  });
  const room = height - rows.length * (caption + seamY) - (rows.length - 1) * gap;
  const tall = heights.reduce((sum, h) => sum + h, 0) * down;
  const scale = Math.min(1, room / tall);
  if (!(scale > 0) || heights.some((h) => h <= 0)) return null;
  let area = 0;
  let evenness = 0;
  let smallest = Infinity;
  let y = 0;
  const boxes = [];
  rows.forEach((row, r) => {
    const h = heights[r] * scale;
    const total = row.reduce((sum, aspect) => sum + across * aspect * h + seamX, 0) + (row.length - 1) * gap;
    let x = Math.max(0, (width - total) / 2);
    for (const aspect of row) {
      const w = aspect * h;
      boxes.push({ x, y, width: across * w + seamX, height: down * h + seamY });
      x += across * w + seamX + gap;
      area += across * down * w * h;
      evenness += Math.log(w * h);
      smallest = Math.min(smallest, w, h);
    }
    y += down * h + seamY + caption + gap;
  });
  return { fold, boxes, area, evenness, smallest, height: y - gap };
}

// A share of the window that photos shall fill at least; a photo and its colours go into one frame where they
// would fill less side by side.
const SHARE = 0.56;
const SMALLEST = 84; // pixels; smaller panes have the gallery scroll instead

// aspects: width by height of each photo. beside: whether a tile shows the photo and its colours. window: the area
// that the share is of. Returns { fold, boxes [{ x, y, width, height }], height }.
export function arrange({ aspects, width, height, window = width * height, gap = 10, seam = 3, caption = 24, beside = true, size = 1 }) {
  const n = aspects.length;
  if (!n || width <= 0 || height <= 0) return { fold: "none", boxes: [], height: 0, area: 0 };
  // Where the share is reached, photos of about one size are better than a little more of it.
  const enough = SHARE * window;
  const better = (a, b) => (Math.min(a.area, b.area) < enough ? a.area > b.area : a.evenness > b.evenness);
  const best = (folds, room) => {
    let found = null;
    for (const ends of cutsOf(aspects)) {
      for (const fold of folds) {
        const laid = laidRows(aspects, ends, { width, height: room, gap, seam, caption, fold });
        if (laid && (!found || better(laid, found))) found = laid;
      }
    }
    return found;
  };
  let room = height * size;
  for (let tries = 0; tries < 24; tries++) {
    let found = best(beside ? ["row", "column"] : ["none"], room);
    if (beside && (!found || found.area < enough)) {
      const split = best(["split"], room);
      if (split && (!found || split.area > found.area)) found = split;
    }
    if (found && (n <= 12 || found.smallest >= SMALLEST || tries === 23)) return found;
    room *= 1.25;
  }
  return { fold: "none", boxes: [], height: 0, area: 0 };
}
