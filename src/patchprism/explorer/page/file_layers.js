// Layers in a single file. Each layer is a separate message inside the message, without the photos.

import { readMessage } from "./message.js";
import { keptState } from "./served.js";
import { linked } from "./state.js";

export class FileLayers {
  constructor(message) {
    this.message = message;
    this.first = this.shown = message.header.layers.shown[0]; // in a file, the number of a fit is its layer
    this.read = new Map([[this.first, message]]);
  }

  get layers() {
    return this.message.header.carried.layers;
  }

  // The message of a layer, to which the photos are added.
  async of(layer) {
    if (!this.read.has(layer)) {
      const { header, buffers } = await readMessage(this.message.buffers[`layer-${layer}`]);
      for (const [name, bytes] of Object.entries(this.message.buffers)) if (name.startsWith("photo-")) buffers[name] = bytes;
      this.read.set(layer, { header, buffers });
    }
    return this.read.get(layer);
  }

  // The layer that the fragment of a link names.
  named(fragment) {
    const layer = Number(new URLSearchParams(fragment.replace(/^#/, "")).get("fit") ?? this.first);
    return this.layers.includes(layer) ? layer : this.first;
  }

  turn(layer, other) {
    return this.message.header.carried.turns[layer]?.[other] ?? null;
  }
}

// The source of layers for layers.js and second.js.
export function fileSource(app) {
  const { file } = app;
  linked.set("fit", { write: String, read: () => undefined }); // read by FileLayers.named, before there is a state
  const load = async (layer, settings) => {
    const message = await file.of(layer);
    file.shown = layer;
    await app.load(message, settings);
  };
  app.goToFit = (state) => load(state.fit, () => state);
  app.openFile = (fragment) => load(file.named(fragment), fragment);
  return {
    layers: () => file.layers,
    models: () => [app.model.header.model.name],
    free: async () => {},
    turn: async (layer, other) => file.turn(layer, other),
    beside: async ({ model, layer }) => (model === app.model.header.model.name && file.layers.includes(layer) ? { fit: layer, message: await file.of(layer) } : null),
    show: async ({ layer }, more = {}) => {
      const before = { ...app.state };
      await load(layer, (opening, old, now) => ({ ...keptState(before, opening, old, now, { elsewhere: true }), ...more, fit: layer }));
      app.history.note(before, "moved");
      app.schedule("view");
    },
  };
}
