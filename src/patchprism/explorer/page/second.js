// A | B: shows another layer or model beside the present one, in colours that are turned to agree with it.

import { fitLabel, samePlace, turnWords } from "./agree.js";
import { element, setText } from "./dom.js";
import { readMessage } from "./message.js";
import { Model } from "./model.js";
import { initialState, linked } from "./state.js";
import { patchCanvas } from "./tile.js";
import { outlineOf } from "./view.js";

const writeOther = (other) => (other ? `${other.model}.${other.layer ?? ""}` : "");

function readOther(text) {
  const at = text.lastIndexOf(".");
  const layer = text.slice(at + 1);
  return at > 0 && /^\d*$/.test(layer) ? { model: text.slice(0, at), layer: layer === "" ? null : Number(layer) } : null;
}

export function second(app, body) {
  app.defaults.other = null; // { model, layer } of B; layer is null for the default layer of the model
  linked.set("other", { write: writeOther, read: readOther });
  let made = null; // { key, fit, model, turn, turnedTo, canvases, gallery }
  let running = false;
  let failed = "";
  let shownFor = "";

  const choose = element("select", { id: "second-model" });
  const slider = element("input", { type: "range", id: "second-layer", min: "0", step: "1" });
  const value = element("output", { id: "second-layer-value" });
  const row = element("label", { class: "slider" }, element("span", {}, "Layer of B"), slider, value);
  const swap = element("button", { type: "button", id: "swap", title: "Show B as A and A as B" }, "Swap A and B");
  const note = element("p", { class: "note", id: "second-note", role: "status" });
  body.append(element("label", { class: "choice" }, element("span", {}, "Beside"), choose), row, note, swap);

  const keyOf = ({ model, layer }) => [model, layer, app.model.root, app.model.photos.map(({ name, grid }) => [name, grid]).join()].join("|");
  const own = () => ({ model: app.model.header.model.name, layer: app.model.header.layers?.shown[0] ?? null });

  // The first layer of B: the one that the colours of A agree with, or otherwise an earlier layer.
  const firstLayer = (model) => {
    const { header, root } = app.model;
    if (model !== header.model.name || !header.layers) return null;
    const known = app.fits.get(root);
    const shown = header.layers.shown[0];
    if (known && known.model === model && known.layer !== shown) return known.layer;
    const numbers = app.source.layers();
    return numbers[Math.floor(numbers.indexOf(shown) / 2)] === shown ? numbers[numbers.length - 1] : numbers[Math.floor(numbers.indexOf(shown) / 2)];
  };

  choose.addEventListener("change", () => {
    app.change({ other: choose.value ? { model: choose.value, layer: firstLayer(choose.value) } : null });
  });
  slider.addEventListener("input", () => {
    const layer = app.source.layers(made?.model.header)[Number(slider.value)];
    setText(value, String(layer));
    app.change({ other: { ...app.state.other, layer } });
  });
  swap.addEventListener("click", async () => {
    const { model, layers } = made.model.header;
    await app.source.show({ model: model.name, layer: layers.shown[0] }, { other: own() });
  });

  const clear = () => {
    for (const { color, heat } of made?.canvases ?? []) {
      color.remove();
      heat.remove();
    }
    made = null;
  };

  // Fetches B if it has changed, and turns its colours to agree with A. The last request counts.
  const sync = async () => {
    if (running) return;
    running = true;
    try {
      for (;;) {
        const { other } = app.state;
        const { model } = app;
        if (!other) {
          clear();
          break;
        }
        if (made?.key !== keyOf(other)) {
          setText(note, "B is being computed.");
          const key = keyOf(other);
          const found = await app.source.beside(other);
          if (!found) throw new Error("B could not be computed.");
          clear();
          made = { key, fit: found.fit, model: new Model(found.message instanceof Uint8Array ? await readMessage(found.message) : found.message) };
          continue;
        }
        if (made.turnedTo !== model) {
          made.turn = made.fit === model.fit ? undefined : await app.source.turn(made.fit, model.fit);
          made.turnedTo = model;
          made.model.setTurns([made.turn, model.turn].filter(Boolean));
          if (made.turn === null) made.model.setTurns([]);
          continue;
        }
        break;
      }
      failed = "";
    } catch (error) {
      clear();
      failed = error.message;
    } finally {
      running = false;
    }
    show();
    app.schedule("view");
  };

  const place = () => {
    const { gallery } = app;
    const on = Boolean(made);
    if (made && made.gallery !== gallery) {
      for (const { color, heat } of made.canvases ?? []) {
        color.remove();
        heat.remove();
      }
      made.gallery = gallery;
      made.canvases = gallery.tiles.map((tile, i) => {
        const [color, heat] = ["second", "heat"].map((name) => patchCanvas(made.model.photos[i], name));
        tile.side.marks.before(color, heat);
        return { color, heat };
      });
    }
    if (gallery.second !== on) {
      gallery.second = on;
      gallery.root.dataset.ab = String(on);
      gallery.arrange();
    }
    const [a, b] = [app.model.header, made?.model.header];
    const label = (name, header, beside) => (header ? `${name} · ${fitLabel({ model: header.model.name, layers: header.layers }, beside.model.name)}` : "");
    for (const { main, side } of gallery.tiles) {
      for (const [pane, text] of [[main, made ? label("A", a, b) : ""], [side, label("B", b, a)]]) {
        if (text) pane.pane.dataset.label = text;
        else delete pane.pane.dataset.label;
      }
      if (!made) for (const line of [side.outline, side.halo]) line.removeAttribute("d");
    }
  };

  // The state of B, which has its own foreground, because the threshold of A's fit has no meaning in B.
  const stateOfB = (state) => {
    const opening = initialState(made.model.header);
    return { ...state, threshold: opening.threshold, side: state.side === "none" ? "none" : opening.side };
  };

  const paint = (state) => {
    if (!made?.canvases) return;
    const { model } = made;
    const shown = stateOfB(state);
    model.update(shown);
    const { colors, visible } = model.layer(shown);
    const overPhoto = state.mode === "overlay" || state.mode === "photo" || (state.mode === "colours" && state.background === "photo");
    const ground = overPhoto ? null : state.mode === "colours" && state.background === "grey" ? 128 : 0;
    const outlined = state.mode === "score" || state.basis === "all";
    made.canvases.forEach(({ color }, i) => {
      const { start, grid } = model.photos[i];
      const image = new ImageData(grid[1], grid[0]);
      for (let k = 0; k < grid[0] * grid[1]; k++) {
        const seen = !visible || visible[start + k];
        for (let c = 0; c < 3; c++) image.data[4 * k + c] = seen ? colors[3 * (start + k) + c] : (ground ?? 0);
        image.data[4 * k + 3] = seen || ground !== null ? 255 : 0;
      }
      color.getContext("2d").putImageData(image, 0, 0);
      const { side, photo } = app.gallery.tiles[i];
      const same = outlined && photo.grid.join() === grid.join() && photo.crop.join() === model.photos[i].crop.join();
      const path = same ? outlineOf(model.mask, start, grid) : "";
      for (const line of [side.outline, side.halo]) if (line.getAttribute("d") !== path) line.setAttribute("d", path);
    });
  };

  app.on("heat", (patch) => {
    if (!made?.canvases || patch < 0) return;
    const { photos } = app.model;
    const photo = app.model.photoOf(patch);
    const index = samePlace(photos[photo], made.model.photos[photo], patch - photos[photo].start);
    if (index < 0) return;
    const found = made.model.similarity.of(made.model.photos[photo].start + index);
    made.canvases.forEach(({ heat }, i) => {
      const { start, grid } = made.model.photos[i];
      const image = new ImageData(grid[1], grid[0]);
      app.gallery.putHeat(image.data, found, start, app.state.heatRange);
      heat.getContext("2d").putImageData(image, 0, 0);
    });
  });

  // Sets the controls to the state.
  const show = () => {
    const { state, model } = app;
    const { header } = model;
    const name = header.model.name;
    const options = [["", "Nothing"], ...app.source.models().map((each) => [each, each === name ? `Another layer of ${each}` : each])]
      .filter(([each]) => each !== name || header.layers);
    const text = options.join();
    if (choose.dataset.options !== text) {
      choose.dataset.options = text;
      choose.replaceChildren(...options.map(([each, told]) => new Option(told, each)));
    }
    choose.value = state.other?.model ?? "";
    choose.closest("label").hidden = options.length < 2;
    const b = made?.model.header;
    row.hidden = swap.hidden = !b?.layers || !state.other;
    if (!row.hidden && !running) {
      const numbers = app.source.layers(b);
      slider.max = String(numbers.length - 1);
      slider.value = String(numbers.indexOf(b.layers.shown[0]));
      setText(value, b.layers.shown.join(", "));
      slider.setAttribute("aria-valuetext", `layer ${b.layers.shown.join(", ")}`);
    }
    place();
    if (running) return;
    if (!state.other || !b) return setText(note, state.other ? failed : "");
    const [here, there] = [[header, b], [b, header]].map(([each, beside]) => fitLabel({ model: each.model.name, layers: each.layers }, beside.model.name));
    if (made.turn === undefined) setText(note, "A and B are the same.");
    else if (!state.turned) setText(note, `B, ${there}: its own colours, as fitted.`);
    else if (made.turn && !made.model.isTurned(stateOfB(state))) setText(note, `B, ${there}: its own colours, as fitted. Only the components of the first fit are turned.`);
    else setText(note, turnWords(made.turn, `B, ${there}`, `A, ${here}`));
  };

  app.on("load", () => {
    show();
    sync();
  });
  app.on("change", (patch) => "other" in patch && sync());
  app.on("draw", (state) => {
    // The controls are not updated while a threshold is dragged.
    const key = JSON.stringify([state.other, state.turned, state.components, state.basis, app.model.fit, made?.fit, running]);
    if (key !== shownFor) show();
    shownFor = key;
    paint(state);
  });
}
