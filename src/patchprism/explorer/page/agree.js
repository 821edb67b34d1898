// Turns the colours of one fit to agree with those of another, and describes the result in words. No DOM. The turns
// themselves are computed in explorer/layers.py, in the same way as patchprism compare does it.

// turns: from this fit to another, and optionally from that one to a third. Returns { object, pca, ranges, known }: the
// turned components, which are coloured by the ranges of the last fit, and the set of their numbers.
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
  const object = [points[0]]; // always set, because its length gives the number of patches
  reference.components.forEach((number, k) => {
    const deviation = reference.deviation[number - 1];
    object[number - 1] = points[k].map((value) => value * deviation);
  });
  return { object, pca: { deviation: reference.deviation }, ranges: reference.ranges, known: new Set(reference.components) };
}

// Describes how well the colours agree after turning. turn is null if too few patches are shared.
export function turnWords(turn, what, to) {
  if (!turn) return `${what}: fewer than 8 patches are foreground in both, too few to turn its colours to agree with ${to}.`;
  const { residual, shuffled, shifted } = turn;
  const chance = `${shuffled.toFixed(2)} for shuffled patches${shifted === null ? "" : ` and ${shifted.toFixed(2)} for shifted maps`}`;
  return `${what}: turned to agree with ${to}. Residual ${residual.toFixed(2)}; by chance it would be ${chance}.`;
}

export const RESIDUAL = "A residual of 0 means the same colours after turning; 1 means nothing in common.";

// A label for a fit: its layer, and its model unless that is `beside`.
export function fitLabel({ model, layers }, beside) {
  const layer = layers ? `layer${layers.shown.length > 1 ? "s" : ""} ${layers.shown.join(", ")}` : "";
  return [model === beside && layer ? "" : model, layer].filter(Boolean).join(", ");
}

// A note on turned colours, for everything that is exported.
export function turnedNote({ header, turn }) {
  const { model, layers } = turn.reference;
  const to = fitLabel(turn.reference, header.model.name);
  const one = model === header.model.name && layers?.shown.length === 1 && header.layers?.shown.length === 1;
  const compare = one ? `patchprism compare --layer ${layers.shown[0]},${header.layers.shown[0]}` : "patchprism compare";
  return `The colours in the page and its pictures are turned to agree with ${to}. The command, the prism and Save give the fit’s own colours; ${compare} turns them as the page does.`;
}

// The patch at the same place in another grid over the same photo; -1 if there is none.
export function samePlace(photo, other, index) {
  if (photo.grid.join() === other.grid.join() && photo.crop.join() === other.crop.join()) return index;
  const along = (at, n, [low, high], [start, end], m) => Math.floor(((low + ((at + 0.5) / n) * (high - low) - start) / (end - start)) * m);
  const [left, top, right, bottom] = photo.crop;
  const [a, b, c, d] = other.crop;
  const row = along(Math.floor(index / photo.grid[1]), photo.grid[0], [top, bottom], [b, d], other.grid[0]);
  const column = along(index % photo.grid[1], photo.grid[1], [left, right], [a, c], other.grid[1]);
  return row >= 0 && column >= 0 && row < other.grid[0] && column < other.grid[1] ? row * other.grid[1] + column : -1;
}
