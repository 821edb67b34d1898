// Undo and redo: keeps the state before each change. Values of a state are replaced and never changed in place, so a
// shallow copy of the state is enough.

const MOST = 200;
const PAUSE = 700; // milliseconds; changes of the same kind in shorter intervals, as in a drag, count as one

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

  // Keeps the state before a change. kind: what is changed; see PAUSE.
  note(before, kind) {
    const at = this.now();
    const goesOn = kind === this.last.kind && at - this.last.at < PAUSE && !this.future.length;
    this.last = { kind, at };
    this.future = [];
    if (goesOn) return;
    this.past.push(before);
    if (this.past.length > MOST) this.past.shift();
  }

  // Makes the next change a separate step, even if it follows immediately.
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
