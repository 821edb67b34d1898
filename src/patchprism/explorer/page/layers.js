// A slider over the layers of the network. The colours of each layer are turned to agree with those that the page opened
// with.

import { RESIDUAL, fitLabel, turnWords } from "./agree.js";
import { element, setText } from "./dom.js";
import { addSection } from "./sections.js";
import { fileSource } from "./file_layers.js";
import { second } from "./second.js";
import { linked } from "./state.js";

export function layers(app) {
  app.fits = new Map(); // fits by their number: { model, layer, root }
  app.defaults.turned = true;
  linked.set("turned", { write: (value) => (value ? "1" : "0"), read: (text) => text !== "0" });

  const slider = element("input", { type: "range", id: "layer", min: "0", step: "1" });
  const value = element("output", { id: "layer-value" });
  const row = element("label", { class: "slider" }, element("span", {}, "Layer"), slider, value);
  const turned = element("input", { type: "checkbox", id: "turned", onchange: () => app.change({ turned: turned.checked }) });
  const turnedRow = element("label", { class: "inline", title: "Turn the colours of other layers and models so that the same parts keep their colours" }, turned, " Turn colours to agree");
  const note = element("p", { class: "note", id: "turn-note" });
  const { section, body } = addSection({ id: "layers", title: "Layers and models", before: "foreground", open: true });
  const legend = element("p", { class: "note", id: "residual-note" }, RESIDUAL);
  body.append(row, turnedRow, note);

  // The source of other layers: the file, or the server.
  app.source = app.file ? fileSource(app) : {
    layers: ({ layers } = app.model.header) => Array.from({ length: layers.depth }, (_, i) => i),
    models: () => app.models,
    turn: (fit, other) => app.server.turn(fit, other),
    show: (request, more) => app.work(request, { more }),
    free: async () => {
      while (app.working) await new Promise((resolve) => setTimeout(resolve, 30));
    },
    beside: async ({ model, layer }) => {
      await app.source.free();
      const fit = await app.fitAside(layer === null ? { model } : { model, layer });
      return fit === null ? null : { fit, message: await app.server.messageOf(fit) };
    },
  };

  // Finds the turn of a model's colours before the model is shown.
  app.dress = async (model) => {
    model.fit = app.server?.fitNumber ?? app.file?.shown ?? 0;
    model.root = app.server?.rootNumber ?? app.file?.first ?? 0;
    model.turn = model.fit === model.root ? undefined : await app.source.turn(model.fit, model.root);
    model.setTurns(model.turn ? [model.turn] : []);
    const { header } = model;
    app.fits.set(model.fit, { model: header.model.name, layer: header.layers?.shown[0], root: model.root });
  };

  // The last position of the slider, if it was moved while an earlier layer is computed.
  let wanted = null;
  const follow = async () => {
    if (app.moving) return;
    app.moving = true;
    while (wanted !== null) {
      await app.source.free();
      const layer = wanted;
      wanted = null;
      const { shown } = app.model.header.layers;
      if (shown.length > 1 || shown[0] !== layer) await app.source.show({ layer });
    }
    app.moving = false;
    describe();
  };
  slider.addEventListener("input", () => {
    wanted = app.source.layers()[Number(slider.value)];
    setText(value, String(wanted));
    follow();
  });

  const describe = () => {
    const { model, state } = app;
    const { header, turn } = model;
    section.hidden = !app.server && !app.file;
    row.hidden = note.hidden = turnedRow.hidden = !header.layers;
    if (!header.layers || section.hidden) return;
    const { depth, shown } = header.layers;
    const numbers = app.source.layers();
    row.title = app.file ? `The file holds layers ${numbers.join(", ")} of 0 to ${depth - 1}` : `Layers are counted from 0 to ${depth - 1}`;
    slider.max = String(numbers.length - 1);
    if (wanted === null) {
      slider.value = String(numbers.indexOf(shown[shown.length - 1]));
      setText(value, shown.join(", "));
      slider.setAttribute("aria-valuetext", `layer ${shown.join(", ")}, of 0 to ${depth - 1}`);
    }
    turned.checked = state.turned;
    turnedRow.hidden = turn === undefined && !state.other;
    legend.hidden = turnedRow.hidden || !state.turned;
    let words = "";
    if (turn !== undefined) {
      const here = fitLabel({ model: header.model.name, layers: header.layers }, turn?.reference.model ?? header.model.name);
      const what = here.replace(/^layer/, "Layer");
      if (!state.turned) words = `${what}: its own colours, as fitted. Equal colours in two layers need not mean the same part.`;
      else if (!turn || model.isTurned(state)) words = turnWords(turn, what, turn ? fitLabel(turn.reference, header.model.name) : "the first");
      else words = `${what}: its own colours, as fitted. Only the foreground’s components ${turn.reference.components.join(", ")} are turned.`;
    }
    setText(note, words);
  };
  app.on("load", describe);
  let described = "";
  app.on("draw", (state) => {
    const key = JSON.stringify([state.turned, state.components, state.basis, Boolean(state.other), app.model.fit]);
    if (key !== described) describe();
    described = key;
  });
  if (app.server || app.file) second(app, body);
  body.append(legend);
}
