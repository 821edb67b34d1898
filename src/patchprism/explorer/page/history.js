// Undo and redo: the states before each change. States are small objects whose values are replaced, never changed
// in place, so that a shallow copy keeps one.

const MOST = 200;
const PAUSE = 700; // milliseconds between changes of the same kind that count as one, such as those of a drag

export class History {
  constructor(now = () => performance.now()) {
    this.now = now;
    this.clear();
  }

  clear() {
    this.past = [];
    this.future = [];
    this.last = { kind: "", at: -Infinity };
  }

  // Keeps the state before a change. kind: what is changed; the same kind again within a moment is the same change.
  note(before, kind) {
    const at = this.now();
    const goesOn = kind === this.last.kind && at - this.last.at < PAUSE && !this.future.length;
    this.last = { kind, at };
    this.future = [];
    if (goesOn) return;
    this.past.push(before);
    if (this.past.length > MOST) this.past.shift();
  }

  // The next change is one of its own, whatever came before.
  cut() {
    this.last = { kind: "", at: -Infinity };
  }

  undo(current) {
    return this.step(this.past, this.future, current);
  }

  redo(current) {
    return this.step(this.future, this.past, current);
  }

  step(from, to, current) {
    if (!from.length) return null;
    this.cut();
    to.push(current);
    return from.pop();
  }
}
