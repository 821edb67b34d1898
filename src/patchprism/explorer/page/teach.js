// Teaching: marks on patches, a linear head that is fitted to them in the page, and its result in all photos.

import { element, setText } from "./dom.js";
import { HEAD_NAME, decisionsOf, markedRows, narrowed, readDecisions, readHead, widened, writeHead } from "./head.js";
import { HeadFit } from "./headfit.js";
import { CLASS_COLORS, MOST_CLASSES, MOST_MARKS, firstClasses, readClasses, readMarks, withMarks, writeClasses, writeMarks } from "./marks.js";
import { insideOf } from "./points.js";
import { addSection } from "./sections.js";
import { linked } from "./state.js";

const TEACH_C = 10;
const LIVE = 6; // milliseconds of fitting before the preliminary result is shown
const QUIET = 250; // milliseconds after the last mark before the server is asked

const rgbOf = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));

export class Teacher {
  constructor(app) {
    this.app = app;
    Object.assign(app.defaults, { marks: [], classes: firstClasses(), teachShown: true, headForeground: false });
    linked.set("marks", { write: writeMarks, read: readMarks });
    linked.set("classes", { write: writeClasses, read: readClasses });
    linked.set("headForeground", { write: (value) => (value ? "1" : ""), read: (text) => text === "1" });
    this.current = 1;
    this.brush = "paint";
    this.build();
    app.on("load", () => this.load());
    app.on("change", (patch) => {
      if ("marks" in patch || "classes" in patch) this.stale = true; // fitted once per frame
      else if ("teachShown" in patch || "headForeground" in patch) this.show();
    });
    app.on("draw", () => this.stale && this.refit());
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
    this.saveIt = button("Save head", () => this.app.report(this.save()), { id: "head-save", title: "Save a file for patchprism render --head, for videos, and for this page" });
    this.masksIt = button("Masks (.zip)", () => this.app.report(this.masks()), { id: "head-masks", title: "Masks of the classes: one PNG per photo, and a COCO file" });
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
    this.fit = this.result = this.exact = null;
    this.asked = (this.asked ?? 0) + 1;
    this.refit();
    if (this.loaded) this.app.report(this.apply(this.loaded));
  }

  // -- marks ----------------------------------------------------------------------------------------------------

  makeTool() {
    let stroke = null; // the patches that a drag has touched
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
        app.history.cut(); // so that undo removes one stroke at a time
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
    const { start } = this.app.model.photos[photo];
    this.mark(indexes.map((index) => start + index), kind, this.brush === "erase" ? -1 : this.current);
  }

  // Marks patches, counted over all photos, as a class; returns false if there are too many.
  mark(patches, kind, k = this.current) {
    const { app } = this;
    const marks = withMarks(app.state.marks, patches, k);
    if (marks.length > MOST_MARKS) {
      app.toast(`There can be at most ${MOST_MARKS.toLocaleString("en")} marks.`);
      return false;
    }
    app.change({ marks }, { kind });
    return true;
  }

  addClass() {
    const { classes } = this.app.state;
    if (classes.length >= MOST_CLASSES) return this.app.toast(`There can be at most ${MOST_CLASSES} classes.`);
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
      this.app.toast("Each class needs a different name of up to 100 characters.");
      return this.showClasses();
    }
    this.app.change({ classes: classes.map((each, i) => (i === k ? { ...each, ...change, ...(name ? { name } : {}) } : each)) });
  }

  showClasses() {
    const { classes, marks } = this.app.state;
    const counts = new Array(classes.length).fill(0);
    for (const [, own] of marks) counts[own]++;
    if (classes === this.listed && this.list.children[this.current]?.querySelector("input").checked) {
      [...this.list.querySelectorAll(".count")].forEach((node, k) => setText(node, String(counts[k])));
      return counts;
    }
    this.listed = classes;
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

  // Starts a fit to the marks. A long fit continues after the frame that shows its first result.
  refit() {
    const { app } = this;
    const { model, state } = app;
    this.stale = false;
    // A link may come from anywhere, so marks of unknown classes are dropped.
    if (state.marks.some(([, k]) => k >= state.classes.length)) state.marks = state.marks.filter(([, k]) => k < state.classes.length);
    clearTimeout(this.going);
    clearTimeout(this.asking);
    const counts = this.showClasses();
    const total = state.marks.length;
    this.said.textContent = total ? `${total.toLocaleString("en")} mark${total > 1 ? "s" : ""}` : "";
    this.exact = null;
    this.asked++;
    if (total) this.loaded = null;
    const missing = state.classes.filter((_, k) => !counts[k]).map(({ name }) => name);
    if (this.loaded && !total) this.tell(this.loaded.said);
    else if (missing.length) {
      this.fit = this.result = null;
      if (state.headForeground) return app.change({ headForeground: false }, { remember: false });
      this.tell(total ? `Mark a patch of ${missing.join(", ")} as well.` : "Choose a class and mark a few patches of it in any photo, and a few of the background.");
      return this.show();
    } else {
      const { similarity } = model;
      const width = similarity.dims;
      const rows = markedRows(similarity, state.marks);
      const like = this.fit?.count === counts.length && this.fit.width === width ? this.fit : null;
      this.fit = new HeadFit({ rows, scales: this.scales, width, classes: state.marks.map(([, k]) => k), count: counts.length, C: TEACH_C, like });
      this.began = performance.now();
      this.show(); // shows the marks in this frame; the fit starts after it
      this.going = setTimeout(() => this.goOn(), 0);
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

  // Shows the result of decisions. exact: score and classes from the server.
  judge(decisions, K, exact = {}) {
    const { score, classes } = exact;
    this.result = { ...readDecisions(decisions, K), ...(score && { score, classes }) };
    this.show();
  }

  tell(text) {
    setText(this.note, text);
  }

  // Has the server fit a head to the full tokens, which is the head that is saved. The page uses reduced tokens.
  async ask() {
    const turn = ++this.asked;
    const { state } = this.app;
    const answer = await this.app.server.teach({ classes: state.classes.map(({ name }) => name), marks: state.marks, C: TEACH_C });
    if (turn !== this.asked || this.fit === null) return;
    this.exact = answer;
    this.judge(answer.decisions, state.classes.length, answer);
    this.tell(`Fitted to the full tokens of ${this.photosOf(state.marks)}.`);
  }

  // -- the result in the photos -----------------------------------------------------------------------------------

  show() {
    const { app, result } = this;
    const { classes, marks, teachShown, headForeground } = app.state;
    this.shown.checked = teachShown;
    this.useIt.textContent = headForeground ? "Use the fit’s foreground" : "Use as foreground";
    const scores = headForeground && result ? result.score : app.model.buffers.scores;
    if (scores !== app.model.scores) {
      app.model.setScores(scores);
      app.schedule("view");
    }
    for (const each of [this.useIt, this.saveIt, this.masksIt]) each.disabled = !result;
    this.clear.disabled = !marks.length;
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
        // The opacity shows the certainty, from a probability of 0.5 to 1.
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

  // The file of the head, for full tokens.
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
    if (this.stale) this.refit();
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
    this.app.give(new Blob([this.bytes()], { type: "application/octet-stream" }), HEAD_NAME);
  }

  async take() {
    const file = this.file.files[0];
    this.file.value = "";
    if (!file) return;
    const { app } = this;
    const bytes = new Uint8Array(await file.arrayBuffer());
    const head = readHead(bytes);
    if (head.classes.length > MOST_CLASSES) throw new Error(`${file.name} has ${head.classes.length} classes; the page shows at most ${MOST_CLASSES}.`);
    if (head.width !== app.model.header.model.width) throw new Error(`${file.name} was taught on features of width ${head.width}; ${app.model.header.model.name} has ${app.model.header.model.width}.`);
    app.change({ marks: [], classes: head.classes.map((each, k) => ({ name: each, color: CLASS_COLORS[k % CLASS_COLORS.length] })), headForeground: false });
    this.fit = null;
    const [own, other] = [app.model.header.origin, head.origin].map((origin) => origin?.weights?.sha256);
    const doubt = own && other && own !== other ? " It was taught with other weights than those shown here." : "";
    await this.apply({ bytes, head, said: `${file.name}: taught on ${head.photos} photo${head.photos > 1 ? "s" : ""}.${doubt} New marks begin a new head.` });
  }

  // Applies a head from a file and shows its result.
  async apply(given) {
    const { app } = this;
    const { bytes, head, said } = given;
    if (head.width !== app.model.header.model.width) {
      this.loaded = null;
      throw new Error(`This head was taught on features of width ${head.width}; ${app.model.header.model.name} has ${app.model.header.model.width}.`);
    }
    this.loaded = given;
    const K = head.classes.length;
    if (app.server) {
      const answer = await app.server.applyHead(bytes, K);
      this.judge(answer.decisions, K, answer);
    } else this.judge(decisionsOf(narrowed(head, app.model.buffers["token-axes"]), app.model.similarity, this.scales), K);
    this.tell(said);
  }

  // Uses the head's foreground. A served page fits the colours to it again; a single file keeps its colours.
  async use() {
    const { app } = this;
    if (app.state.headForeground) return app.change({ headForeground: false, ...this.fitsOwn });
    await this.settled();
    if (app.server) return app.work({ head: true, threshold: "auto" });
    const { threshold, side } = app.state;
    this.fitsOwn = { threshold, side };
    app.change({ headForeground: true, threshold: 0.5, side: "above" });
  }

  async masks() {
    await this.settled();
    await this.app.exporter.masks(this.result.classes, this.app.state.classes.map(({ name }) => name));
  }
}
