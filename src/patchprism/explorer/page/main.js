// Puts the page together: state, model, photos, controls; and, when served, the server.

import { fromBase64, readMessage } from "./message.js";
import { Model } from "./model.js";
import { encodePng } from "./png.js";
import { BACKGROUNDS, MODES, PRISM_NAME, commandText, fromFragment, initialState, needsOwnPrism, toFragment } from "./state.js";
import { Gallery } from "./view.js";
import { Panel } from "./panel.js";
import { Server } from "./server.js";

const $ = (id) => document.getElementById(id);
const MAX_PINS = 8;

class App {
  constructor() {
    const data = $("message-data");
    this.content = data.textContent ? fromBase64(data.textContent) : null;
    data.remove(); // its megabytes are in the arrays now
    this.server = this.content ? null : new Server();
    this.links = [];
    this.stale = {};
    this.soon = new MessageChannel(); // a task at once, where timers wait
    this.soon.port1.onmessage = () => {
      const query = this.foreseen;
      this.foreseen = undefined;
      if (query < this.model.count) this.model.similarity.of(query);
    };
  }

  async start() {
    if (this.server) {
      await this.server.open();
      this.content = await this.server.message();
      await this.setUpServer();
    }
    this.listen();
    await this.load(this.content, location.hash);
    this.content = null;
    await this.gallery.ready;
    document.documentElement.dataset.ready = "true";
    requestAnimationFrame(() => performance.mark("drawn"));
  }

  // Shows a message; `settings` is a fragment, or a state to carry over.
  async load(content, settings) {
    const message = await readMessage(content);
    this.gallery?.close();
    this.panel?.close();
    this.model = new Model(message);
    const { header } = message;
    this.opening = initialState(header);
    this.state = typeof settings === "string" ? fromFragment(settings, this.opening, header.photos) : { ...this.opening, ...settings };
    document.title = header.title;
    $("title").textContent = header.title;
    $("hints").textContent = (header.hints ?? []).map((hint) => `Hint: ${hint}.`).join(" ");
    $("failures").textContent = header.failures.map((failure) => `${failure.photo}: ${failure.reason}`).join(" · ");
    this.gallery = new Gallery($("gallery"), $("lines"), this.model, {
      foresee: (photo, index) => this.foresee(photo, index),
      hover: (photo, index, spoken) => this.hover(photo, index, spoken),
      leave: () => this.leave(),
      pin: (photo, index) => this.pin(photo, index),
      download: (index) => this.report(this.downloadPicture(index)),
      pan: (dx, dy) => this.pan(dx, dy),
      zoom: (factor, x, y) => this.zoom(factor, x, y),
    });
    this.panel = new Panel(this.model, this.opening, {
      change: (patch) => this.change(patch),
      unpin: (i) => this.change({ pins: this.state.pins.filter((_, k) => k !== i) }),
    });
    this.gallery.place(this.state);
    this.linkPins();
    this.draw();
  }

  change(patch) {
    Object.assign(this.state, patch);
    if (patch.pins) this.linkPins();
    if ("zoom" in patch) this.gallery.place(this.state);
    if (patch.heat === false) this.gallery.drawHeat(null);
    this.schedule("view");
  }

  // All that happens between two frames is drawn once.
  schedule(what) {
    this.stale[what] = true;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      const { view, hover } = this.stale;
      this.stale = {};
      if (view) this.draw();
      if (hover) this.drawHover();
    });
  }

  draw() {
    this.model.update(this.state);
    this.gallery.draw(this.state);
    this.panel.show(this.state);
    this.showLater();
  }

  // What need not follow the hand: the address and the command.
  showLater() {
    clearTimeout(this.later);
    this.later = setTimeout(() => this.showAddress(), 120);
  }

  showAddress() {
    clearTimeout(this.later);
    const fragment = toFragment(this.state, this.opening);
    try {
      history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search);
    } catch {
      // a frame in a notebook has no address of its own
    }
    const { header } = this.model;
    $("command").textContent = commandText(header, this.state);
    $("command-note").textContent = !header.command.files
      ? "Some photos came without a file; put their files’ names in place of those above."
      : needsOwnPrism(header, this.state)
        ? `Download the prism first: the command reads ${PRISM_NAME}.`
        : "";
    // What people would not expect of a picture that has the photo in it.
    $("picture-note").textContent =
      !this.server && this.showsPhoto()
        ? "This file holds smaller, compressed copies of the photos. Pictures with the photo in them are made of these, enlarged to the photo’s size; the command below takes the photos themselves."
        : "";
    $("zoom-value").textContent = `${Math.round(100 * this.state.zoom)} %`;
  }

  // -- hover and pins -----------------------------------------------------------------------------------------

  hover(photo, index, spoken = false) {
    this.hovered = { photo, index, spoken };
    this.schedule("hover");
  }

  // Similarities of the patch that the pointer has reached, in a task of their own before the frame that shows
  // them; of several patches passed since the last task, only the latest.
  foresee(photo, index) {
    if (!this.state.heat) return;
    const asked = this.foreseen !== undefined;
    this.foreseen = this.model.photos[photo].start + index;
    if (!asked) this.soon.port2.postMessage(null);
  }

  leave() {
    this.hovered = null;
    this.schedule("hover");
  }

  drawHover() {
    const { hovered } = this;
    if (!hovered) {
      this.gallery.drawHeat(null);
      this.gallery.drawCursor(-1, 0);
      $("similar").textContent = "";
      return;
    }
    const { photo, index } = hovered;
    this.gallery.drawCursor(photo, index);
    if (this.state.heat) this.gallery.drawHeat(this.model.similarity.of(this.model.photos[photo].start + index));
    const [, w] = this.model.photos[photo].grid;
    const at = this.model.photos[photo].start + index;
    const text = `row ${Math.floor(index / w) + 1}, column ${(index % w) + 1} · score ${this.model.scores[at].toFixed(2)}`;
    $("similar").textContent = text;
    if (hovered.spoken) {
      const best = this.model.matches({ photo, index }).map((match) => `${this.model.photos[match.photo].name} ${match.value.toFixed(2)}`);
      hovered.spoken = false; // once a move, not once a frame
      $("live").textContent = `${text}, ${this.model.mask[at] ? "foreground" : "background"}. Best matches: ${best.join(", ") || "no other photo"}`;
    }
  }

  pin(photo, index) {
    const known = this.state.pins.findIndex((pin) => pin.photo === photo && pin.index === index);
    const pins = known >= 0 ? this.state.pins.filter((_, i) => i !== known) : [...this.state.pins, { photo, index }].slice(-MAX_PINS);
    this.change({ pins });
    if (this.hovered) this.hovered.spoken = false; // the next frame must not speak over what is said here
    $("live").textContent = known >= 0 ? "Pin removed." : `Pinned. ${pins.length} pins.`;
  }

  linkPins() {
    this.links = this.state.pins.map((pin) => ({ pin, matches: this.model.matches(pin) }));
    this.gallery.drawPins(this.links);
    this.panel.showPins(this.links);
  }

  pan(dx, dy) {
    const { zoom } = this.state;
    if (zoom === 1) return;
    this.change({ zoom, panX: this.inside(this.state.panX - dx / zoom), panY: this.inside(this.state.panY - dy / zoom) });
  }

  inside(centre, zoom = this.state.zoom) {
    return Math.min(Math.max(centre, 0.5 / zoom), 1 - 0.5 / zoom);
  }

  // Zooms about a point of the frame, which stays where it is.
  zoom(factor, x = 0.5, y = 0.5) {
    const before = this.state.zoom;
    const zoom = Math.min(Math.max(before * factor, 1), 16);
    const move = (centre, at) => this.inside(centre + (at - 0.5) / before - (at - 0.5) / zoom, zoom);
    this.change({ zoom, panX: move(this.state.panX, x), panY: move(this.state.panY, y) });
  }

  // -- taking away --------------------------------------------------------------------------------------------

  async report(promise) {
    try {
      await promise;
    } catch (error) {
      this.toast(error.message);
    }
  }

  toast(text) {
    const toast = $("toast");
    toast.textContent = text;
    toast.classList.add("seen");
    clearTimeout(this.toastTimer);
    this.toastTimer = setTimeout(() => toast.classList.remove("seen"), 4000);
  }

  give(blob, name) {
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(blob);
    anchor.download = name;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
  }

  // The photo's pixels at its own resolution: the server's, or the page's smaller copy enlarged.
  async pixels(index) {
    const [height, width] = this.model.photos[index].size;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#123456";
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
    if (Math.max(Math.abs(red - 0x12), Math.abs(green - 0x34), Math.abs(blue - 0x56)) > 8) {
      throw new Error("This browser guards against fingerprinting and gives noise for the photo’s pixels. The command below makes the picture.");
    }
    let image = this.gallery.tiles[index].image;
    if (this.server) image = await createImageBitmap(await this.server.photo(index), { colorSpaceConversion: "none" });
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }

  showsPhoto() {
    const { mode, background } = this.state;
    return mode === "photo" || mode === "overlay" || (mode === "colours" && background === "photo");
  }

  async picture(index) {
    const { state } = this;
    const { size } = this.model.photos[index];
    const over = this.showsPhoto();
    this.model.update(state);
    const data = this.model.picture(index, state, size, over ? await this.pixels(index) : null);
    return encodePng(data, size[1], size[0]);
  }

  async downloadPicture(index) {
    const stem = this.model.photos[index].name.replace(/\.[^.]+$/, "");
    this.give(await this.picture(index), `${stem}.${{ photo: "photo", colours: "pca", overlay: "overlay", score: "score" }[this.state.mode]}.png`);
  }

  async downloadAll() {
    for (let i = 0; i < this.model.photos.length; i++) {
      await this.downloadPicture(i);
      await new Promise((resolve) => setTimeout(resolve, 150)); // browsers drop downloads that come at once
    }
  }

  async copy(text, told) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea"); // a file has no clipboard in some browsers
      area.value = text;
      document.body.append(area);
      area.select();
      if (!document.execCommand("copy")) told = "This browser does not let the page copy.";
      area.remove();
    }
    this.toast(told);
  }

  // -- everything that is pressed -----------------------------------------------------------------------------

  listen() {
    $("zoom-in").onclick = () => this.zoom(1.5);
    $("zoom-out").onclick = () => this.zoom(1 / 1.5);
    $("zoom-reset").onclick = () => this.change({ zoom: 1, panX: 0.5, panY: 0.5 });
    $("clear-pins").onclick = () => this.change({ pins: [] });
    $("copy").onclick = () => {
      this.showAddress();
      this.copy($("command").textContent, "The command is copied.");
    };
    $("link").onclick = () => {
      this.showAddress();
      this.copy(location.href, "The link to this view is copied.");
    };
    $("download-all").onclick = () => this.report(this.downloadAll());
    $("download-prism").onclick = () => {
      const blob = new Blob([this.model.prism(this.state)], { type: "application/octet-stream" });
      this.give(blob, PRISM_NAME);
    };
    $("help").onclick = () => $("keys").showModal();
    $("theme").onclick = () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      this.panel.histogramColors = null;
      this.panel.drawHistogram();
    };
    addEventListener("hashchange", () => {
      const state = fromFragment(location.hash, this.opening, this.model.header.photos);
      this.change(state);
    });
    addEventListener("keydown", (event) => this.key(event));
    const redraw = () => this.gallery?.drawLines();
    addEventListener("scroll", redraw, { passive: true, capture: true });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    if (event.target.matches("select, textarea, input[type=text], input[type=file]")) return;
    const next = (list, value) => list[(list.indexOf(value) + 1) % list.length];
    const { state } = this;
    const step = (by) => ({ threshold: Math.round(1000 * Math.min(Math.max(state.threshold + by, 0), 1)) / 1000 });
    const does = {
      1: () => this.change({ mode: MODES[0] }),
      2: () => this.change({ mode: MODES[1] }),
      3: () => this.change({ mode: MODES[2] }),
      4: () => this.change({ mode: MODES[3] }),
      "[": () => this.change(step(-0.01)),
      "]": () => this.change(step(0.01)),
      b: () => this.change({ background: next(BACKGROUNDS, state.background) }),
      h: () => this.change({ heat: !state.heat }),
      s: () => this.change({ smooth: !state.smooth }),
      "+": () => this.zoom(1.5),
      "=": () => this.zoom(1.5),
      "-": () => this.zoom(1 / 1.5),
      0: () => this.change({ zoom: 1, panX: 0.5, panY: 0.5 }),
      "?": () => $("keys").showModal(),
      Escape: () => this.change({ pins: [] }),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  // -- the server ---------------------------------------------------------------------------------------------

  async setUpServer() {
    const { server } = this;
    $("work").hidden = false;
    const models = (await server.json("GET", "/models")).models;
    $("model").replaceChildren(...models.map((name) => new Option(name, name)));
    $("files").onchange = (event) => {
      this.addPhotos([...event.target.files]);
      event.target.value = "";
    };
    $("model").onchange = () => this.work({ model: $("model").value });
    $("refit").onclick = () => this.work({ ...this.fitWish() });
    $("job-stop").onclick = () => this.report(server.stop());
    $("save").onclick = () => this.report(this.save());
    if (!server.limits.save) $("save").hidden = true;
    let depth = 0;
    const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    addEventListener("dragenter", (event) => {
      if (!files(event)) return;
      depth++;
      $("drop").hidden = false;
    });
    addEventListener("dragleave", () => {
      depth = Math.max(0, depth - 1);
      if (!depth) $("drop").hidden = true;
    });
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      depth = 0;
      $("drop").hidden = true;
      if (event.dataTransfer.files.length) this.addPhotos([...event.dataTransfer.files]);
    });
  }

  fitWish() {
    const { threshold, side, scaling, components, space } = this.state;
    // Scores along a foreground direction are those of its fit alone; its side is always above.
    const method = this.model.header.fit.method === "object" && side !== "none" ? "object" : side;
    return { threshold: side === "none" ? "auto" : threshold, foreground: method, scaling, components, space };
  }

  async addPhotos(files) {
    const refused = [];
    let added = 0;
    for (const [i, file] of files.entries()) {
      this.showJob({ state: "running", stage: "photos sent", done: i, total: files.length });
      try {
        await this.server.upload(file);
        added++;
      } catch (error) {
        refused.push(error.message);
      }
    }
    this.showJob(null);
    if (added) await this.work({});
    $("message").textContent = [$("message").textContent, ...refused].filter(Boolean).join(" · ");
  }

  // Asks for a fit and shows what comes; what the user has set stays, as far as it still makes sense.
  async work(wish) {
    if (this.working) return;
    this.working = true;
    $("message").textContent = "";
    for (const id of ["refit", "save", "model", "files"]) $(id).disabled = true;
    try {
      await this.server.fit(wish, (job) => this.showJob(job));
      const { mode, background, alpha, smooth, heat, basis, zoom, panX, panY } = this.state;
      const kept = { mode, background, alpha, smooth, heat, basis, zoom, panX, panY };
      if ("threshold" in wish) Object.assign(kept, { opening: this.state.opening, closing: this.state.closing });
      await this.load(await this.server.message(), kept);
    } catch (error) {
      $("message").textContent = error.message;
    } finally {
      this.working = false;
      this.showJob(null);
      for (const id of ["refit", "save", "model", "files"]) $(id).disabled = false;
      $("model").value = this.model.header.model.name;
    }
  }

  showJob(job) {
    $("job").hidden = !job;
    if (!job) return;
    const progress = $("job-progress");
    if (job.total) {
      progress.max = job.total;
      progress.value = job.done;
    } else progress.removeAttribute("value");
    $("job-text").textContent = job.state === "queued" ? "waiting for its turn" : job.total ? `${job.stage}: ${job.done} of ${job.total}` : (job.stage ?? "");
  }

  async save() {
    const { threshold, side, opening, closing, scaling, components, space, background, basis, mode, alpha } = this.state;
    const wish = { mask_threshold: threshold, mask_side: side, opening, closing, scaling, components, space, background, basis };
    if (mode === "overlay") wish.overlay = alpha;
    const { folder, files } = await this.server.save(wish);
    this.toast(`Saved ${files} files to ${folder}`);
  }
}

const app = new App();
// For whoever wants to look inside from the browser's console, tests and benchmarks among them.
globalThis.patchprism = app;
app.start().then(
  () => {
    if (app.server) $("model").value = app.model.header.model.name;
  },
  (error) => {
    document.documentElement.dataset.ready = "failed";
    $("about").textContent = error.message;
    console.error(error);
  },
);
