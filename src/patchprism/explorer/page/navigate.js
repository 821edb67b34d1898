// Controls what is in view and how large: zoom, panning, one photo over the whole window, order and hiding.

import { byId } from "./dom.js";
import { MAX_SIZE } from "./state.js";

const MOST_ZOOM = 16;

// Indices of the photos that are shown, in their order.
export function shownPhotos(model, state) {
  if (state.single !== null) return [state.single];
  const hidden = new Set(state.hidden);
  const shown = model.photos.map((_, i) => i).filter((i) => !hidden.has(i));
  if (state.sort === "name") shown.sort((a, b) => model.photos[a].name.localeCompare(model.photos[b].name, undefined, { numeric: true }));
  else if (state.sort !== "given") {
    const values = model.photos.map((photo, i) => (state.sort === "share" ? model.share(photo) : likeness(model, state, i)));
    shown.sort((a, b) => values[b] - values[a] || a - b);
  }
  return shown;
}

// The similarity of the photo's best patch to the first pin.
function likeness(model, state, index) {
  const [pin] = state.pins;
  if (!pin) return 0;
  if (pin.photo === index) return Infinity;
  const { start, grid } = model.photos[index];
  const similarities = model.similarity.of(model.photos[pin.photo].start + pin.index);
  let best = -1;
  for (let i = start; i < start + grid[0] * grid[1]; i++) if (model.mask[i]) best = Math.max(best, similarities[i]);
  return best;
}

export function navigate(app) {
  const inside = (centre, zoom = app.state.zoom) => Math.min(Math.max(centre, 0.5 / zoom), 1 - 0.5 / zoom);
  const order = () => app.gallery.show(shownPhotos(app.model, app.state), app.state);

  app.pan = (dx, dy) => {
    const { zoom, panX, panY } = app.state;
    if (zoom !== 1) app.change({ panX: inside(panX - dx / zoom), panY: inside(panY - dy / zoom) }, { kind: "place" });
  };
  // Zooms around a point of the pane, which stays in place.
  app.zoom = (factor, x = 0.5, y = 0.5) => {
    const { zoom: before, panX, panY } = app.state;
    const zoom = Math.min(Math.max(before * factor, 1), MOST_ZOOM);
    const move = (centre, at) => inside(centre + (at - 0.5) / before - (at - 0.5) / zoom, zoom);
    app.change({ zoom, panX: move(panX, x), panY: move(panY, y) }, { kind: "place" });
  };
  app.resetZoom = () => app.change({ zoom: 1, panX: 0.5, panY: 0.5 });

  // Brings the patch under the keyboard cursor into view.
  app.follow = (photo, index) => {
    const { zoom, panX, panY } = app.state;
    if (zoom === 1) return;
    const { grid, crop, size } = app.model.photos[photo];
    const [left, top, right, bottom] = crop;
    const x = (left + (((index % grid[1]) + 0.5) / grid[1]) * (right - left)) / size[1];
    const y = (top + ((Math.floor(index / grid[1]) + 0.5) / grid[0]) * (bottom - top)) / size[0];
    const reach = 0.42 / zoom;
    const near = (centre, at) => inside(Math.min(Math.max(centre, at - reach), at + reach));
    app.change({ panX: near(panX, x), panY: near(panY, y) }, { kind: "place" });
  };

  // double: after a double click. Its first click has set or removed a pin, which is undone.
  app.open = (index, double = false) => {
    if (double && app.clicked) app.undo();
    const single = app.state.single === index ? null : index;
    app.change({ single, zoom: 1, panX: 0.5, panY: 0.5 });
    app.gallery.tiles[index].frame.focus({ preventScroll: true });
  };
  // Handles arrow keys that do not move the cursor over patches; returns whether it did.
  app.arrow = ([dx, dy], shift) => {
    const { single, zoom } = app.state;
    if (single !== null && !shift && dx) {
      const all = shownPhotos(app.model, { ...app.state, single: null });
      const next = all[(all.indexOf(single) + dx + all.length) % all.length];
      app.change({ single: next });
      app.gallery.tiles[next].frame.focus({ preventScroll: true });
      return true;
    }
    if (shift && zoom > 1 && single === null) {
      app.pan(-dx * 0.15, -dy * 0.15);
      return true;
    }
    return false;
  };
  app.hide = (index) => {
    if (app.model.photos.length - app.state.hidden.length < 2) return app.toast("The last photo cannot be hidden.");
    app.change({ hidden: [...app.state.hidden, index], single: null });
  };

  const show = () => {
    const { state, model } = app;
    document.body.dataset.single = state.single !== null;
    byId("gallery").style.setProperty("--divide", `${100 * state.divide}%`);
    for (const { divide } of app.gallery.tiles) divide.setAttribute("aria-valuenow", Math.round(100 * state.divide));
    byId("show-all").hidden = !state.hidden.length;
    byId("show-all").textContent = `Show ${state.hidden.length} hidden`;
    byId("close-single").hidden = state.single === null;
    byId("sort").hidden = state.single !== null || model.photos.length === 1;
    byId("size-row").hidden = state.single !== null || model.photos.length === 1;
  };
  app.on("load", () => {
    order();
    app.gallery.place(app.state);
    show();
  });
  app.on("change", (patch) => {
    if ("zoom" in patch || "panX" in patch || "panY" in patch) app.gallery.place(app.state);
    if (["single", "hidden", "sort", "size", "beside", "mode"].some((key) => key in patch)) order();
    else if (patch.pins && app.state.sort === "similar") order();
    if (["single", "hidden", "divide"].some((key) => key in patch)) show();
  });
  byId("zoom-in").onclick = () => app.zoom(1.5);
  byId("zoom-out").onclick = () => app.zoom(1 / 1.5);
  byId("zoom-reset").onclick = app.resetZoom;
  byId("show-all").onclick = () => app.change({ hidden: [] });
  byId("close-single").onclick = () => app.change({ single: null });
  byId("size").max = String(MAX_SIZE);
}
