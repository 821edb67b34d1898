// Puts the page together: message, state, photos and the parts of the page.

import { App } from "./app.js";
import { crisp } from "./crisp.js";
import { byId, element } from "./dom.js";
import { FileLayers } from "./file_layers.js";
import { inspect } from "./inspect.js";
import { keys } from "./keys.js";
import { layers } from "./layers.js";
import { fromBase64, readMessage } from "./message.js";
import { Model } from "./model.js";
import { modes } from "./modes.js";
import { navigate } from "./navigate.js";
import { panel } from "./panel.js";
import { readout } from "./readout.js";
import { foldWhatDoesNotFit } from "./sections.js";
import { openServer, served } from "./served.js";
import { fromFragment, initialState } from "./state.js";
import { stored } from "./stored.js";
import { take } from "./take.js";
import { tools } from "./tools.js";
import { Gallery } from "./view.js";

// Each part is called once with the app, in this order; app.js describes the events.
const PARTS = [navigate, panel, readout, inspect, crisp, take, keys, modes, stored, tools, layers];

const app = new App();

// Whether two models have the same photos with the same grids.
function samePhotos(model, other) {
  const like = ({ name, size, grid, crop }) => [name, size, grid, crop].join();
  const bytes = (a, b) => a === b || (a.length === b.length && a.every((value, i) => value === b[i]));
  return (
    model?.photos.length === other.photos.length &&
    model.photos.every((photo, i) => like(photo) === like(other.photos[i]) && bytes(model.buffers[`photo-${i}`], other.buffers[`photo-${i}`]))
  );
}

// Shows a message, given as bytes or decoded. settings: the fragment of a link, or a function (opening, photos before,
// photos now) -> state.
app.load = async (content, settings) => {
  const model = new Model(content instanceof Uint8Array ? await readMessage(content) : content);
  await app.dress(model);
  const before = app.model?.photos;
  const same = samePhotos(app.model, model);
  app.setTool(null);
  app.model = model;
  const { header } = model;
  app.opening = initialState(header, { ...app.defaults, fit: model.fit });
  app.state = typeof settings === "string" ? fromFragment(settings, app.opening, header.photos) : settings(app.opening, before, header.photos);
  if (app.file) app.opening.fit = app.file.first; // so that links to other layers contain their number
  app.hovered = null;
  document.title = header.title;
  byId("title").textContent = header.title;
  byId("failures").textContent = header.failures.map((failure) => `${failure.photo}: ${failure.reason}`).join(" · ");
  if (same) app.gallery.take(app.model);
  else {
    app.gallery?.close();
    app.gallery = makeGallery();
  }
  app.model.update(app.state);
  app.emit("load", app.model);
  app.draw();
};

function makeGallery() {
  return new Gallery(byId("gallery"), app.model, {
    foresee: (photo, index) => app.foresee(photo, index),
    hover: (photo, index, box, spoken = false) => app.hover({ photo, index, box, spoken }),
    reach: (photo, index) => app.follow(photo, index),
    leave: () => app.hover(null),
    pin: (photo, index) => app.pin(photo, index),
    open: (photo, double) => app.open(photo, double),
    hide: (photo) => app.hide(photo),
    remove: app.remove,
    arrow: (step, shift) => app.arrow(step, shift),
    divide: (at, by = 0) => app.change({ divide: Math.min(Math.max((at ?? app.state.divide) + by, 0), 1) }),
    download: (photo) => app.report(app.download(photo)),
    pan: (dx, dy) => app.pan(dx, dy),
    zoom: (factor, x, y) => app.zoom(factor, x, y),
    tool: () => app.tool,
  });
}

async function start() {
  const data = byId("message-data");
  let content = data.textContent ? fromBase64(data.textContent) : null;
  data.remove(); // frees megabytes: the arrays have the contents
  content = content ? await readMessage(content) : await openServer(app);
  if (content.header?.carried) app.file = new FileLayers(content);
  for (const part of PARTS) part(app);
  await served(app);
  addEventListener("hashchange", ({ newURL }) => {
    const { hash } = new URL(newURL); // the page may have written its own address since
    if (app.file && app.file.named(hash) !== app.file.shown) app.report(app.openFile(hash));
    else app.change(fromFragment(hash, app.opening, app.model.header.photos));
  });
  await (app.file ? app.openFile(location.hash) : app.load(content, location.hash));
  foldWhatDoesNotFit(byId("panel"));
  await app.gallery.ready;
  document.documentElement.dataset.ready = "true";
  requestAnimationFrame(() => performance.mark("drawn"));
}

// For the browser's console, tests and benchmarks.
globalThis.patchprism = app;
start().catch((error) => {
  document.documentElement.dataset.ready = "failed";
  const text = app.server ? error.message : `This file is damaged or cut short (${error.message}). Write it again with patchprism explore --html.`;
  document.querySelector("main").replaceWith(element("p", { class: "broken", role: "alert" }, text));
  console.error(error);
});
