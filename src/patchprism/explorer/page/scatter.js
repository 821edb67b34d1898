// Shows the patches as points along two or three components, linked with the photos.

import { element, setText } from "./dom.js";
import { PointField } from "./points.js";
import { addSection } from "./sections.js";
import { boxOf } from "./tile.js";

const SCATTER_ZOOM = 40;
const SHADE = 0xa0000000; // over patches that are not selected, as 0xAABBGGRR
const LIT = 0x7000b4ff; // over selected patches without a colour

export class Scatter {
  constructor(app) {
    this.app = app;
    this.field = new PointField();
    this.canvas = element("canvas", { class: "points", tabindex: "0", role: "img", "aria-label": "Patches in PCA space" });
    this.marks = element("canvas", { class: "points-marks", "aria-hidden": "true" });
    this.selects = ["x", "y", "z"].map((name, k) => {
      const select = element("select", { "aria-label": `Component along ${name}`, onchange: () => this.redraw(true) });
      select.dataset.axis = k;
      return select;
    });
    this.solid = element("input", { type: "checkbox", id: "scatter-3d", onchange: () => this.redraw(true) });
    this.lassoing = element("input", { type: "checkbox", id: "scatter-lasso", onchange: () => this.drawMarks() });
    this.lassoRow = element("label", { class: "inline", title: "Drag to choose points instead of turning them" }, this.lassoing, " Lasso");
    this.background = element("input", { type: "checkbox", id: "scatter-background", onchange: () => this.paint() });
    this.clear = element("button", { type: "button", onclick: () => this.choose(null) }, "Clear");
    this.teach = element("button", { type: "button", id: "scatter-teach", title: "Mark the chosen patches as the class that is chosen under Teach", onclick: () => this.markChosen() }, "Mark as class");
    const { body, aside } = addSection({ id: "scatter", title: "Patches in PCA space", before: "leave" });
    this.said = aside;
    aside.setAttribute("role", "status");
    aside.setAttribute("aria-label", "Chosen patches");
    this.note = element("p", { class: "note", id: "scatter-note" });
    body.append(
      element("div", { class: "points-box" }, this.canvas, this.marks),
      element("div", { class: "row" }, ...this.selects, element("label", { class: "inline" }, this.solid, " 3D"), this.lassoRow),
      element("div", { class: "row between" }, element("label", { class: "inline" }, this.background, " Background too"), element("span", { class: "row" }, this.teach, this.clear)),
      this.note,
    );
    this.listen();
    this.side = 0; // of the canvas in pixels; kept, because reading it in every frame would force a layout
    new ResizeObserver(([{ contentRect }]) => {
      this.side = Math.round(contentRect.width * this.ratio);
      this.redraw();
    }).observe(this.canvas);
    app.on("load", (model) => this.load(model));
    app.on("draw", (state) => this.draw(state));
    app.on("hover", (at) => this.mark(at ? at.patch : -1));
    app.on("theme", () => {
      this.colors = null;
      this.drawMarks();
    });
  }

  load(model) {
    this.chosen = null;
    this.clear.disabled = this.teach.disabled = true;
    this.said.textContent = "";
    this.key = "";
    this.over = -1;
    this.field.home();
    const count = Math.min(model.object.length, model.scene.length);
    this.selects.forEach((select, k) => {
      select.replaceChildren(...Array.from({ length: count }, (_, i) => new Option(`PC ${i + 1}`, String(i))));
      select.value = String(Math.min(k, count - 1));
    });
  }

  redraw(moved = false) {
    if (moved) this.field.home();
    if (this.app.model) this.draw(this.app.state, true);
  }

  get ratio() {
    return Math.min(globalThis.devicePixelRatio || 1, 2);
  }

  // Draws the points after a change of the view; they are placed again only if they have moved.
  draw(state, always = false) {
    if (!this.side) {
      this.key = ""; // the section is folded
      return;
    }
    const { model } = this.app;
    const { colors, visible } = model.layer(state);
    const solid = this.solid.checked;
    this.lassoRow.hidden = this.selects[2].hidden = !solid;
    const drag = solid ? "Drag to turn the points; with Lasso, drag around points" : "Drag around points";
    setText(this.note, `${drag} to highlight their patches. Ctrl and the wheel zoom; a double click zooms back out.`);
    const key = [state.basis, state.mode, state.components, state.scaling, state.space, state.turned, state.threshold, state.side, state.opening, state.closing, model.extraKey].join();
    if (!always && key === this.key) return;
    this.key = key;
    const values = state.basis === "all" ? model.scene : model.object;
    const axes = this.selects.slice(0, solid ? 3 : 2).map((select) => values[Number(select.value)]);
    const none = !visible || !visible.includes(1);
    const placed = [state.basis, ...axes.map((_, k) => this.selects[k].value)].join();
    if (placed !== this.placed || this.placedFor !== model) {
      // The foreground of the fit determines the ranges, so that points stay in place while the threshold changes.
      this.field.place(axes, model.fitMask.includes(1) ? model.fitMask : new Uint8Array(model.count).fill(1));
      this.placed = placed;
      this.placedFor = model;
    }
    this.shown = { colors, visible: none ? null : visible };
    this.paint();
  }

  paint() {
    const { field, canvas, side } = this;
    if (!this.shown || !side) return;
    field.resize(side, side);
    if (canvas.width !== side) canvas.width = canvas.height = this.marks.width = this.marks.height = side;
    const size = Math.max(1, Math.round((field.count > 20_000 ? 1.5 : field.count > 5000 ? 2 : 3) * this.ratio));
    field.draw({ ...this.shown, chosen: this.chosen, size, background: this.background.checked });
    this.image = this.image?.width === side ? this.image : new ImageData(side, side);
    new Uint32Array(this.image.data.buffer).set(field.words);
    canvas.getContext("2d").putImageData(this.image, 0, 0);
    const names = this.selects.slice(0, field.solid ? 3 : 2).map((select) => `component ${Number(select.value) + 1}`);
    const label = `${field.count} patches along ${names.join(", ")}`;
    if (canvas.getAttribute("aria-label") !== label) canvas.setAttribute("aria-label", label);
    this.drawMarks();
  }

  soon() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  // Marks the point of the patch under the pointer; -1 for none.
  mark(patch) {
    if (patch === this.over) return;
    this.over = patch;
    this.drawMarks();
  }

  drawMarks() {
    const { field, ratio } = this;
    if (!this.side || !field.axes) return;
    const context = this.marks.getContext("2d");
    if (!this.colors) {
      const style = getComputedStyle(this.canvas);
      this.colors = ["--muted", "--accent"].map((name) => style.getPropertyValue(name));
    }
    const [muted, accent] = this.colors;
    context.clearRect(0, 0, field.width, field.height);
    context.font = `${10 * ratio}px system-ui, sans-serif`;
    context.fillStyle = context.strokeStyle = muted;
    context.lineWidth = ratio;
    field.ends().forEach(([from, to], k) => {
      context.beginPath();
      context.moveTo(...from);
      context.lineTo(...to);
      context.stroke();
      const name = `PC ${Number(this.selects[k].value) + 1}`;
      const { width } = context.measureText(name);
      context.fillText(name, Math.min(Math.max(to[0] - width / 2, 2), field.width - width - 2), Math.min(Math.max(to[1] - 4 * ratio, 10 * ratio), field.height - 3));
    });
    if (this.line?.length > 1) {
      context.beginPath();
      this.line.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.strokeStyle = accent;
      context.lineWidth = 2 * ratio;
      context.stroke();
    }
    if (this.over < 0) return;
    const [x, y] = [field.x[this.over], field.y[this.over]];
    for (const [color, wide] of [["#000", 5], ["#fff", 2.5]]) {
      context.beginPath();
      context.arc(x, y, 6 * ratio, 0, 7);
      context.strokeStyle = color;
      context.lineWidth = wide * ratio;
      context.stroke();
    }
  }

  // Selects patches. chosen: one byte per patch, or null.
  choose(chosen) {
    const { model } = this.app;
    let total = 0;
    const photos = new Set();
    if (chosen) {
      for (let i = 0; i < chosen.length; i++) {
        if (!chosen[i]) continue;
        total++;
        photos.add(model.photoOf(i));
      }
    }
    this.chosen = total ? chosen : null;
    this.clear.disabled = this.teach.disabled = !total;
    this.said.textContent = total ? `${total.toLocaleString("en")} patch${total > 1 ? "es" : ""} in ${photos.size} photo${photos.size > 1 ? "s" : ""}` : "";
    this.paint();
    this.light();
  }

  markChosen() {
    const { app, chosen } = this;
    document.getElementById("teach").open = true;
    if (app.teacher.mark([...chosen.keys()].filter((patch) => chosen[patch]), "scatter")) this.choose(null);
  }

  light() {
    const { chosen } = this;
    const shaded = this.shown?.visible;
    if (!chosen) return this.app.gallery.paint("chosen", null);
    const words = new Uint32Array(chosen.length);
    for (let i = 0; i < words.length; i++) words[i] = !chosen[i] ? SHADE : shaded && !shaded[i] ? LIT : 0;
    this.app.gallery.paint("chosen", new Uint8ClampedArray(words.buffer));
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.field.width, ((event.clientY - box.top) / box.height) * this.field.height];
  }

  listen() {
    const { canvas, field, app } = this;
    let held = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      held = this.place(event);
      const turning = field.solid && !this.lassoing.checked;
      this.line = turning ? null : [held];
    });
    canvas.addEventListener("pointermove", (event) => {
      const here = this.place(event);
      if (!held) {
        this.point(here);
      } else if (this.line) {
        const before = this.line.at(-1);
        if (Math.hypot(here[0] - before[0], here[1] - before[1]) < 2) return;
        this.line.push(here);
        this.drawMarks();
      } else {
        field.turn.yaw += (here[0] - held[0]) / (60 * this.ratio);
        field.turn.pitch = Math.min(Math.max(field.turn.pitch + (here[1] - held[1]) / (60 * this.ratio), -1.57), 1.57);
        held = here;
        this.soon();
      }
    });
    // This event comes earlier than pointermove, which waits for the next frame; the similarities are computed meanwhile.
    canvas.addEventListener("pointerrawupdate", (event) => {
      const patch = held ? -1 : field.at(...this.place(event), Math.round(5 * this.ratio));
      const photo = patch < 0 ? -1 : app.model.photoOf(patch);
      if (photo >= 0) app.foresee(photo, patch - app.model.photos[photo].start);
    });
    const end = (event) => {
      if (!held) return;
      held = null;
      const { line } = this;
      this.line = null;
      if (event.type === "pointerup" && line?.length > 2) this.choose(field.within(line));
      else if (event.type === "pointerup" && line) this.choose(null);
      else this.drawMarks();
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => app.hover(null));
    canvas.addEventListener("dblclick", () => this.redraw(true));
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        this.zoomBy(Math.exp(-event.deltaY / 300), this.place(event));
      },
      { passive: false },
    );
    canvas.addEventListener("keydown", (event) => this.keyed(event));
  }

  zoomBy(factor, [x, y] = [this.field.width / 2, this.field.height / 2]) {
    const { field } = this;
    const zoom = Math.min(Math.max(field.zoom * factor, 1), SCATTER_ZOOM);
    const shift = [x - field.width / 2, field.height / 2 - y];
    const before = field.scale;
    field.zoom = zoom;
    field.centre = zoom === 1 ? [0, 0] : field.centre.map((at, k) => at + shift[k] / before - shift[k] / field.scale);
    this.soon();
  }

  keyed(event) {
    const { field } = this;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (step && field.solid) {
      field.turn.yaw += 0.1 * step[0];
      field.turn.pitch = Math.min(Math.max(field.turn.pitch - 0.1 * step[1], -1.57), 1.57);
    } else if (step) {
      field.centre = field.centre.map((at, k) => at + (0.1 * step[k]) / field.zoom);
    } else if (event.key === "Escape" && this.chosen) this.choose(null);
    else if (event.key === "+" || event.key === "=") this.zoomBy(1.3);
    else if (event.key === "-") this.zoomBy(1 / 1.3);
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.soon();
  }

  // Shows the patch of the point under the pointer in its photo.
  point(here) {
    const { app, field } = this;
    const patch = field.at(...here, Math.round(5 * this.ratio));
    if (patch < 0) return app.hover(null);
    const photo = app.model.photoOf(patch);
    const { start, grid } = app.model.photos[photo];
    app.hover({ photo, index: patch - start, box: boxOf(app.gallery.tiles[photo].main, grid, patch - start) });
  }
}
