// The open photo's colours at the photo's resolution, with the photo's edges.

import { byId, element } from "./dom.js";
import { doublingsFor, finer, guidesOf } from "./finer.js";

// The pixels of a photo's crop, from the copy that the page contains.
function cropPixels(tile) {
  const { image, photo } = tile;
  const scale = image.naturalWidth / photo.size[1];
  const [left, top, right, bottom] = photo.crop.map((edge) => edge * scale);
  const size = [Math.max(1, Math.round(bottom - top)), Math.max(1, Math.round(right - left))];
  const canvas = new OffscreenCanvas(size[1], size[0]);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, left, top, right - left, bottom - top, 0, 0, size[1], size[0]);
  return { size, pixels: context.getImageData(0, 0, size[1], size[0]).data };
}

export function crisp(app) {
  let drawn = null; // { tile, canvas, guides }

  const clear = () => {
    drawn?.canvas.remove();
    drawn?.tile.figure.classList.remove("crisp");
    drawn = null;
  };
  const draw = (state) => {
    const wanted = state.single !== null && state.guided && state.mode !== "photo" && state.mode !== "clusters";
    const tile = wanted ? app.gallery.tiles[state.single] : null;
    if (!tile) return clear();
    if (drawn?.tile !== tile) {
      clear();
      const { size, pixels } = cropPixels(tile);
      const { grid } = tile.photo;
      const doublings = doublingsFor(size, grid);
      const guides = guidesOf(pixels, size, grid, doublings);
      const [height, width] = grid.map((cells) => cells << doublings);
      const canvas = element("canvas", { class: "layer colors-crisp", width, height, "aria-hidden": "true" });
      for (const edge of ["left", "top", "width", "height"]) canvas.style[edge] = tile.marks.style[edge];
      tile.main.marks.before(canvas);
      tile.figure.classList.add("crisp");
      drawn = { tile, canvas, guides };
    }
    const { start, grid } = tile.photo;
    const { colors, visible } = app.model.layer(state);
    const n = grid[0] * grid[1];
    // Colours are weighted with the foreground and divided by it later, so that no dark seam appears at its edge.
    const values = new Float64Array(4 * n);
    for (let i = 0; i < n; i++) {
      if (visible && !visible[start + i]) continue;
      for (let c = 0; c < 3; c++) values[4 * i + c] = colors[3 * (start + i) + c];
      values[4 * i + 3] = 255;
    }
    const made = finer(values, grid, 4, drawn.guides);
    const shown = new ImageData(drawn.canvas.width, drawn.canvas.height);
    for (let i = 0; i < made.length; i += 4) {
      const share = made[i + 3] / 255;
      for (let c = 0; c < 3; c++) shown.data[i + c] = share > 0 ? made[i + c] / share : 0;
      shown.data[i + 3] = made[i + 3];
    }
    drawn.canvas.getContext("2d").putImageData(shown, 0, 0);
  };
  app.on("load", clear);
  app.on("draw", (state) => {
    byId("guided-row").hidden = state.single === null || state.mode === "photo" || state.mode === "clusters";
    draw(state);
  });
}
