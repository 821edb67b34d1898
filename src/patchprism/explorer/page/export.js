// Exports files: the figure, all images, all masks.

import { byId, element } from "./dom.js";
import { INKS, PAPERS, POINTS_PER, layOut, panelPixels, pinItems } from "./figure.js";
import { checkCanvas, checkSize, measureText, toPdf, toPng, toSvg } from "./figure_files.js";
import { cocoFile, fullMask } from "./masks.js";
import { MOST_LINES, PIN_COLORS } from "./links.js";
import { encodePng } from "./png.js";
import { commandText } from "./state.js";
import { pictureName, pictureOf } from "./take.js";
import { zip } from "./zip.js";

const FILLS = { white: [255, 255, 255, 255], transparent: [0, 0, 0, 0], black: [0, 0, 0, 255] };
const PANELS = { photo: "Photo", colours: "Colours", overlay: "Overlay", score: "Foreground score" };
const EXTRA_PANELS = { clusters: "Clusters", attention: "Attention" }; // available after they were shown
const MOST_DPI = 1200;
const DEFAULTS = { width: { in: 6.75, mm: 170 }, dpi: 300 };
const PREVIEW_WIDTH = 520;

const stemOf = (name) => name.replace(/\.[^.]+$/, "");
const listed = (words) => (words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words[0]);

// The caption: what a reader of the figure must know, in sentences.
export function captionOf(header, state, panels) {
  const { fit, model, photos } = header;
  const said = [`Patch features of ${model.name} on ${photos.length} photo${photos.length > 1 ? "s" : ""}.`];
  if (panels.includes("colours") || panels.includes("overlay")) {
    const channels = state.space === "rgb" ? "red, green and blue" : "lightness, green to red and blue to yellow (OKLab)";
    const patches = state.basis === "all" ? "all patches" : fit.side === "none" ? "all patches" : "the foreground patches";
    const turned = state.components.map((c) => (c < 0 ? `−${-c}` : String(c)));
    const scaled = { minmax: "from minimum to maximum", percentile: "from the 1st to the 99th percentile", sigmoid: "by a sigmoid" }[state.scaling];
    said.push(`Principal components ${listed(turned)} of ${patches} as ${channels}, scaled ${state.basis === "all" ? "from minimum to maximum" : scaled} over all photos.`);
    if (state.side !== "none") said.push(`Foreground: score ${state.side} ${state.threshold.toFixed(3)}.`);
  }
  if (panels.includes("clusters")) said.push("Clusters of the patches of all photos (k-means).");
  if (panels.includes("attention")) said.push("Attention of the class token, mean over heads, each photo from 0 to the 99th percentile of its patches.");
  if (panels.includes("score")) said.push("Foreground score from 0 (dark) to 1 (bright).");
  const [low, high] = state.heatRange;
  if (panels.some((panel) => panel.startsWith("pin"))) said.push(`Cosine similarity to the marked patch from ${low} (dark) to ${high} (bright).`);
  return said.join(" ");
}

export class Exporter {
  constructor(app) {
    this.app = app;
    this.links = [];
    const pick = (id, values, chosen) => {
      const select = element("select", { id: `export-${id}`, onchange: () => this.changed() }, ...values.map(([value, label]) => new Option(label, value)));
      select.value = chosen;
      return select;
    };
    const number = (id, value, min, max, step) => element("input", { id: `export-${id}`, type: "number", value, min, max, step, oninput: () => this.changed() });
    const check = (id, on) => element("input", { id: `export-${id}`, type: "checkbox", checked: on, onchange: () => this.changed() });
    this.panels = element("fieldset", { class: "picks", id: "export-panels" });
    this.photos = element("fieldset", { class: "picks", id: "export-photos" });
    this.perRow = number("per-row", 1, 1, 48, 1);
    this.paper = pick("paper", Object.keys(PAPERS).map((name) => [name, name[0].toUpperCase() + name.slice(1)]), "white");
    this.labels = check("labels", true);
    this.pins = check("pins", true);
    this.withCaption = check("with-caption", false);
    this.width = number("width", DEFAULTS.width.in, 0.2, 1000, "any");
    this.unit = pick("unit", [["in", "inches"], ["mm", "mm"]], "in");
    this.dpi = number("dpi", DEFAULTS.dpi, 30, MOST_DPI, 1);
    this.format = pick("format", [["png", "PNG"], ["svg", "SVG"], ["pdf", "PDF"]], "pdf");
    this.caption = element("textarea", { id: "export-caption", rows: 4, spellcheck: "false", oninput: () => { this.ownCaption = true; this.changed(); } });
    this.command = element("pre", { class: "command", tabindex: "0", "aria-label": "The command that makes this view" });
    this.preview = element("img", { id: "export-preview", alt: "The figure as it will be saved" });
    this.said = element("p", { class: "note", role: "status", id: "export-said", "aria-label": "Size of the figure" });
    this.go = element("button", { type: "submit", class: "primary" }, "Save figure");
    const row = (label, ...controls) => element("div", { class: "choice" }, element("label", { for: controls[0].id }, label), element("span", { class: "row" }, ...controls));
    const form = element(
      "form",
      { method: "dialog", onsubmit: (event) => this.submit(event) },
      element("div", { class: "export-columns" },
        element("div", { class: "export-options" },
          element("strong", {}, "Columns"), this.panels, element("strong", {}, "Photos"), this.photos,
          row("Photos per row", this.perRow), row("Background", this.paper), row("Width", this.width, this.unit), row("Resolution", this.dpi, element("span", {}, "dpi")), row("Format", this.format),
          element("label", { class: "inline" }, this.labels, " Labels"),
          element("label", { class: "inline" }, this.pins, " Pins and matches"),
          element("label", { class: "inline" }, this.withCaption, " Caption and command below the figure")),
        element("div", { class: "export-result" }, element("div", { class: "export-paper" }, this.preview), this.said, element("label", { for: "export-caption" }, "Caption"), this.caption, this.command)),
      element("div", { class: "row end" }, element("button", { type: "button", onclick: () => this.copyCaption() }, "Copy caption and command"), element("button", { type: "button", onclick: () => this.dialog.close() }, "Cancel"), this.go),
    );
    this.unit.onchange = () => {
      const factor = POINTS_PER[this.unit.value === "mm" ? "in" : "mm"] / POINTS_PER[this.unit.value];
      this.width.value = String(Math.round(Number(this.width.value) * factor * 100) / 100);
      this.changed();
    };
    this.dialog = element("dialog", { id: "export", "aria-labelledby": "export-title" }, element("h2", { id: "export-title" }, "Export figure"), form);
    document.body.append(this.dialog);
    app.on("load", () => this.load());
    app.on("pins", (links) => (this.links = links));
    const all = byId("download-all");
    all.textContent = "All images (.zip)";
    all.onclick = () => app.report(this.allImages());
    all.before(element("button", { type: "button", id: "export-figure", class: "primary", onclick: () => this.open() }, "Export figure"));
    all.after(element("button", { type: "button", id: "download-masks", title: "Masks of the foreground: one PNG per photo, and a COCO file", onclick: () => app.report(this.masks()) }, "Masks (.zip)"));
  }

  load() {
    this.dialog.close();
    this.ownCaption = false;
    this.known = null;
  }

  // The panels that are available now; there is one for each pin.
  kinds() {
    const { model } = this.app;
    const extra = Object.entries(EXTRA_PANELS).filter(([mode]) => model.extra[mode]);
    return { ...PANELS, ...Object.fromEntries(extra), ...Object.fromEntries(this.links.map((_, k) => [`pin-${k}`, `Similarity to pin ${k + 1}`])) };
  }

  open() {
    const { app } = this;
    const kinds = Object.entries(this.kinds());
    const before = this.picked(this.panels);
    const first = new Set(this.known ? before : [...(app.model.header.no_photos ? [] : ["photo"]), app.state.mode === "photo" ? "colours" : app.state.mode, ...this.links.map((_, k) => `pin-${k}`).slice(0, 1)]);
    const pick = (root, entries, chosen) => root.replaceChildren(...entries.map(([value, label]) =>
      element("label", { class: "inline" }, element("input", { type: "checkbox", value, checked: chosen(value), onchange: () => this.changed() }), ` ${label}`)));
    pick(this.panels, kinds, (value) => first.has(value));
    if (this.known !== app.model) {
      pick(this.photos, app.model.photos.map((photo, i) => [String(i), photo.name]), () => true);
      const shape = app.model.photos.reduce((sum, { size }) => sum + size[1] / size[0], 0) / app.model.photos.length;
      this.perRow.value = String(Math.min(app.model.photos.length, Math.max(1, Math.round(Math.sqrt(app.model.photos.length / (shape * first.size))))));
    }
    this.known = app.model;
    this.pins.parentElement.hidden = !this.links.length;
    this.dialog.showModal();
    this.changed();
  }

  picked(root) {
    return [...root.querySelectorAll("input:checked")].map((input) => input.value);
  }

  changed() {
    const { model, state } = this.app;
    this.command.textContent = commandText(model.header, state);
    if (!this.ownCaption) this.caption.value = captionOf(model.header, state, this.picked(this.panels));
    clearTimeout(this.later);
    this.later = setTimeout(() => this.show(), 60);
  }

  async show() {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    try {
      const settings = this.settings();
      const dpi = Math.min(settings.dpi, (PREVIEW_WIDTH * 72) / settings.width);
      const scene = await this.scene({ ...settings, dpi, format: "png" }, false);
      checkSize(scene, settings.dpi, settings.format);
      const png = await toPng(scene, dpi);
      if (turn !== this.turn) return;
      URL.revokeObjectURL(this.preview.src);
      this.preview.src = URL.createObjectURL(png);
      const [inches, tall] = [scene.width / 72, scene.height / 72];
      const size = settings.unit === "mm" ? `${(inches * 25.4).toFixed(1)} × ${(tall * 25.4).toFixed(1)} mm` : `${inches.toFixed(2)} × ${tall.toFixed(2)} in`;
      this.said.textContent = `${size} · panels of ${Math.round((scene.panel * settings.dpi) / 72)} pixels at ${settings.dpi} dpi`;
      this.go.disabled = false;
    } catch (error) {
      if (turn !== this.turn) return;
      this.said.textContent = error.message;
      this.go.disabled = true;
    }
  }

  // The settings of the dialog, after checking them.
  settings() {
    const within = (input, low, high, what) => {
      const value = input.value.trim() === "" ? NaN : Number(input.value);
      if (!(value >= low && value <= high)) throw new Error(`${what} must be a number from ${low} to ${high}.`);
      return value;
    };
    const unit = this.unit.value;
    const most = unit === "mm" ? 2000 : 80;
    const settings = {
      panels: this.picked(this.panels).filter((panel) => panel in this.kinds()),
      photos: this.picked(this.photos).map(Number),
      perRow: Math.round(within(this.perRow, 1, 48, "Photos per row")),
      paper: this.paper.value,
      labels: this.labels.checked,
      pins: this.pins.checked && this.links.length > 0,
      below: this.withCaption.checked,
      caption: this.caption.value.trim(),
      command: this.command.textContent,
      unit,
      width: within(this.width, unit === "mm" ? 5 : 0.2, most, "Width") * POINTS_PER[unit],
      dpi: within(this.dpi, 30, MOST_DPI, "Resolution"),
      format: this.format.value,
    };
    if (!settings.panels.length) throw new Error("Choose at least one column.");
    if (!settings.photos.length) throw new Error("Choose at least one photo.");
    return settings;
  }

  // Everything that is drawn, in points. With `own`, a served page uses the pixels of the original photos.
  async scene(settings, own) {
    const { app } = this;
    const { model, state } = app;
    const kinds = this.kinds();
    const photos = settings.photos.map((index) => ({ ...model.photos[index], index }));
    model.update(state);
    const layout = layOut({
      photos, columns: settings.panels.map((panel) => kinds[panel]), perRow: settings.perRow, width: settings.width, labels: settings.labels,
      caption: settings.below ? settings.caption : "", command: settings.below ? settings.command : "", ink: INKS[settings.paper], measure: measureText,
    });
    checkSize(layout, settings.dpi, settings.format);
    const items = [];
    for (const cell of layout.cells) {
      const photo = photos[cell.photo];
      const scale = settings.dpi / 72;
      const size = [Math.max(1, Math.round(cell.height * scale)), Math.max(1, Math.round(cell.width * scale))];
      const panel = settings.panels[cell.column];
      const { source, over } = this.source(panel, state);
      const pixels = panelPixels(photo, size, source, over ? await this.photoAt(photo.index, size, own) : null, FILLS[settings.paper]);
      items.push({ kind: "image", x: cell.x, y: cell.y, width: cell.width, height: cell.height, pixels, columns: size[1], rows: size[0], clear: settings.paper === "transparent" });
    }
    items.push(...layout.items);
    if (settings.pins) items.push(...pinItems(layout, photos, this.links.map(({ pin, matches }) => ({ pin, matches: matches.slice(0, MOST_LINES) })), PIN_COLORS));
    return { width: layout.width, height: layout.height, panel: layout.cells[0].width, paper: PAPERS[settings.paper], title: model.header.title, caption: settings.caption, command: settings.command, items };
  }

  // The contents of a panel, and whether the photo is visible under it.
  source(panel, state) {
    const { model } = this.app;
    if (panel === "photo") return { source: { visible: new Uint8Array(model.count) }, over: true };
    if (panel.startsWith("pin-")) {
      const { pin } = this.links[Number(panel.slice(4))];
      return { source: { values: model.similarity.of(model.photos[pin.photo].start + pin.index).slice(), range: state.heatRange }, over: false };
    }
    const { colors, visible } = model.layer({ ...state, mode: panel });
    return { source: { colors, visible, alpha: panel === "overlay" ? state.alpha : 1 }, over: panel === "overlay" || (panel === "colours" && state.background === "photo") };
  }

  // The pixels of a photo, resized to [height, width].
  async photoAt(index, [height, width], own) {
    const { app } = this;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    checkCanvas(context);
    let image = app.gallery.tiles[index].image;
    if (own && app.server) image = await createImageBitmap(await app.server.photo(index), { colorSpaceConversion: "none" });
    else await image.decode().catch(() => {});
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  }

  submit(event) {
    event.preventDefault();
    this.app.report(this.save());
  }

  async save() {
    const settings = this.settings();
    this.go.disabled = true;
    try {
      const scene = await this.scene(settings, true);
      const blob = await { png: (each) => toPng(each, settings.dpi), svg: toSvg, pdf: toPdf }[settings.format](scene);
      this.app.give(blob, `figure.${settings.format}`);
      this.dialog.close();
    } catch (error) {
      this.said.textContent = error.message;
    } finally {
      this.go.disabled = false;
    }
  }

  copyCaption() {
    this.app.copy(`${this.caption.value.trim()}\n\n${this.command.textContent}`, "The caption and the command are copied.");
  }

  // -- archives -----------------------------------------------------------------------------------------------

  async allImages() {
    const { app } = this;
    const files = [];
    for (const index of app.gallery.shown) files.push({ name: pictureName(app, index), blob: await pictureOf(app, index) });
    files.push({ name: "command.txt", blob: new Blob([`${commandText(app.model.header, app.state)}\n`]) });
    app.give(await zip(files), "images.zip");
  }

  // Masks of the foreground that is shown, or of classes (a number per patch) with their names. There is one PNG per
  // photo with the values 0 and 255, or with the numbers of the classes, and a COCO file for all photos.
  async masks(classes = null, names = ["background", "object"]) {
    const { app } = this;
    const { model } = app;
    model.update(app.state);
    const [files, masks] = [[], []];
    const white = names.length === 2 ? 255 : 1;
    for (const [i, photo] of model.photos.entries()) {
      const mask = fullMask(classes ?? model.mask, photo);
      const rgba = new Uint8Array(4 * mask.length);
      for (let k = 0; k < mask.length; k++) rgba[4 * k] = white * mask[k];
      files.push({ name: `${stemOf(photo.name)}.mask.png`, blob: await encodePng(rgba, photo.size[1], photo.size[0], { kind: "grey" }) });
      names.slice(1).forEach((_, k) => masks.push({ photo: i, category: k + 1, mask: mask.map((value) => (value === k + 1 ? 1 : 0)) }));
    }
    files.push({ name: "masks.coco.json", blob: new Blob([cocoFile(model.photos, masks, names.slice(1), model.header.patchprism)]) });
    app.give(await zip(files), "masks.zip");
  }
}
