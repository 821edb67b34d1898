// Decodes the message, which docs/explorer.md describes and src/patchprism/explorer/message.py writes.

const MAGIC = "PPRISMX";
const VERSION = 5;

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const ARRAYS = { float32: Float32Array, int32: Int32Array, int16: Int16Array, int8: Int8Array };

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// The bytes of a message -> { header, buffers }.
export async function readMessage(content) {
  const magic = String.fromCharCode(...content.subarray(0, 7));
  if (magic !== MAGIC) throw new Error("This is not an explorer message.");
  if (content[7] !== VERSION) throw new Error(`This message has version ${content[7]}, the page reads version ${VERSION}.`);
  const length = new DataView(content.buffer, content.byteOffset + 8, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(content.subarray(12, 12 + length)));
  const start = 12 + length;
  const buffers = {};
  await Promise.all(
    Object.entries(header.buffers).map(async ([name, { kind, offset, length: size }]) => {
      const bytes = content.subarray(start + offset, start + offset + size);
      const inflated = kind === "raw" ? bytes : await inflate(bytes);
      buffers[name] = kind in ARRAYS ? new ARRAYS[kind](inflated.buffer) : inflated;
    }),
  );
  return { header, buffers };
}

// Components (k arrays of float64) from their integer codes. The result is exact, because steps are powers of two.
export function componentsOf(codes, steps) {
  const n = codes.length / steps.length;
  return steps.map((step, k) => {
    const values = new Float64Array(n);
    for (let i = 0; i < n; i++) values[i] = codes[k * n + i] * step;
    return values;
  });
}
