// Everything about single patches: hover, heat map, readout and pins.

import { byId } from "./dom.js";
import { Links } from "./links.js";
import { factsOf, spokenFacts } from "./readout.js";
import { MAX_PINS } from "./state.js";

const MOST_LINED = 12; // photos; with more, a strip of matches replaces the lines

export function inspect(app) {
  const soon = new MessageChannel(); // starts a task immediately; timers would wait
  let foreseen;
  let links = null;
  let linked = [];
  let mask = null;
  let relinking = 0;
  soon.port1.onmessage = () => {
    const query = foreseen;
    foreseen = undefined;
    if (query < app.model.count) app.model.similarity.of(query);
  };

  // Computes the similarities of the patch under the pointer in a separate task, before the frame that shows them. If the
  // pointer has passed several patches since the last task, only the latest counts.
  app.foresee = (photo, index) => {
    if (!app.state.heat || app.state.held) return;
    const asked = foreseen !== undefined;
    foreseen = app.model.photos[photo].start + index;
    if (!asked) soon.port2.postMessage(null);
  };

  const heat = () => {
    const { held, heat: wanted, heatRange } = app.state;
    const patch = held ? app.model.photos[held.photo].start + held.index : wanted && app.hovered && !app.tool ? app.hovered.patch : -1;
    app.emit("heat", patch);
    app.gallery.drawHeat(patch >= 0 ? app.model.similarity.of(patch) : null, heatRange);
  };

  app.on("hover", (at) => {
    const { model, gallery } = app;
    gallery.drawCursor(at ? at.photo : -1, at?.index);
    heat();
    if (!at?.spoken) return;
    const best = model.matches(at, app.state.everywhere).map((match) => `${model.photos[match.photo].name} ${match.value.toFixed(2)}`);
    app.hovered.spoken = false; // once per move, not once per frame
    app.say(`${spokenFacts(factsOf(app, at))}. Best matches: ${best.slice(0, 5).join(", ") || "no other photo"}`);
  });

  app.pin = (photo, index) => {
    const same = (pin) => pin?.photo === photo && pin.index === index;
    const { pins, held } = app.state;
    const known = pins.findIndex(same);
    app.clicked = known >= 0 || pins.length < MAX_PINS;
    if (!app.clicked) {
      app.toast(`There are already ${MAX_PINS} pins, which is the maximum. Remove one first.`);
      return;
    }
    app.history.cut();
    if (known >= 0) app.change({ pins: pins.filter((_, i) => i !== known), held: same(held) ? null : held });
    else app.change({ pins: [...pins, { photo, index }], held: { photo, index } });
    if (app.hovered) app.hovered.spoken = false; // the next frame must not interrupt what is said here
    const count = app.state.pins.length;
    app.say(known >= 0 ? "Pin removed." : `Pinned. ${count} ${count === 1 ? "pin" : "pins"}.`);
  };

  const link = () => {
    const { model, state } = app;
    model.update(state);
    mask = state.everywhere ? null : model.mask;
    linked = state.pins.map((pin) => ({ pin, matches: model.matches(pin, state.everywhere) }));
    app.lined = model.photos.length - state.hidden.length <= MOST_LINED;
    links.show(linked, app.lined);
    app.emit("pins", linked);
    heat();
  };

  app.on("load", () => {
    links?.close();
    links = new Links(byId("lines"), app.gallery);
    link();
  });
  app.on("change", (patch) => {
    if (patch.pins || "everywhere" in patch || patch.hidden) link();
    else if ("held" in patch || patch.heatRange || "heat" in patch) heat();
  });
  // Matches lie in the foreground. While its threshold is dragged, they are updated with a delay.
  app.on("draw", (state) => {
    clearTimeout(relinking);
    if (state.pins.length && !state.everywhere && mask !== app.model.mask) relinking = setTimeout(link, 120);
  });
  addEventListener("scroll", () => links?.drawLines(), { passive: true, capture: true });
}
