// What only the served page can do: more photos, another model, another fit, saving.

import { byId } from "./dom.js";
import { Server } from "./server.js";

const BUTTONS = ["refit", "save", "model", "files"];

function showJob(job) {
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

// What stays of a view when another fit is shown: everything but its threshold, side and colours, which were the
// other fit's. Pins stay on what they were set on.
export function keptState(state, opening, before, after) {
  const { threshold, side, components, scaling, space } = opening;
  const kept = { ...state, threshold, side, components, scaling, space };
  kept.pins = state.pins.map((pin) => movedPatch(pin, before, after)).filter(Boolean);
  kept.held = movedPatch(state.held, before, after);
  return kept;
}

export async function openServer(app) {
  app.server = new Server();
  await app.server.open();
  return app.server.message();
}

export async function served(app) {
  const { server } = app;
  if (!server) return;
  byId("work").hidden = false;
  const { models } = await server.json("GET", "/models");
  const choose = byId("model");
  choose.replaceChildren(...models.map((name) => new Option(name, name)));

  // Asks for a fit and shows what comes.
  const work = async (wish) => {
    if (app.working) return;
    app.working = true;
    byId("message").textContent = "";
    for (const id of BUTTONS) byId(id).disabled = true;
    try {
      await server.fit(wish, showJob);
      await app.load(await server.message(), (opening, before, after) => keptState(app.state, opening, before, after));
    } catch (error) {
      byId("message").textContent = error.message;
    } finally {
      app.working = false;
      showJob(null);
      for (const id of BUTTONS) byId(id).disabled = false;
      choose.value = app.model.header.model.name;
    }
  };
  app.work = work;

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
    // Scores along a foreground direction, or of a head, are those of its fit alone; their side is always above.
    const found = app.model.header.fit.method;
    const method = (found === "object" || found === "mask") && side !== "none" ? found : side;
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
  app.on("load", (model) => (choose.value = model.header.model.name));
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
