// The message, decoded: docs/explorer.md describes it, src/patchprism/explorer/message.py writes it.

const MAGIC = "PPRISMX";
const VERSION = 1;
const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;.=>?@^_`{|}~";

// Python's base85 with "." for "<", as html.encode writes it.
export function decode85(text) {
  const values = new Uint8Array(128);
  for (let i = 0; i < ALPHABET.length; i++) values[ALPHABET.charCodeAt(i)] = i;
  const length = text.length;
  const padding = (5 - (length % 5)) % 5;
  const bytes = new Uint8Array(((length + padding) / 5) * 4);
  for (let i = 0, at = 0; i < length; i += 5, at += 4) {
    let word = 0;
    for (let k = 0; k < 5; k++) word = word * 85 + (i + k < length ? values[text.charCodeAt(i + k)] : 84);
    bytes[at] = word >>> 24;
    bytes[at + 1] = word >>> 16;
    bytes[at + 2] = word >>> 8;
    bytes[at + 3] = word;
  }
  return bytes.subarray(0, bytes.length - padding);
}

export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Byte planes to numbers: Int8Array, Int16Array or Int32Array.
function fromPlanes(kind, data, count) {
  if (kind === "int8") return new Int8Array(data.buffer, data.byteOffset, count);
  const numbers = kind === "int16" ? new Int16Array(count) : new Int32Array(count);
  if (kind === "int16") {
    for (let i = 0; i < count; i++) numbers[i] = data[i] | (data[count + i] << 8);
    return numbers;
  }
  const [p1, p2, p3] = [count, 2 * count, 3 * count];
  for (let i = 0; i < count; i++) {
    const word = (data[i] | (data[p1 + i] << 8) | (data[p2 + i] << 16) | (data[p3 + i] << 24)) >>> 0;
    numbers[i] = (word >>> 1) ^ -(word & 1);
  }
  return numbers;
}

// A message's bytes -> { header, array(name), bytes(name) }, the arrays decoded.
export async function readMessage(content) {
  const magic = String.fromCharCode(...content.subarray(0, 7));
  if (magic !== MAGIC) throw new Error("This is not an explorer message.");
  if (content[7] !== VERSION) throw new Error(`This message has version ${content[7]}, the page reads version ${VERSION}.`);
  const length = new DataView(content.buffer, content.byteOffset + 8, 4).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(content.subarray(12, 12 + length)));
  const start = 12 + length;
  const decoded = {};
  await Promise.all(
    Object.entries(header.buffers).map(async ([name, info]) => {
      const bytes = content.subarray(start + info.offset, start + info.offset + info.length);
      if (info.kind === "raw") decoded[name] = bytes;
      else if (info.kind === "deflate") decoded[name] = await inflate(bytes);
      else decoded[name] = fromPlanes(info.kind, await inflate(bytes), info.shape.reduce((a, b) => a * b, 1));
    }),
  );
  return { header, buffers: decoded };
}

// Components (k arrays of float64) from their whole-number codes: exact, since steps are powers of two.
export function componentsOf(codes, steps) {
  const n = codes.length / steps.length;
  return steps.map((step, k) => {
    const values = new Float64Array(n);
    for (let i = 0; i < n; i++) values[i] = codes[k * n + i] * step;
    return values;
  });
}
