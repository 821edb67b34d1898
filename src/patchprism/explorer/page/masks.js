// Masks at the resolution of the photos, and COCO's run lengths. No DOM.

import { patchAlong } from "./math.js";

// Enlarges the mask of a photo's patches to the photo's resolution, one byte per pixel: 1 is foreground.
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

// Lengths of the runs along the columns, starting with background, as COCO's compressed text. Each length from the fourth
// on is the difference from the last but one before it; each character holds five bits, the lowest first.
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

// The annotation of a mask, without ids; null for an empty mask.
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
