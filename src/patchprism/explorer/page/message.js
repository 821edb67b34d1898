// The message, decoded: docs/explorer.md describes it, src/patchprism/explorer/message.py writes it.

import { decodeRows } from "./coding.js";

const MAGIC = "PPRISMX";
const VERSION = 3;

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A message's bytes -> { header, buffers }, decoded but for "codes", which similarity.js takes its time for.
export async function readMessage(content) {
  const magic = String.fromCharCode(...content.subarray(0, 7));
  if (magic !== MAGIC) throw new Error("This is not an explorer message.");
  if (content[7] !== VERSION) throw new Error(`This message has version ${content[7]}, the page reads version ${VERSION}.`);
  const length = new DataView(content.buffer, content.byteOffset + 8, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(content.subarray(12, 12 + length)));
  const grids = header.photos.map((photo) => photo.grid);
  const start = 12 + length;
  const buffers = {};
  await Promise.all(
    Object.entries(header.buffers).map(async ([name, { kind, shape, offset, length: size }]) => {
      const bytes = content.subarray(start + offset, start + offset + size);
      const inflated = kind === "raw" ? bytes : await inflate(bytes);
      if (kind === "rows") buffers[name] = decodeRows(inflated, shape[0], grids);
      else if (kind === "float32") buffers[name] = new Float32Array(inflated.buffer);
      else buffers[name] = inflated;
    }),
  );
  return { header, buffers };
}

// Components (k arrays of float64) from their rows of whole-number codes: exact, since steps are powers of two.
export function componentsOf(codes, steps) {
  const n = Math.floor(codes.length / (steps.length + 1)); // and a row of norms
  return steps.map((step, k) => {
    const values = new Float64Array(n);
    for (let i = 0; i < n; i++) values[i] = codes[k * n + i] * step;
    return values;
  });
}
