// Marks on patches and their classes, and their text in links. The lists are replaced, never changed in place.

export const MOST_CLASSES = 12;
export const MOST_MARKS = 20_000;
export const CLASS_COLORS = ["#8a8f9c", "#ffb000", "#00c2a8", "#ff4d6d", "#7c5cff", "#4da3ff", "#b4e33d", "#ff8ad8", "#c97b3d", "#00e5ff", "#f4f1de", "#9b2226"];

export const firstClasses = () => [{ name: "background", color: CLASS_COLORS[0] }, { name: "object", color: CLASS_COLORS[1] }];

// Marks some patches as class k, or removes their marks if k is -1. Returns a new sorted list.
export function withMarks(marks, patches, k) {
  const all = new Map(marks);
  for (const patch of patches) {
    if (k < 0) all.delete(patch);
    else all.set(patch, k);
  }
  return [...all].sort((a, b) => a[0] - b[0]);
}

// Marks as the text of a link: for each class, its number and its patches, singly or as ranges: "0.3-5.9_1.40".
export function writeMarks(marks) {
  const parts = [];
  for (const k of new Set(marks.map(([, own]) => own))) {
    const runs = [];
    for (const [patch, own] of marks) {
      if (own !== k) continue;
      if (runs.at(-1)?.[1] === patch - 1) runs.at(-1)[1] = patch;
      else runs.push([patch, patch]);
    }
    parts.push([k, ...runs.map(([from, to]) => (from === to ? from : `${from}-${to}`))].join("."));
  }
  return parts.join("_");
}

export function readMarks(text, photos) {
  const count = photos.reduce((sum, { grid }) => sum + grid[0] * grid[1], 0);
  const marks = new Map();
  for (const part of text.split("_")) {
    const [k, ...runs] = part.split(".");
    if (!/^\d{1,2}$/.test(k) || Number(k) >= MOST_CLASSES) continue;
    for (const run of runs) {
      const [from, to = from] = run.split("-").map((number) => (/^\d{1,9}$/.test(number) ? Number(number) : NaN));
      if (!(from <= to && to < count)) continue;
      for (let patch = from; patch <= to && marks.size < MOST_MARKS; patch++) marks.set(patch, Number(k));
    }
  }
  return [...marks].sort((a, b) => a[0] - b[0]);
}

// Names are encoded twice, because reading a link decodes it once before it is split.
const inLink = (name) => encodeURIComponent(encodeURIComponent(name).replaceAll("_", "%5F"));

export const writeClasses = (classes) => classes.map(({ name, color }) => `${inLink(name)}.${color.slice(1)}`).join("_");

export function readClasses(text) {
  let classes;
  try {
    classes = text.split("_").map((part) => {
      const at = part.lastIndexOf(".");
      return { name: decodeURIComponent(part.slice(0, at)), color: `#${part.slice(at + 1)}` };
    });
  } catch {
    return undefined; // not a valid percent-encoding
  }
  const names = classes.map(({ name }) => name);
  const sound = classes.every(({ name, color }) => name.trim() && name.length <= 100 && /^#[0-9a-f]{6}$/.test(color));
  return sound && classes.length >= 2 && classes.length <= MOST_CLASSES && new Set(names).size === names.length ? classes : undefined;
}
