// Lays out a figure for a paper, in points: panels in rows and columns, labels and a caption. No DOM.

import { mappedTable, patchAlong, roundHalfEven } from "./math.js";

export const POINTS_PER = { in: 72, mm: 72 / 25.4 };
const PANEL_GAP = 3; // between panels, in points
const GROUP_GAP = 7; // between photos
const LABEL_SIZE = 7; // height of the letters
const LINE_HEIGHT = 1.35;
const FIGURE_STEPS = 256;
const figureHeat = mappedTable(FIGURE_STEPS);

export const INKS = { white: "#1c2026", transparent: "#1c2026", black: "#e8eaee" };
export const PAPERS = { white: "#ffffff", transparent: null, black: "#000000" };

// Breaks a text into lines of at most `width`; words that are too long are divided.
export function wrapped(text, width, measure) {
  const lines = [];
  let line = "";
  for (let word of text.split(/\s+/).filter(Boolean)) {
    if (line && measure(`${line} ${word}`) <= width) {
      line += ` ${word}`;
      continue;
    }
    if (line) lines.push(line);
    while (measure(word) > width && word.length > 1) {
      let kept = word.length - 1;
      while (kept > 1 && measure(word.slice(0, kept)) > width) kept--;
      lines.push(word.slice(0, kept));
      word = word.slice(kept);
    }
    line = word;
  }
  return line ? [...lines, line] : lines;
}

// Shortens a text to `width` in the middle, because both ends of a file name help to recognise a photo.
export function fitted(text, width, measure) {
  if (measure(text) <= width) return text;
  const signs = [...text];
  for (let kept = Math.min(signs.length - 1, 120); kept > 0; kept--) {
    const short = `${signs.slice(0, Math.ceil(kept / 2)).join("")}…${signs.slice(signs.length - Math.floor(kept / 2)).join("")}`;
    if (measure(short) <= width) return short;
  }
  return "";
}

// photos: [{ name, size: [height, width] }]; columns: labels of the panels; perRow: number of photos in a row; width: in
// points; caption, command: texts below the panels, may be empty; measure(text, size, mono) -> points.
// Returns { width, height, cells: [{ photo, column, x, y, width, height }], items: texts }.
export function layOut({ photos, columns, perRow, width, labels, caption, command, ink, measure }) {
  const each = Math.min(perRow, photos.length);
  const gaps = each * (columns.length - 1) * PANEL_GAP + (each - 1) * GROUP_GAP;
  const panel = (width - gaps) / (each * columns.length);
  if (panel < 4) throw new Error("So many panels do not fit into this width. Choose fewer photos per row, or a wider figure.");
  const [cells, items] = [[], []];
  const text = (said, x, y, size, mono = false) => items.push({ kind: "text", text: said, x, y, size, mono, ink });
  const ofSize = (size, mono) => (said) => measure(said, size, mono);
  const group = columns.length * panel + (columns.length - 1) * PANEL_GAP;
  let y = 0;
  if (labels && columns.length > 1) {
    for (let i = 0; i < each; i++) {
      columns.forEach((label, k) => text(fitted(label, panel, ofSize(LABEL_SIZE)), i * (group + GROUP_GAP) + k * (panel + PANEL_GAP), y + LABEL_SIZE, LABEL_SIZE));
    }
    y += LABEL_SIZE * LINE_HEIGHT + 1;
  }
  for (let first = 0; first < photos.length; first += each) {
    const row = photos.slice(first, first + each);
    const tall = Math.max(...row.map(({ size }) => (panel * size[0]) / size[1]));
    row.forEach(({ name, size }, i) => {
      const left = i * (group + GROUP_GAP);
      const height = (panel * size[0]) / size[1];
      columns.forEach((_, k) => cells.push({ photo: first + i, column: k, x: left + k * (panel + PANEL_GAP), y, width: panel, height }));
      if (labels) text(fitted(name, group, ofSize(LABEL_SIZE)), left, y + height + LABEL_SIZE + 1, LABEL_SIZE);
    });
    y += tall + (labels ? LABEL_SIZE * LINE_HEIGHT + 2 : 0) + (first + each < photos.length ? PANEL_GAP : 0);
  }
  for (const [said, size, mono] of [[caption, LABEL_SIZE, false], [command, 5.5, true]]) {
    if (!said) continue;
    y += 3;
    for (const line of wrapped(said, width, ofSize(size, mono))) {
      text(line, 0, y + size, size, mono);
      y += size * LINE_HEIGHT;
    }
  }
  return { width, height: y, cells, items };
}

// The pixels of a panel, RGBA at [height, width]. source: { colors, visible, alpha, values, range }, where `visible` says
// which patches have a colour. If `values` is given, similarities are drawn instead of colours, dark to bright over
// `range`. photo: RGBA of the same size, or null. fill: [red, green, blue, alpha] of pixels without colour and photo.
export function panelPixels({ start, grid, crop, size }, [height, width], source, photo, fill) {
  const [h, w] = grid;
  const [across, down] = [width / size[1], height / size[0]];
  const rows = patchAlong(height, h, crop[1] * down, crop[3] * down);
  const columns = patchAlong(width, w, crop[0] * across, crop[2] * across);
  const { colors, visible, values, range: [low, high] = [0, 1] } = source;
  const share = photo ? roundHalfEven((source.alpha ?? 1) * 256) : 256;
  const out = new Uint8ClampedArray(4 * height * width);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at += 4) {
      const patch = rows[y] < h && columns[x] < w ? start + rows[y] * w + columns[x] : -1;
      const shown = patch >= 0 && (!visible || visible[patch]);
      let [table, from] = [colors, 3 * patch];
      if (shown && values) [table, from] = [figureHeat, 3 * Math.round(Math.min(Math.max((values[patch] - low) / (high - low), 0), 1) * (FIGURE_STEPS - 1))];
      for (let c = 0; c < 3; c++) {
        const under = photo ? photo[at + c] : fill[c];
        out[at + c] = shown ? (photo ? (table[from + c] * share + under * (256 - share) + 128) >> 8 : table[from + c]) : under;
      }
      out[at + 3] = shown || photo ? 255 : fill[3];
    }
  }
  return out;
}

// The box of a patch in a cell, in points.
export function patchBox(cell, { grid, crop, size }, index) {
  const [h, w] = grid;
  const scale = cell.width / size[1];
  const [wide, tall] = [((crop[2] - crop[0]) / w) * scale, ((crop[3] - crop[1]) / h) * scale];
  return { x: cell.x + crop[0] * scale + (index % w) * wide, y: cell.y + crop[1] * scale + Math.floor(index / w) * tall, width: wide, height: tall };
}

// Marks of the pins, and lines to their matches, in the cells of the columns `drawn`. links: [{ pin, matches }].
export function pinItems(layout, photos, links, colors) {
  const made = [];
  const chosen = photos.map((photo) => photo.index);
  const cellOf = (photo, column) => layout.cells.find((cell) => chosen[cell.photo] === photo && cell.column === column);
  const columns = Math.max(...layout.cells.map((cell) => cell.column)) + 1;
  const mark = (photo, index, color, wide) => {
    for (let column = 0; column < columns; column++) {
      const cell = cellOf(photo, column);
      if (!cell) continue;
      const box = patchBox(cell, photos[cell.photo], index);
      made.push({ kind: "rect", ...box, stroke: "#000000", wide: wide + 0.8 }, { kind: "rect", ...box, stroke: color, wide });
    }
  };
  const lines = [];
  links.forEach(({ pin, matches }, i) => {
    const color = colors[i % colors.length];
    mark(pin.photo, pin.index, color, 1.1);
    for (const match of matches) {
      const to = photos.find((photo) => photo.index === match.photo);
      if (!to) continue;
      mark(match.photo, match.patch - to.start, color, 0.7);
      const [from, end] = [cellOf(pin.photo, 0), cellOf(match.photo, 0)];
      if (!from || !end) continue;
      const middle = (box) => [box.x + box.width / 2, box.y + box.height / 2];
      const [a, b] = [middle(patchBox(from, photos[from.photo], pin.index)), middle(patchBox(end, to, match.patch - to.start))];
      const line = { kind: "line", x1: a[0], y1: a[1], x2: b[0], y2: b[1] };
      lines.push({ ...line, stroke: "#000000", wide: 1.3 }, { ...line, stroke: color, wide: 0.7, dashed: !match.mutual });
    }
  });
  return [...lines, ...made];
}
