// The controls beside the photos. They change the state of the app, and show it.

import { byId, element, setText } from "./dom.js";
import { PIN_COLORS } from "./links.js";
import { BINS } from "./model.js";
import { MAX_MORPHOLOGY } from "./state.js";
import { inControls } from "./words.js";

const MOST_CROPS = 12;

// The names of the three channels.
const CHANNELS = { rgb: ["Red", "Green", "Blue"], oklab: ["Lightness", "Green–red", "Blue–yellow"] };

// Describes how accurate the similarities in the page are.
function accuracyOf({ tolerance, error }) {
  const share = error.within === 1 ? "all" : `${(100 * error.within).toFixed(2)} %`;
  return `Cosines differ from those of the full tokens by at most ${tolerance} for ${share} of pairs (largest error ${error.max.toFixed(2)}).`;
}

export function panel(app) {
  const made = new Panel(app);
  app.panel = made;
  app.on("load", (model) => made.load(model));
  app.on("draw", (state) => made.show(state));
  app.on("pins", (links) => made.showPins(links));
  app.on("theme", () => {
    made.histogramColors = null;
    made.drawHistogram();
  });
}

class Panel {
  constructor(app) {
    this.app = app;
    for (const name of ["mode", "side", "scaling", "space"]) this.radios(name, name);
    for (const input of document.querySelectorAll("input[name=basis]")) input.addEventListener("change", () => this.basis(input.value));
    for (const id of ["alpha", "opening", "closing", "threshold", "size"]) this.number(id, id);
    for (const id of ["smooth", "guided", "heat", "beside", "everywhere"]) this.check(id, id);
    for (const id of ["sort", "background"]) byId(id).addEventListener("change", (event) => app.change({ [id]: event.target.value }));
    byId("opening").max = byId("closing").max = String(Math.min(6, MAX_MORPHOLOGY));
    byId("reset-threshold").addEventListener("click", () => {
      const { fit } = this.model.header;
      app.change({ threshold: fit.threshold ?? 0.5, side: fit.side, opening: 0, closing: 0 });
    });
    byId("clear-pins").addEventListener("click", () => app.change({ pins: [], held: null }));
    for (const [id, at] of [["heat-low", 0], ["heat-high", 1]]) {
      byId(id).addEventListener("change", (event) => {
        const range = app.state.heatRange.slice();
        range[at] = Number(event.target.value);
        if (range[0] >= -1 && range[0] < range[1] && range[1] <= 1) app.change({ heatRange: range });
        else event.target.value = app.state.heatRange[at];
      });
    }
    this.makeHistogram();
    this.makeComponents();
  }

  load(model) {
    this.model = model;
    this.shown = null;
    this.describe();
  }

  radios(name, key) {
    for (const input of document.querySelectorAll(`input[name=${name}]`)) {
      input.addEventListener("change", () => this.app.change({ [key]: input.value }));
    }
  }

  number(id, key) {
    byId(id).addEventListener("input", (event) => this.app.change({ [key]: Number(event.target.value) }));
  }

  check(id, key) {
    byId(id).addEventListener("change", (event) => this.app.change({ [key]: event.target.checked }));
  }

  // The whole image is shown with its background; going back to the foreground also resets the side to that of the fit.
  basis(basis) {
    const { fit } = this.model.header;
    const { side } = this.app.state;
    this.app.change({ basis, side: basis === "all" ? "none" : side === "none" ? fit.side : side });
  }

  makeHistogram() {
    const canvas = byId("histogram");
    this.histogram = canvas;
    const toThreshold = (event) => {
      const box = canvas.getBoundingClientRect();
      const value = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      const patch = { threshold: Math.round(value * 1000) / 1000 };
      if (this.side === "none") patch.side = this.model.header.fit.side === "below" ? "below" : "above";
      this.app.change(patch, { kind: "threshold" });
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      toThreshold(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) toThreshold(event);
    });
    new ResizeObserver(() => this.drawHistogram()).observe(canvas);
  }

  drawHistogram(state = this.state) {
    if (!state) return;
    this.state = state;
    const canvas = this.histogram;
    const density = Math.min(devicePixelRatio || 1, 2);
    const width = Math.round(canvas.clientWidth * density);
    const height = Math.round(canvas.clientHeight * density);
    if (!width) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      this.histogramColors = null;
    }
    const context = canvas.getContext("2d");
    if (!this.histogramColors) {
      const style = getComputedStyle(canvas);
      this.histogramColors = ["--accent", "--bar", "--text"].map((name) => style.getPropertyValue(name).trim());
    }
    const [inside, outside, text] = this.histogramColors;
    context.clearRect(0, 0, width, height);
    const counts = this.model.histogram;
    // The square root, because a uniform wall fills a few bins, which would make all others invisible.
    if (counts !== this.counted) this.most = Math.sqrt(Math.max(...counts));
    this.counted = counts;
    const edge = state.threshold * BINS;
    for (let i = 0; i < BINS; i++) {
      const centre = i + 0.5;
      const kept = state.side === "none" || (state.side === "above" ? centre > edge : centre < edge);
      context.fillStyle = kept ? inside : outside;
      const tall = Math.round((Math.sqrt(counts[i]) / this.most) * (height - 8 * density));
      const left = Math.round((i * width) / BINS);
      context.fillRect(left, height - tall, Math.max(Math.round(((i + 1) * width) / BINS) - left - 1, 1), tall);
    }
    if (state.side !== "none") {
      const x = Math.round(state.threshold * width);
      context.fillStyle = text;
      context.fillRect(Math.min(Math.max(x - density, 0), width - 2 * density), 0, 2 * density, height);
      context.beginPath();
      context.arc(Math.min(Math.max(x, 5 * density), width - 5 * density), 5 * density, 5 * density, 0, 7);
      context.fill();
    }
  }

  makeComponents() {
    this.selects = ["red", "green", "blue"].map((name, channel) => {
      const select = byId(`component-${name}`);
      const turn = byId(`turn-${name}`);
      select.addEventListener("change", () => this.component(channel, Number(select.value) * (turn.checked ? -1 : 1)));
      turn.addEventListener("change", () => this.component(channel, Number(select.value) * (turn.checked ? -1 : 1)));
      return { select, turn };
    });
  }

  component(channel, value) {
    const components = this.state.components.slice();
    components[channel] = value;
    this.app.change({ components });
  }

  describe() {
    const { fit, model, tokens, photos } = this.model.header;
    const shown = fit.threshold === null ? "all patches" : `score ${fit.side} ${fit.threshold.toFixed(3)}`;
    const hints = (this.model.header.hints ?? []).map((hint) => `Hint: ${inControls(hint, Boolean(this.app.server))}.`);
    byId("hints").textContent = hints.join(" ");
    const how = { otsu: ", Otsu’s threshold", labels: ", threshold fitted to the photos", given: ", as given", none: "" }[fit.threshold_from] ?? "";
    const reason = fit.side_reason ? ` Foreground: ${fit.side_reason}.` : "";
    byId("fit-note").textContent = `Colours are fitted on ${fit.n_foreground.toLocaleString("en")} patches: ${shown}${how}.${reason}`;
    byId("about").textContent =
      `${model.name} · ${photos.length} photo${photos.length > 1 ? "s" : ""} · ${this.model.count.toLocaleString("en")} patches × ${model.width} dims`;
    byId("accuracy").textContent = accuracyOf(tokens);
  }

  // Sets every control to the state.
  show(state) {
    // Kept as a text, because the state is a single object that changes.
    const colors = [state.basis, state.space, ...state.components].join();
    const changedBasis = !this.shown || this.shown.basis !== state.basis;
    const changedColors = !this.shown || this.shown.colors !== colors;
    this.shown = { basis: state.basis, colors };
    this.state = state;
    this.side = state.side;
    for (const name of ["mode", "side", "basis", "scaling", "space"]) {
      const input = document.querySelector(`input[name=${name}][value=${state[name]}]`);
      if (!input.checked) input.checked = true;
    }
    for (const id of ["alpha", "opening", "closing", "threshold", "size"]) {
      const input = byId(id);
      if (Number(input.value) !== state[id]) input.value = state[id];
      const radius = id === "opening" || id === "closing";
      const value = radius ? (state[id] ? `radius ${state[id]}` : "off") : id === "threshold" ? state.threshold.toFixed(3) : id === "alpha" ? `${Math.round(100 * state.alpha)} %` : state[id];
      const output = byId(`${id}-value`);
      if (output && output.textContent !== String(value)) output.textContent = value;
    }
    for (const id of ["smooth", "guided", "heat", "beside", "everywhere"]) byId(id).checked = state[id];
    byId("beside").disabled = state.mode === "photo" || Boolean(state.other);
    for (const id of ["sort", "background"]) if (byId(id).value !== state[id]) byId(id).value = state[id];
    ["heat-low", "heat-high"].forEach((id, at) => {
      if (Number(byId(id).value) !== state.heatRange[at] || byId(id).value === "") byId(id).value = state.heatRange[at];
    });
    byId("score-bar").hidden = state.mode !== "score";
    const none = this.model.share() === 0;
    byId("nothing").hidden = !none;
    if (none) setText(byId("nothing"), "No patch is kept as foreground. Move the threshold in the histogram, or press Reset.");
    byId("threshold").disabled = state.side === "none";
    byId("alpha-row").hidden = state.mode !== "overlay";
    byId("background").hidden = state.mode !== "colours";
    byId("scaling-row").hidden = state.basis === "all";
    const changed = state.threshold !== (this.model.header.fit.threshold ?? 0.5) || state.side !== this.model.header.fit.side || state.opening || state.closing;
    byId("reset-threshold").disabled = !changed;
    byId("share").textContent = `${(100 * this.model.share()).toFixed(1)} % of patches`;
    if (changedColors) this.showComponents(state, changedBasis);
    this.drawHistogram(state);
  }

  showComponents(state, rebuilt) {
    const pca = this.model.header[state.basis === "all" ? "scene" : "object"];
    const names = CHANNELS[state.space];
    byId("explained").closest("details").dataset.space = state.space;
    this.selects.forEach(({ select, turn }, channel) => {
      select.previousElementSibling.textContent = names[channel];
      turn.setAttribute("aria-label", `Flip ${names[channel].toLowerCase()}`);
      if (rebuilt) {
        select.replaceChildren(
          ...pca.explained.map((share, k) => element("option", { value: k + 1 }, `${k + 1} · ${(100 * share).toFixed(1)} %`)),
        );
      }
      select.value = String(Math.abs(state.components[channel]));
      turn.checked = state.components[channel] < 0;
    });
    const most = Math.max(...pca.explained, 1e-9);
    const bars = byId("explained");
    bars.setAttribute(
      "aria-label",
      `Explained variance: ${pca.explained.map((share, k) => `component ${k + 1} ${(100 * share).toFixed(1)} percent`).join(", ")}`,
    );
    bars.replaceChildren(
      ...pca.explained.map((share, k) => {
        const column = element("div", { class: "column", title: `Component ${k + 1}: ${(100 * share).toFixed(1)} %` });
        const bar = element("div", { class: "bar" });
        bar.style.height = `${Math.max(3, (100 * share) / most)}%`;
        const dots = element("div", { class: "dots" });
        ["red", "green", "blue"].forEach((name, channel) => {
          if (Math.abs(state.components[channel]) === k + 1) dots.append(element("i", { class: name }));
        });
        column.append(bar, dots, element("span", {}, String(k + 1)));
        return column;
      }),
    );
    const sum = new Set(state.components.map((c) => Math.abs(c) - 1));
    byId("explained-note").textContent = `${(100 * [...sum].reduce((total, k) => total + pca.explained[k], 0)).toFixed(1)} % of the variance`;
  }

  // Crops around the matches, best first; pressing one shows its photo.
  strip(matches) {
    return element("div", { class: "strip" }, ...matches.slice(0, MOST_CROPS).map((match) => {
      const { image, photo } = this.app.gallery.tiles[match.photo];
      const canvas = element("canvas", { width: 96, height: 96, "aria-hidden": "true" });
      const scale = image.naturalWidth / photo.size[1];
      const [left, top, right, bottom] = photo.crop.map((edge) => edge * scale);
      const [h, w] = photo.grid;
      const [row, column] = [Math.floor((match.patch - photo.start) / w), (match.patch - photo.start) % w];
      const side = (5 * (right - left)) / w; // the crop shows five patches
      const x = left + ((column + 0.5) / w) * (right - left) - side / 2;
      const y = top + ((row + 0.5) / h) * (bottom - top) - side / 2;
      canvas.getContext("2d").drawImage(image, x, y, side, side, 0, 0, 96, 96);
      const told = `${photo.name}, cosine ${match.value.toFixed(2)}`;
      const show = () => this.app.gallery.tiles[match.photo].frame.scrollIntoView({ block: "nearest" });
      return element("button", { type: "button", class: match.mutual ? "crop mutual" : "crop", title: told, "aria-label": told, onclick: show }, canvas, match.value.toFixed(2));
    }));
  }

  unpin(pin) {
    const { pins, held } = this.app.state;
    const left = pins.filter((other) => other !== pin);
    this.app.change({ pins: left, held: left.includes(held) ? held : null });
  }

  showPins(links) {
    const { photos } = this.model.header;
    byId("pins").replaceChildren(
      ...links.map(({ pin, matches }, i) => {
        const mutual = matches.filter((match) => match.mutual).length;
        const swatch = element("i", { class: "swatch" });
        swatch.style.background = PIN_COLORS[i % PIN_COLORS.length];
        const w = photos[pin.photo].grid[1];
        const where = `row ${Math.floor(pin.index / w) + 1}, column ${(pin.index % w) + 1}`;
        const text = `${photos[pin.photo].name}, ${where}: ${mutual} of ${matches.length} matches mutual`;
        const strip = this.app.lined ? [] : [this.strip(matches)];
        return element(
          "li",
          {},
          swatch,
          element("span", {}, text),
          element("button", { type: "button", class: "quiet", "aria-label": `Remove pin ${i + 1}, ${text}`, onclick: () => this.unpin(pin) }, "×"),
          ...strip,
        );
      }),
    );
    byId("clear-pins").hidden = links.length === 0;
    byId("clear-pins").textContent = `Clear ${links.length} ${links.length === 1 ? "pin" : "pins"}`;
    byId("pins-note").hidden = links.length > 0;
  }
}
