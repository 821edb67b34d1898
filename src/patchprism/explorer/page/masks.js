// Masks at the photos' resolution, and COCO's run lengths. No DOM.

import { patchAlong } from "./math.js";

// The mask of one photo's patches at the photo's own resolution, a byte a pixel: 1 is foreground.
export function fullMask(mask, { start, grid, crop, size }) {
  const [height, width] = size;
  const [h, w] = grid;
  const rows = patchAlong(height, h, crop[1], crop[3]);
  const columns = patchAlong(width, w, crop[0], crop[2]);
  const out = new Uint8Array(height * width);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      out[at] = rows[y] < h && columns[x] < w ? mask[start + rows[y] * w + columns[x]] : 0;
    }
  }
  return out;
}

// Lengths of runs down the columns, the first of background, as COCO's compressed text: each as the difference from
// the one before the last, five bits a character, the lowest first.
export function runLengths(mask, height, width) {
  const counts = [];
  let [value, run] = [0, 0];
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      if (mask[at] === value) run++;
      else {
        counts.push(run);
        [value, run] = [mask[at], 1];
      }
    }
  }
  counts.push(run);
  let text = "";
  counts.forEach((count, i) => {
    let rest = i > 2 ? count - counts[i - 2] : count;
    for (let more = true; more; ) {
      let bits = rest & 31;
      rest >>= 5;
      more = bits & 16 ? rest !== -1 : rest !== 0;
      if (more) bits |= 32;
      text += String.fromCharCode(bits + 48);
    }
  });
  return text;
}

// One annotation without its ids, or null for an empty mask.
export function cocoObject(mask, [height, width]) {
  let [area, left, top, right, bottom] = [0, width, height, -1, -1];
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      if (!mask[at]) continue;
      area++;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  if (!area) return null;
  return {
    segmentation: { size: [height, width], counts: runLengths(mask, height, width) },
    area,
    bbox: [left, top, right - left + 1, bottom - top + 1],
    iscrowd: 0,
  };
}

// The masks of all photos in COCO's format of instances. masks: [{ photo, category, mask }].
export function cocoFile(photos, masks, categories, version) {
  const annotations = [];
  for (const { photo, category, mask } of masks) {
    const found = cocoObject(mask, photos[photo].size);
    if (found) annotations.push({ id: annotations.length + 1, image_id: photo + 1, category_id: category, ...found });
  }
  return JSON.stringify({
    info: { description: "Foreground masks", version: `PatchPrism ${version}` },
    licenses: [],
    categories: categories.map((name, k) => ({ id: k + 1, name, supercategory: "object" })),
    images: photos.map(({ name, size }, i) => ({ id: i + 1, file_name: name, width: size[1], height: size[0] })),
    annotations,
  });
}
