// A small box with the facts about the patch under the pointer, beside the patch and never over it.

import { byId, element, setText } from "./dom.js";
import { PIN_COLORS } from "./links.js";

const FAR = 8; // pixels between the patch and the box
const REST = 40; // milliseconds that the pointer must rest before the text changes

// The facts about a patch, for the readout and for screen readers.
export function factsOf(app, { photo, index, patch }) {
  const { model, state } = app;
  const w = model.photos[photo].grid[1];
  const components = state.basis === "all" ? model.scene : model.object;
  const hex = [0, 1, 2].map((c) => model.bytes[3 * patch + c].toString(16).padStart(2, "0")).join("");
  return {
    name: model.photos[photo].name,
    where: `row ${Math.floor(index / w) + 1}, column ${(index % w) + 1}`,
    score: model.scores[patch].toFixed(2),
    kept: model.mask[patch] === 1,
    mode: app.modeFact(photo, patch),
    components: [0, 1, 2].map((k) => (components[k] ? components[k][patch].toFixed(2) : "–").replace("-", "−")),
    color: `#${hex}`,
    cosines: state.pins.map((pin) => model.similarity.between(model.photos[pin.photo].start + pin.index, patch).toFixed(2).replace("-", "−")),
  };
}

// The facts as a sentence.
export function spokenFacts(facts) {
  const pins = facts.cosines.map((cosine, i) => `cosine to pin ${i + 1} ${cosine}`);
  const ground = facts.kept ? "foreground" : "background";
  return [`${facts.where}, score ${facts.score}, ${ground}`, ...(facts.mode ? [facts.mode] : []), `components ${facts.components.join(", ")}`, `colour ${facts.color}`, ...pins].join("; ");
}

export function readout(app) {
  const box = byId("readout");
  const cell = () => box.appendChild(element("span"));
  const [name, where, score, components, mode, color] = [cell(), cell(), cell(), cell(), cell(), cell()];
  const swatch = element("i", { class: "swatch" });
  const hex = element("b");
  color.append(swatch, hex);
  let pins = [];
  let size = [0, 0];
  let resting = 0;
  let wide = Infinity; // of the photos: the box does not cover the controls beside them
  new ResizeObserver(([{ borderBoxSize: [{ inlineSize, blockSize }] }]) => (size = [inlineSize, blockSize])).observe(box);
  new ResizeObserver(([{ borderBoxSize: [{ inlineSize }] }]) => (wide = inlineSize)).observe(box.parentElement);

  const fill = (at) => {
    const facts = factsOf(app, at);
    setText(name, facts.name);
    setText(where, facts.where);
    setText(score, `score ${facts.score} · ${facts.kept ? "foreground" : "background"}`);
    setText(components, `PC 1–3: ${facts.components.join("  ")}`);
    setText(mode, facts.mode);
    mode.hidden = !facts.mode;
    setText(hex, facts.color);
    swatch.style.background = facts.color;
    facts.cosines.forEach((cosine, i) => pins[i] && setText(pins[i].lastChild, `cosine to pin ${i + 1}: ${cosine}`));
  };
  app.on("pins", (links) => {
    for (const line of pins) line.remove();
    pins = links.map((_, i) => {
      const line = cell();
      const dot = element("i", { class: "swatch" });
      dot.style.background = PIN_COLORS[i % PIN_COLORS.length];
      line.append(dot, element("b"));
      return line;
    });
    if (app.hovered) fill(app.hovered);
  });
  app.on("hover", (at) => {
    clearTimeout(resting);
    const shown = !box.hidden;
    if (shown !== Boolean(at)) box.hidden = !at;
    if (!at) return;
    // The box follows immediately, but its text changes when the pointer rests, because painting it takes 9 ms of a frame.
    if (!shown) {
      fill(at);
      size = [box.offsetWidth, box.offsetHeight]; // the observer reports it too late for this frame
    } else if (at.spoken) fill(at);
    else resting = setTimeout(() => app.hovered && fill(app.hovered), REST);
    const { left, top, right, bottom } = at.box;
    const [width, height] = size;
    // Below and to the right of the patch, or on the other side near the end of the window.
    const x = right + FAR + width > wide ? Math.max(left - FAR - width, 0) : right + FAR;
    const y = bottom + FAR + height > innerHeight ? Math.max(top - FAR - height, 0) : bottom + FAR;
    box.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  });
}
