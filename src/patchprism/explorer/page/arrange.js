// Arranges the photos in justified rows that fill the window. Numbers only, no DOM.

// The ends of rows of about equal length, found by dynamic programming over the sums of the aspect ratios.
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

// Ways to divide n photos into rows: all ways for up to 12 photos, otherwise rows of about equal length.
function* cutsOf(aspects) {
  const n = aspects.length;
  if (n <= 12) {
    for (let cuts = 0; cuts < 2 ** (n - 1); cuts++) {
      const ends = [];
      for (let i = 0; i < n - 1; i++) if (cuts & (1 << i)) ends.push(i + 1);
      yield [...ends, n];
    }
  } else for (let rows = 1; rows <= Math.min(n, 2 * Math.sqrt(n) + 4); rows++) yield rowEnds(aspects, rows);
}

// The fold of a tile: two panes side by side, two panes one above the other, one frame with a divider, or one pane.
const ACROSS = { row: 2, column: 1, split: 1, none: 1 };
const DOWN = { row: 1, column: 2, split: 1, none: 1 };

// Lays photos out in rows with the given ends and folds, as large as a box of width x height allows.
function laidRows(aspects, ends, folds, { width, height, gap, seam, caption }) {
  const rows = ends.map((end, r) => ({ row: aspects.slice(r ? ends[r - 1] : 0, end), fold: folds[r % folds.length] }));
  let tall = 0;
  let fixed = (rows.length - 1) * gap + rows.length * caption;
  for (const each of rows) {
    const { row, fold } = each;
    each.seams = [(ACROSS[fold] - 1) * seam, (DOWN[fold] - 1) * seam];
    const free = width - (row.length - 1) * gap - row.length * each.seams[0];
    each.height = free / (ACROSS[fold] * row.reduce((sum, aspect) => sum + aspect, 0));
    if (each.height <= 0) return null;
    tall += each.height * DOWN[fold];
    fixed += each.seams[1];
  }
  const scale = Math.min(1, (height - fixed) / tall);
  if (scale <= 0) return null;
  let [area, evenness, smallest, y] = [0, 0, Infinity, 0];
  const boxes = [];
  for (const { row, fold, height: full, seams } of rows) {
    const h = full * scale;
    const wide = (aspect) => ACROSS[fold] * aspect * h + seams[0];
    const total = row.reduce((sum, aspect) => sum + wide(aspect), 0) + (row.length - 1) * gap;
    let x = Math.max(0, (width - total) / 2);
    for (const aspect of row) {
      boxes.push({ x, y, width: wide(aspect), height: DOWN[fold] * h + seams[1], fold });
      x += wide(aspect) + gap;
      area += ACROSS[fold] * DOWN[fold] * aspect * h * h;
      evenness += Math.log(aspect * h * h);
      smallest = Math.min(smallest, aspect * h, h);
    }
    y += DOWN[fold] * h + seams[1] + caption + gap;
  }
  return { boxes, area, evenness: evenness / aspects.length, smallest, height: y - gap };
}

// The photos should fill at least this share of the window. If they fill less, a photo and its colours go into one frame.
const SHARE = 0.56;
const SMALLEST = 84; // pixels; the gallery scrolls before panes become smaller than this

// A mix of both folds looks restless, so it must enlarge the photos by at least this much (logarithm of the area).
const MIXED = 0.15;
const MOST_MIXED = 5; // maximum number of rows for a mix of folds

// All assignments of the two folds to n rows, except those with the same fold everywhere.
function mixedFolds(n) {
  const bits = Array.from({ length: 2 ** n - 2 }, (_, i) => i + 1);
  return bits.map((bit) => Array.from({ length: n }, (_, r) => (bit & (1 << r) ? "row" : "column")));
}

// aspects: width divided by height of each photo. beside: whether a tile shows the photo and its colours. window: the area
// that SHARE refers to. Returns { boxes [{ x, y, width, height, fold }], height, area }.
export function arrange({ aspects, width, height, window = width * height, gap = 10, seam = 3, caption = 24, beside = true, size = 1 }) {
  const n = aspects.length;
  const nothing = { boxes: [], height: 0, area: 0 };
  if (!n || width <= 0 || height <= 0) return nothing;
  // Once the share is reached, photos of about the same size are better than a larger share.
  const enough = SHARE * window;
  const better = (a, b, by = 0) => !b || (Math.min(a.area, b.area) < enough ? a.area > b.area : a.evenness > b.evenness + by);
  const best = (room, foldsOf, found = null, by = 0) => {
    for (const ends of cutsOf(aspects)) {
      for (const folds of foldsOf(ends.length)) {
        const laid = laidRows(aspects, ends, folds, { width, height: room, gap, seam, caption });
        if (laid && better(laid, found, found?.mixed ? 0 : by)) found = Object.assign(laid, { mixed: by > 0 });
      }
    }
    return found;
  };
  let room = height * size;
  for (let tries = 0; tries < 24; tries++) {
    let found = best(room, () => (beside ? [["row"], ["column"]] : [["none"]]));
    if (beside && n > 2 && n <= 12) found = best(room, (rows) => (rows > 1 && rows <= MOST_MIXED ? mixedFolds(rows) : []), found, MIXED);
    if (beside && (!found || found.area < enough)) {
      const split = best(room, () => [["split"]]);
      if (split && (!found || split.area > found.area)) found = split;
    }
    if (found && (n <= 12 || found.smallest >= SMALLEST || tries === 23)) return found;
    room *= 1.25;
  }
  return nothing;
}
