// Functions of the served page only: adding photos, another model, another fit, saving.

import { byId } from "./dom.js";
import { Server } from "./server.js";
import { METHODS } from "./words.js";

const BUTTONS = ["refit", "save", "model", "method", "files"];

export function showJob(job) {
  byId("job").hidden = !job;
  if (!job) return;
  const progress = byId("job-progress");
  if (job.total) {
    progress.max = job.total;
    progress.value = job.done;
  } else progress.removeAttribute("value");
  byId("job-text").textContent = job.state === "queued" ? "waiting for its turn" : job.total ? `${job.stage}: ${job.done} of ${job.total}` : (job.stage ?? "");
}

// The patch at the same place in another grid.
function movedPatch(patch, before, after) {
  if (!patch) return null;
  const [old, grid] = [before[patch.photo].grid, after[patch.photo]?.grid];
  if (!grid) return null;
  const row = Math.floor(((Math.floor(patch.index / old[1]) + 0.5) / old[0]) * grid[0]);
  const column = Math.floor((((patch.index % old[1]) + 0.5) / old[1]) * grid[1]);
  return { photo: patch.photo, index: row * grid[1] + column };
}

// Moves marks [[patch, class], ...], whose patches are counted over all photos. moved(patch of a photo) returns the new patch.
function movedMarks(marks, before, moved, after) {
  const found = new Map();
  for (const [patch, k] of marks) {
    const photo = before.findLastIndex(({ start }) => start <= patch);
    const there = moved({ photo, index: patch - before[photo].start });
    if (there) found.set(startOf(after, there.photo) + there.index, k);
  }
  return [...found].sort((a, b) => a[0] - b[0]);
}

const startOf = (photos, photo) => photos.slice(0, photo).reduce((sum, { grid }) => sum + grid[0] * grid[1], 0);

// The part of the state that stays when another fit is shown: everything except threshold, side and colours, which belong to
// one fit. Pins stay at their places in the photos. removed: rows of the photos that were removed. elsewhere: whether the other
// fit is of another model or layer, whose colours are turned to agree.
export function keptState(state, opening, before, after, { removed = [], elsewhere = false } = {}) {
  const { threshold, side, components, scaling, space } = opening;
  const kept = { ...state, threshold, side, ...(elsewhere ? {} : { components, scaling, space }) };
  if (state.basis === "all" && state.side === "none") kept.side = "none";
  const row = (photo) => (removed.includes(photo) ? -1 : photo - removed.filter((other) => other < photo).length);
  const grids = [];
  before.forEach((photo, i) => row(i) >= 0 && (grids[row(i)] = photo));
  const moved = (patch) => patch && row(patch.photo) >= 0 ? movedPatch({ ...patch, photo: row(patch.photo) }, grids, after) : null;
  kept.pins = state.pins.map(moved).filter(Boolean);
  kept.held = moved(state.held);
  kept.hidden = state.hidden.map(row).filter((photo) => photo >= 0);
  kept.single = state.single !== null && row(state.single) >= 0 ? row(state.single) : null;
  kept.marks = movedMarks(state.marks, before, moved, after);
  return kept;
}

const sameFit = ({ threshold, side, components, scaling, space }) => ({ threshold, side, components, scaling, space });

// Connects to the server. A link may name the session whose fit it shows.
export async function openServer(app) {
  app.server = new Server();
  const given = new URLSearchParams(location.hash.slice(1));
  await app.server.open(given.get("v"));
  return app.server.message();
}

export async function served(app) {
  const { server } = app;
  if (!server) return;
  byId("work").hidden = false;
  const { models } = await server.json("GET", "/models");
  app.models = models;
  const choose = byId("model");
  choose.replaceChildren(...models.map((name) => new Option(name, name)));

  const methods = byId("method");
  methods.replaceChildren(...server.limits.foregrounds.map((name) => new Option(METHODS[name] ?? name, name)));
  byId("method-row").hidden = false;
  methods.onchange = () => work({ foreground: methods.value, threshold: "auto" });

  // Runs one task of the server at a time.
  const busy = async (does) => {
    if (app.working) return;
    app.working = true;
    byId("message").textContent = "";
    for (const id of BUTTONS) byId(id).disabled = true;
    try {
      await does();
    } catch (error) {
      byId("message").textContent = error.message;
    } finally {
      app.working = false;
      showJob(null);
      for (const id of BUTTONS) byId(id).disabled = false;
      showFit();
    }
  };
  // Requests a fit and shows the result. request.same: whether it is the same fit with other photos. start: starts the work.
  // more: further changes of the state.
  const work = (request, { start = () => server.fit(request, showJob), more = {} } = {}) => busy(async () => {
    await start();
    const before = { ...app.state };
    const content = await server.message();
    const moved = Object.keys(request).length > 0 && Object.keys(request).every((key) => key === "model" || key === "layer");
    await app.load(content, (opening, old, now) => ({
      ...keptState(before, opening, old, now, { removed: request.without, elsewhere: moved }), ...(request.same && sameFit(before)), ...more, fit: opening.fit,
    }));
    if (!moved) app.history.cut();
    app.history.note(before, moved ? "moved" : "fit");
    app.schedule("view");
  });
  app.work = work;
  // Requests a fit that is shown beside the present one; returns its number.
  app.fitAside = async (request) => {
    let fit = null;
    await busy(async () => (fit = (await server.fit({ ...request, aside: true }, showJob)).fit));
    return fit;
  };
  app.remove = (photo) => work({ without: [photo] });
  // Shows the fit of an earlier state, for undo and redo. The server keeps a few fits.
  app.goToFit = async (state) => {
    // A fit of another layer can be made again if it is no longer kept, as long as the present fit has the same root.
    const known = app.fits.get(state.fit);
    if (known?.root === app.model.root && known.layer !== undefined) {
      await server.fit({ model: known.model, layer: known.layer }, showJob);
      showJob(null);
    } else await server.back(state.fit);
    await app.load(await server.message(), (opening) => ({ ...state, fit: opening.fit }));
  };

  const addPhotos = async (files) => {
    const refused = [];
    let added = 0;
    for (const [i, file] of files.entries()) {
      showJob({ state: "running", stage: "photos sent", done: i, total: files.length });
      try {
        await server.upload(file);
        added++;
      } catch (error) {
        refused.push(error.message);
      }
    }
    showJob(null);
    if (added) await work({});
    byId("message").textContent = [byId("message").textContent, ...refused].filter(Boolean).join(" · ");
  };
  const fitRequest = () => {
    const { threshold, side, scaling, components, space } = app.state;
    // Scores along a foreground direction belong to one fit, and its side is always "above"; so the method is kept.
    const { method: fitted } = app.model.header.fit;
    const method = ["object", "mask"].includes(fitted) && side !== "none" ? fitted : side;
    return { threshold: side === "none" ? "auto" : threshold, foreground: method, scaling, components, space };
  };
  const save = async () => {
    const { threshold, side, opening, closing, scaling, components, space, background, basis, mode, alpha } = app.state;
    const request = { mask_threshold: threshold, mask_side: side, opening, closing, scaling, components, space, background, basis };
    if (mode === "overlay") request.overlay = alpha;
    const { folder, files } = await server.save(request);
    app.toast(`Saved ${files} files to ${folder}`);
  };
  byId("files").onchange = (event) => {
    addPhotos([...event.target.files]);
    event.target.value = "";
  };
  choose.onchange = () => work({ model: choose.value });
  const showFit = () => {
    const { model, command } = app.model.header;
    choose.value = model.name;
    const known = [...methods.options].some((option) => option.value === command.foreground);
    if (!known) methods.add(new Option(METHODS[command.foreground] ?? command.foreground, command.foreground));
    methods.value = command.foreground;
  };
  app.on("load", showFit);
  byId("refit").onclick = () => work(fitRequest());
  byId("job-stop").onclick = () => app.report(server.stop());
  byId("save").onclick = () => app.report(save());
  if (!server.limits.save) byId("save").hidden = true;
  listenDrop(addPhotos);
}

function listenDrop(addPhotos) {
  let depth = 0;
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragenter", (event) => {
    if (!files(event)) return;
    depth++;
    byId("drop").hidden = false;
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) byId("drop").hidden = true;
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    byId("drop").hidden = true;
    if (event.dataTransfer.files.length) addPhotos([...event.dataTransfer.files]);
  });
}
