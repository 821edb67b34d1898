// What the parts of the page share: the model of the message, the state of the view, and the events.
//
// A part is a function of the app, called once. It listens with app.on(event, listener):
//   "load"    (model)          another message is shown, with a new state and gallery
//   "change"  (patch, state)   the state has changed; emitted immediately
//   "draw"    (state)          once per frame after changes, when masks and colours are up to date
//   "hover"   (at or null)     once per frame: { photo, index, patch }, where patch is counted over all photos
//   "heat"    (patch)          the patch whose heat map is shown, counted over all photos; -1 for none
//   "tool"    (tool or null)   another tool handles presses in photos
//   "theme"   ()               the page has changed between light and dark
// Values that a part adds to the opening view are kept in app.defaults, so that links, undo and redo include them.

import { byId } from "./dom.js";
import { History } from "./history.js";

const sameValue = (a, b) => a === b || (typeof a === "object" && JSON.stringify(a) === JSON.stringify(b));

export class App {
  constructor() {
    this.listeners = {};
    this.defaults = {};
    this.keys = new Map();
    this.history = new History();
    this.stale = {};
    this.tool = null;
    this.server = null;
    this.model = null;
    this.gallery = null;
  }

  on(event, listener) {
    (this.listeners[event] ??= new Set()).add(listener);
    return () => this.listeners[event].delete(listener);
  }

  emit(event, ...values) {
    for (const listener of this.listeners[event] ?? []) listener(...values);
  }

  // Changes some values of the state. With { remember: false }, the change cannot be undone.
  change(patch, { remember = true, kind } = {}) {
    const changed = Object.keys(patch).filter((key) => !sameValue(this.state[key], patch[key]));
    if (!changed.length) return;
    if (remember) this.history.note({ ...this.state }, kind ?? changed.sort().join());
    this.put(patch);
  }

  put(patch) {
    Object.assign(this.state, patch);
    this.emit("change", patch, this.state);
    this.schedule("view");
  }

  undo() {
    this.step("undo", "Nothing to undo.");
  }

  redo() {
    this.step("redo", "Nothing to redo.");
  }

  // Steps are done one after the other, because going to another fit takes a moment.
  step(way, otherwise) {
    if (this.going) {
      this.going.then(() => this.step(way, otherwise));
      return;
    }
    const state = this.history[way]({ ...this.state });
    if (!state) this.toast(otherwise);
    else if (state.fit === this.state.fit) this.put(state);
    else this.going = this.report(this.goToFit(state)).finally(() => (this.going = null));
  }

  // Draws once per frame, however many changes there are.
  schedule(what) {
    this.stale[what] = true;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      const { view, hover } = this.stale;
      this.stale = {};
      if (view) this.draw();
      if (hover) this.emit("hover", this.hovered);
    });
  }

  draw() {
    this.model.update(this.state);
    this.gallery.draw(this.state);
    this.emit("draw", this.state);
  }

  // Sets the patch under the mouse or the keyboard cursor; null for none.
  hover(at) {
    this.hovered = at && { ...at, patch: this.model.photos[at.photo].start + at.index };
    this.schedule("hover");
  }

  // Sets the tool that handles presses in photos: { name, cursor, down(at), move(at), up(at), cancel() }, where at is
  // { tile, photo, index, x, y, event }, with x and y in patches of the photo's grid. Without a tool (null), a press pins.
  setTool(tool) {
    if (this.tool === tool) return;
    this.tool?.cancel?.();
    this.tool = tool;
    this.gallery?.showTool(tool);
    this.emit("tool", tool);
  }

  // Sets what a key does. The list of keys is in page.html.
  addKey(key, does) {
    this.keys.set(key, does);
  }

  async report(promise) {
    try {
      return await promise;
    } catch (error) {
      this.toast(error.message);
    }
  }

  toast(text) {
    const toast = byId("toast");
    toast.textContent = text;
    toast.classList.add("seen");
    clearTimeout(this.toastTimer);
    this.toastTimer = setTimeout(() => toast.classList.remove("seen"), 4000);
  }

  // Has screen readers say a text.
  say(text) {
    byId("live").textContent = text;
  }

  give(blob, name) {
    const anchor = document.createElement("a");
    anchor.href = URL.createObjectURL(blob);
    anchor.download = name;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 10_000);
  }
}
