// "It can be taught": marks on patches, a linear head fitted to them in the page, and what it says shown in all photos.

import { element } from "./dom.js";
import { HeadFit, decisionsOf, markedRows, narrowed, readDecisions, readHead, widened, writeHead } from "./head.js";
import { insideOf } from "./points.js";
import { addSection } from "./sections.js";

const TEACH_C = 10;
const LIVE = 35; // milliseconds of fitting before what there is so far is shown
const QUIET = 250; // milliseconds without a new mark before the server is asked
const MOST_CLASSES = 12;
const MOST_MARKS = 20_000;
const CLASS_COLORS = ["#8a8f9c", "#ffb000", "#00c2a8", "#ff4d6d", "#7c5cff", "#4da3ff", "#b4e33d", "#ff8ad8", "#c97b3d", "#00e5ff", "#f4f1de", "#9b2226"];

export const firstClasses = () => [{ name: "background", color: CLASS_COLORS[0] }, { name: "object", color: CLASS_COLORS[1] }];

const rgbOf = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));

// Marks as a new sorted list, with some patches of one class, or without them where the class is -1.
export function withMarks(marks, patches, k) {
  const all = new Map(marks);
  for (const patch of patches) {
    if (k < 0) all.delete(patch);
    else all.set(patch, k);
  }
  return [...all].sort((a, b) => a[0] - b[0]);
}

export class Teacher {
  constructor(app) {
    this.app = app;
    Object.assign(app.defaults, { marks: [], classes: firstClasses(), teachShown: true });
    this.current = 1;
    this.brush = "paint";
    this.build();
    app.on("load", () => this.load());
    app.on("change", (patch) => {
      if ("marks" in patch || "classes" in patch) this.refit();
      if ("teachShown" in patch) this.show();
    });
    app.on("tool", (tool) => {
      this.start.setAttribute("aria-pressed", String(tool === this.tool));
      this.start.textContent = tool === this.tool ? "Stop marking" : "Mark patches";
    });
  }

  build() {
    const button = (label, act, attributes = {}) => element("button", { type: "button", onclick: act, ...attributes }, label);
    this.list = element("ul", { id: "classes" });
    const { body, aside } = addSection({ id: "teach", title: "Teach", before: "leave" });
    this.said = aside;
    this.note = element("p", { class: "note", id: "teach-note" });
    this.start = button("Mark patches", () => this.app.setTool(this.app.tool === this.tool ? null : this.tool), { id: "teach-start", "aria-pressed": "false", class: "primary" });
    this.brushes = element("fieldset", { class: "segments", "aria-label": "How patches are marked" },
      ...[["paint", "Brush"], ["lasso", "Lasso"], ["erase", "Erase"]].map(([value, label]) =>
        element("label", {}, element("input", { type: "radio", name: "brush", value, checked: value === "paint", onchange: () => (this.brush = value) }), element("span", {}, label))));
    this.shown = element("input", { type: "checkbox", id: "teach-shown", checked: true, onchange: () => this.app.change({ teachShown: this.shown.checked }) });
    this.file = element("input", { type: "file", accept: ".safetensors", class: "hidden-input", id: "head-file", onchange: () => this.app.report(this.take()) });
    this.useIt = button("Use as foreground", () => this.app.report(this.use()), { id: "head-use" });
    this.saveIt = button("Save head", () => this.app.report(this.save()), { id: "head-save" });
    this.masksIt = button("Masks (.zip)", () => this.app.report(this.masks()), { id: "head-masks" });
    this.clear = button("Clear marks", () => this.app.change({ marks: [] }), { id: "teach-clear" });
    body.append(
      this.list,
      element("div", { class: "row" }, this.start, this.brushes, button("Add class", () => this.addClass(), { id: "add-class" })),
      element("div", { class: "row" }, element("label", { class: "inline" }, this.shown, " Show in photos"), this.clear),
      element("div", { class: "row" }, this.useIt, this.saveIt, element("label", { class: "button" }, "Load head", this.file), this.masksIt),
      this.note);
    this.makeTool();
  }

  load() {
    clearTimeout(this.asking);
    this.fit = null;
    this.loaded = null;
    this.result = null;
    this.asked = 0;
    this.refit();
  }

  // -- marks ----------------------------------------------------------------------------------------------------

  makeTool() {
    let stroke = null; // patches of the photo that a drag has touched
    let line = null;
    let photo = -1;
    const { app } = this;
    const path = () => `M${line.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join("L")}`;
    const touch = (at) => {
      if (at.index < 0 || stroke.has(at.index)) return;
      stroke.add(at.index);
      this.put(photo, [at.index], "teach-stroke");
    };
    this.tool = {
      name: "teach",
      cursor: "crosshair",
      down: (at) => {
        photo = at.photo;
        stroke = new Set();
        line = [[at.x, at.y]];
        app.history.cut(); // each stroke is undone by itself
        if (this.brush !== "lasso") touch(at);
      },
      move: (at) => {
        if (!stroke || at.photo !== photo) return;
        if (this.brush !== "lasso") touch(at);
        else {
          line.push([at.x, at.y]);
          app.gallery.ink(photo, "teach", path());
        }
      },
      up: (at) => {
        if (stroke && this.brush === "lasso") {
          app.gallery.ink(photo, "teach", "");
          const [h, w] = app.model.photos[photo].grid;
          const n = h * w;
          const inside = insideOf(line, Float32Array.from({ length: n }, (_, i) => (i % w) + 0.5), Float32Array.from({ length: n }, (_, i) => Math.floor(i / w) + 0.5));
          const found = [...inside.keys()].filter((i) => inside[i]);
          this.put(photo, found.length ? found : at.index >= 0 ? [at.index] : [], "teach-lasso");
        }
        stroke = line = null;
      },
      cancel: () => {
        if (stroke) app.gallery.ink(photo, "teach", "");
        stroke = line = null;
      },
    };
  }

  put(photo, indexes, kind) {
    const { app } = this;
    const { start } = app.model.photos[photo];
    const k = this.brush === "erase" ? -1 : this.current;
    const marks = withMarks(app.state.marks, indexes.map((index) => start + index), k);
    if (marks.length > MOST_MARKS) return app.toast(`There are ${MOST_MARKS.toLocaleString("en")} marks at most.`);
    app.change({ marks }, { kind });
  }

  addClass() {
    const { classes } = this.app.state;
    if (classes.length >= MOST_CLASSES) return this.app.toast(`There are ${MOST_CLASSES} classes at most.`);
    const names = new Set(classes.map(({ name }) => name));
    let n = classes.length;
    while (names.has(`class ${n}`)) n++;
    this.current = classes.length;
    this.app.change({ classes: [...classes, { name: `class ${n}`, color: CLASS_COLORS[classes.length] }] });
  }

  removeClass(k) {
    const { classes, marks } = this.app.state;
    this.current = Math.min(this.current, classes.length - 2);
    this.app.change({
      classes: classes.filter((_, i) => i !== k),
      marks: marks.filter(([, own]) => own !== k).map(([patch, own]) => [patch, own > k ? own - 1 : own]),
    });
  }

  changeClass(k, change) {
    const { classes } = this.app.state;
    const name = change.name?.trim();
    if (name !== undefined && (!name || name.length > 100 || classes.some((each, i) => i !== k && each.name === name))) {
      this.app.toast("Each class needs a name of its own, of up to 100 characters.");
      return this.showClasses();
    }
    this.app.change({ classes: classes.map((each, i) => (i === k ? { ...each, ...change, ...(name ? { name } : {}) } : each)) });
  }

  showClasses() {
    const { classes, marks } = this.app.state;
    const counts = classes.map((_, k) => marks.filter(([, own]) => own === k).length);
    this.current = Math.min(this.current, classes.length - 1);
    this.list.replaceChildren(...classes.map(({ name, color }, k) =>
      element("li", {},
        element("input", { type: "radio", name: "class", "aria-label": `Mark as ${name}`, checked: k === this.current, onchange: () => { this.current = k; if (this.brush === "erase") this.brushes.querySelector("[value=paint]").click(); } }),
        element("input", { type: "color", value: color, "aria-label": `Colour of ${name}`, onchange: (event) => this.changeClass(k, { color: event.target.value }) }),
        element("input", { type: "text", value: name, maxlength: 100, "aria-label": `Name of class ${k + 1}`, onchange: (event) => this.changeClass(k, { name: event.target.value }) }),
        element("span", { class: "count", title: `Marked patches` }, String(counts[k])),
        classes.length > 2 && k > 0
          ? element("button", { type: "button", class: "quiet", "aria-label": `Remove the class ${name}`, onclick: () => this.removeClass(k) }, "×")
          : element("span"))));
    return counts;
  }

  // -- fitting --------------------------------------------------------------------------------------------------

  // Fits to the marks that there are; what takes long goes on after the frame that shows the beginning.
  refit() {
    const { app } = this;
    const { model, state } = app;
    clearTimeout(this.going);
    clearTimeout(this.asking);
    const counts = this.showClasses();
    const total = state.marks.length;
    this.said.textContent = total ? `${total.toLocaleString("en")} mark${total > 1 ? "s" : ""}` : "";
    this.exact = null;
    if (total) this.loaded = null;
    const missing = state.classes.filter((_, k) => !counts[k]).map(({ name }) => name);
    if (this.loaded && !total) this.tell(this.loaded.said);
    else if (missing.length) {
      this.fit = this.result = null;
      this.tell(total ? `Mark a patch of ${missing.join(", ")} as well.` : "Choose a class and mark a few patches of it in any photo, and a few of the background.");
      return this.show();
    } else {
      const { similarity } = model;
      const width = similarity.dims;
      const rows = markedRows(similarity, this.scales, state.marks);
      const start = this.fit?.count === counts.length && this.fit.width === width ? this.fit.at : null;
      this.fit = new HeadFit({ rows, width, classes: state.marks.map(([, k]) => k), count: counts.length, C: TEACH_C, start });
      this.began = performance.now();
      this.goOn();
    }
  }

  get scales() {
    return this.app.model.buffers["token-scales"];
  }

  goOn() {
    const { fit } = this;
    const done = fit.run(LIVE);
    this.milliseconds = performance.now() - this.began;
    this.judge(decisionsOf(fit.head, this.app.model.similarity, this.scales), fit.count);
    if (!done) this.going = setTimeout(() => this.goOn(), 0);
    else if (this.app.server) this.asking = setTimeout(() => this.app.report(this.ask()), QUIET);
    this.tell(done ? `Fitted to ${this.photosOf(this.app.state.marks)} in ${Math.round(this.milliseconds)} ms.` : "Fitting…");
  }

  photosOf(marks) {
    const count = new Set(marks.map(([patch]) => this.app.model.photoOf(patch))).size;
    return `marks in ${count} photo${count > 1 ? "s" : ""}`;
  }

  judge(decisions, K) {
    this.result = { ...readDecisions(decisions, K), K };
    this.show();
  }

  tell(text) {
    if (this.note.textContent !== text) this.note.textContent = text;
  }

  // The server's fit to the full tokens, which is the head that is saved; the page's own is of reduced tokens.
  async ask() {
    const turn = ++this.asked;
    const { state } = this.app;
    const answer = await this.app.server.teach({ classes: state.classes.map(({ name }) => name), marks: state.marks, C: TEACH_C });
    if (turn !== this.asked || this.fit === null) return;
    this.exact = answer;
    this.judge(answer.decisions, state.classes.length);
    this.result.classes = answer.classes;
    this.show();
    this.tell(`Fitted to the full tokens of ${this.photosOf(state.marks)}.`);
  }

  // -- what it says, in the photos --------------------------------------------------------------------------------

  show() {
    const { app, result } = this;
    const { classes, marks, teachShown } = app.state;
    this.shown.checked = teachShown;
    for (const each of [this.useIt, this.saveIt, this.masksIt]) each.disabled = !result;
    this.clear.disabled = !marks.length;
    app.emit("taught", result);
    if (!app.gallery) return;
    if (!teachShown || (!result && !marks.length)) {
      app.gallery.paint("taught", null);
      app.gallery.paint("marked", null);
      return;
    }
    const colors = classes.map(({ color }) => rgbOf(color));
    const rgba = new Uint8ClampedArray(4 * app.model.count);
    if (result) {
      for (let i = 0, at = 0; i < app.model.count; i++, at += 4) {
        const k = result.classes[i];
        // As certain as it is: from half a chance, nothing, to none that it is wrong.
        rgba.set(colors[k] ?? colors[0], at);
        rgba[at + 3] = k ? 40 + 190 * Math.max(0, 2 * result.sure[i] - 1) : 0;
      }
    }
    app.gallery.paint("taught", rgba);
    const dots = new Uint8ClampedArray(4 * app.model.count);
    for (const [patch, k] of marks) dots.set([...colors[k], 255], 4 * patch);
    app.gallery.paint("marked", marks.length ? dots : null);
  }

  // -- files and use --------------------------------------------------------------------------------------------

  // The head of full tokens, as a file.
  bytes() {
    const { app, fit } = this;
    if (this.exact) return this.exact.head;
    if (this.loaded) return this.loaded.bytes;
    const { marks, classes } = app.state;
    const head = widened(fit.head, app.model.buffers["token-axes"]);
    const photos = new Set(marks.map(([patch]) => app.model.photoOf(patch))).size;
    return writeHead({ ...head, classes: classes.map(({ name }) => name), C: TEACH_C, photos, patches: fit.sizes, origin: app.model.header.origin });
  }

  async settled() {
    if (this.fit && !this.fit.done) {
      clearTimeout(this.going);
      this.fit.run();
      this.goOn();
    }
    if (this.app.server && this.fit && !this.exact) {
      clearTimeout(this.asking);
      await this.ask();
    }
  }

  async save() {
    await this.settled();
    const name = this.app.state.classes[1].name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "") || "taught";
    this.app.give(new Blob([this.bytes()], { type: "application/octet-stream" }), `${name}.head.safetensors`);
  }

  async take() {
    const file = this.file.files[0];
    this.file.value = "";
    if (!file) return;
    const { app } = this;
    const bytes = new Uint8Array(await file.arrayBuffer());
    const head = readHead(bytes);
    const { width, name: model } = app.model.header.model;
    if (head.width !== width) throw new Error(`${file.name} was taught on features of width ${head.width}; ${model} has ${width}.`);
    let classes;
    let decisions;
    if (app.server) ({ decisions, classes } = await app.server.applyHead(bytes, head.classes.length));
    else decisions = decisionsOf(narrowed(head, app.model.buffers["token-axes"]), app.model.similarity, this.scales);
    app.change({ marks: [], classes: head.classes.map((each, k) => ({ name: each, color: CLASS_COLORS[k % CLASS_COLORS.length] })) });
    this.fit = null;
    const other = head.origin?.weights?.sha256 && app.model.header.origin?.weights?.sha256 && head.origin.weights.sha256 !== app.model.header.origin.weights.sha256;
    this.loaded = { bytes, said: `${file.name}: taught on ${head.photos} photo${head.photos > 1 ? "s" : ""}.${other ? " It was taught with other weights than those shown here." : ""} New marks begin a new head.` };
    this.judge(decisions, head.classes.length);
    if (classes) this.result.classes = classes;
    this.show();
    this.tell(this.loaded.said);
  }

  async use() {
    await this.settled();
    await this.app.useHead(this.bytes(), this.result);
  }

  async masks() {
    await this.settled();
    await this.app.exportMasks(this.result.classes, this.app.state.classes.map(({ name }) => name));
  }
}
