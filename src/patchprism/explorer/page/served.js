// What only the served page can do: more photos, another model, another fit, saving.

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

// The same patch in another grid: by where it lies.
function movedPatch(patch, before, after) {
  if (!patch) return null;
  const [old, grid] = [before[patch.photo].grid, after[patch.photo]?.grid];
  if (!grid) return null;
  const row = Math.floor(((Math.floor(patch.index / old[1]) + 0.5) / old[0]) * grid[0]);
  const column = Math.floor((((patch.index % old[1]) + 0.5) / old[1]) * grid[1]);
  return { photo: patch.photo, index: row * grid[1] + column };
}

// Marks [[patch, class], ...] whose patches are counted over all photos; moved(patch of a photo) says where each went.
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

// What stays of a view when another fit is shown: everything but its threshold, side and colours, which were the
// other fit's. Pins stay on what they were set on. removed: rows of the photos that were left out. elsewhere: whether
// the other fit is of another model or layer, whose colours are turned to agree.
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

  // One thing that the server computes at a time.
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
  // Asks for a fit and shows what comes.
  // wish.same: whether it is the same fit, of other photos. start: what begins the fit. more: what else the view is set to then.
  const work = (wish, { start = () => server.fit(wish, showJob), more = {} } = {}) => busy(async () => {
    await start();
    const before = { ...app.state };
    const content = await server.message();
    const moved = Object.keys(wish).length > 0 && Object.keys(wish).every((key) => key === "model" || key === "layer");
    await app.load(content, (opening, old, now) => ({
      ...keptState(before, opening, old, now, { removed: wish.without, elsewhere: moved }), ...(wish.same && sameFit(before)), ...more, fit: opening.fit,
    }));
    if (!moved) app.history.cut();
    app.history.note(before, moved ? "moved" : "fit");
    app.schedule("view");
  });
  app.work = work;
  // Another fit to show beside this one: its number. done is called when the server is free again.
  app.fitAside = async (wish) => {
    let fit = null;
    await busy(async () => (fit = (await server.fit({ ...wish, aside: true }, showJob)).fit));
    return fit;
  };
  app.remove = (photo) => work({ without: [photo] });
  // Undo and redo over a fit: the server keeps a few.
  app.goToFit = async (state) => {
    // One of another layer is made again if it is not kept, as long as the fit that it came from is there.
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
  const fitWish = () => {
    const { threshold, side, scaling, components, space } = app.state;
    // Scores along a foreground direction are those of its fit alone; its side is always above.
    const { method: fitted } = app.model.header.fit;
    const method = ["object", "mask"].includes(fitted) && side !== "none" ? fitted : side;
    return { threshold: side === "none" ? "auto" : threshold, foreground: method, scaling, components, space };
  };
  const save = async () => {
    const { threshold, side, opening, closing, scaling, components, space, background, basis, mode, alpha } = app.state;
    const wish = { mask_threshold: threshold, mask_side: side, opening, closing, scaling, components, space, background, basis };
    if (mode === "overlay") wish.overlay = alpha;
    const { folder, files } = await server.save(wish);
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
  byId("refit").onclick = () => work(fitWish());
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
