// Keys that work anywhere on the page; tile.js has the keys of a photo.

import { byId } from "./dom.js";
import { BACKGROUNDS, MODES } from "./state.js";

export function keys(app) {
  const next = (list, value) => list[(list.indexOf(value) + 1) % list.length];
  const step = (by) => app.change({ threshold: Math.round(1000 * Math.min(Math.max(app.state.threshold + by, 0), 1)) / 1000 });
  MODES.forEach((mode, i) => app.addKey(String(i + 1), () => app.change({ mode })));
  app.addKey("[", () => step(-0.01));
  app.addKey("]", () => step(0.01));
  app.addKey("b", () => app.change({ background: next(BACKGROUNDS, app.state.background) }));
  app.addKey("p", () => app.change({ beside: !app.state.beside }));
  app.addKey("h", () => app.change({ heat: !app.state.heat }));
  app.addKey("s", () => app.change({ smooth: !app.state.smooth }));
  for (const key of ["+", "="]) app.addKey(key, () => app.zoom(1.5));
  app.addKey("-", () => app.zoom(1 / 1.5));
  app.addKey("0", app.resetZoom);
  app.addKey("?", () => byId("keys").showModal());
  // Esc leaves one mode at a time, the innermost first, and deletes nothing.
  app.addKey("Escape", () => {
    if (app.tool) app.setTool(null);
    else if (app.state.single !== null) app.change({ single: null });
    else if (app.state.held) app.change({ held: null });
  });

  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.altKey) return;
    if (event.target.matches("select, textarea, input[type=text], input[type=file], input[type=number]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z" && key !== "y") return;
      event.preventDefault();
      if (key === "y" || event.shiftKey) app.redo();
      else app.undo();
      return;
    }
    const does = app.keys.get(key);
    if (!does) return;
    event.preventDefault();
    does();
  });
  byId("sheet").onclick = () => {
    const open = document.querySelector(".side-column").classList.toggle("open");
    byId("sheet").setAttribute("aria-expanded", open);
  };
  byId("help").onclick = () => byId("keys").showModal();
  byId("undo").onclick = () => app.undo();
  byId("redo").onclick = () => app.redo();
  app.on("draw", () => {
    byId("undo").disabled = !app.history.past.length;
    byId("redo").disabled = !app.history.future.length;
  });
  byId("theme").onclick = () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    app.emit("theme");
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => app.emit("theme"));
}
