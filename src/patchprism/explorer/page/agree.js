// Colours of one fit turned to agree with those of another: numbers and words, no DOM. explorer/layers.py finds the
// turns, as patchprism compare does.

// turns: from this fit to another, and perhaps on from there to a third. Returns the components that are coloured then,
// by the last one's ranges: { object, pca, ranges, known }, known being the numbers of the components that there are.
export function turnedColouring(model, turns) {
  const { fit, object: pca } = model.header;
  const n = model.count;
  let points = fit.components.map((signed) => {
    const index = Math.abs(signed) - 1;
    const deviation = pca.deviation[index];
    return Float64Array.from(model.object[index], (value) => (deviation > 0 ? value / deviation : 0));
  });
  for (const { rotation, center, target } of turns) {
    const moved = [0, 1, 2].map(() => new Float64Array(n));
    for (let i = 0; i < n; i++) {
      const [x, y, z] = [points[0][i] - center[0], points[1][i] - center[1], points[2][i] - center[2]];
      for (let k = 0; k < 3; k++) moved[k][i] = x * rotation[0][k] + y * rotation[1][k] + z * rotation[2][k] + target[k];
    }
    points = moved;
  }
  const { reference } = turns[turns.length - 1];
  const object = [points[0]]; // the first is there in any case: its length counts
  reference.components.forEach((number, k) => {
    const deviation = reference.deviation[number - 1];
    object[number - 1] = points[k].map((value) => value * deviation);
  });
  return { object, pca: { deviation: reference.deviation }, ranges: reference.ranges, known: new Set(reference.components) };
}

// What turning leaves, in words; turn: null where too few patches are shared.
export function turnWords(turn, what, to) {
  if (!turn) return `${what}: fewer than 8 patches are foreground in both, too few to turn its colours to agree with ${to}.`;
  const { residual, shuffled, shifted } = turn;
  const chance = `${shuffled.toFixed(2)} for shuffled patches${shifted === null ? "" : ` and ${shifted.toFixed(2)} for shifted maps`}`;
  return `${what}: turned to agree with ${to}. Residual ${residual.toFixed(2)}; by chance it would be ${chance}.`;
}

export const RESIDUAL = "A residual of 0 means the same up to a turn, 1 nothing in common.";

// What tells a fit from others: its layer, and its model where that is not the one of `beside`.
export function fitLabel({ model, layers }, beside) {
  const layer = layers ? `layer${layers.shown.length > 1 ? "s" : ""} ${layers.shown.join(", ")}` : "";
  return [model === beside && layer ? "" : model, layer].filter(Boolean).join(", ");
}

// What to know of turned colours before they leave the page.
export function turnedNote({ header, turn }) {
  const { model, layers } = turn.reference;
  const to = fitLabel(turn.reference, header.model.name);
  const one = model === header.model.name && layers?.shown.length === 1 && header.layers?.shown.length === 1;
  const compare = one ? `patchprism compare --layer ${layers.shown[0]},${header.layers.shown[0]}` : "patchprism compare";
  return `The colours in the page and its pictures are turned to agree with ${to}. The command, the prism and Save give the fit’s own colours; ${compare} turns them as the page does.`;
}

// The patch of another grid over the same photo that lies where a patch of one grid does; -1 where it has none.
export function samePlace(photo, other, index) {
  if (photo.grid.join() === other.grid.join() && photo.crop.join() === other.crop.join()) return index;
  const along = (at, n, [low, high], [start, end], m) => Math.floor(((low + ((at + 0.5) / n) * (high - low) - start) / (end - start)) * m);
  const [left, top, right, bottom] = photo.crop;
  const [a, b, c, d] = other.crop;
  const row = along(Math.floor(index / photo.grid[1]), photo.grid[0], [top, bottom], [b, d], other.grid[0]);
  const column = along(index % photo.grid[1], photo.grid[1], [left, right], [a, c], other.grid[1]);
  return row >= 0 && column >= 0 && row < other.grid[0] && column < other.grid[1] ? row * other.grid[1] + column : -1;
}
