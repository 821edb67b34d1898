// Writes PNG files without a canvas, because browsers that protect against fingerprinting add noise to what is read from a
// canvas. Firefox with privacy.resistFingerprinting changed 99 % of a picture's pixels, by up to 251.

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

export function crc32(bytes) {
  let crc = ~0;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

function pngChunk(type, data) {
  const out = new Uint8Array(data.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(data, 8);
  view.setUint32(data.length + 8, crc32(out.subarray(4, data.length + 8)));
  return out;
}

function paeth(left, above, corner) {
  const fromLeft = Math.abs(above - corner);
  const fromAbove = Math.abs(left - corner);
  const fromCorner = Math.abs(left + above - 2 * corner);
  if (fromLeft <= fromAbove && fromLeft <= fromCorner) return left;
  return fromAbove <= fromCorner ? above : corner;
}

// Filters rows of some channels of RGBA for PNG and PDF: each row becomes its difference from the row above or from Paeth's
// prediction, whichever is smaller.
export function filteredRows(rgba, width, height, channels = [0, 1, 2]) {
  const step = channels.length;
  const length = step * width;
  const out = new Uint8Array((length + 1) * height);
  const rows = [new Uint8Array(length + step), new Uint8Array(length + step)]; // begins with a pixel of zeros, the left neighbour of the first pixel
  const guessed = new Uint8Array(length);
  const size = (byte) => (byte < 128 ? byte : 256 - byte);
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    const [row, before] = y % 2 ? [rows[1], rows[0]] : rows;
    for (let at = step; at < length + step; at += step, from += 4) {
      for (let c = 0; c < step; c++) row[at + c] = rgba[from + channels[c]];
    }
    let upSum = 0;
    let guessedSum = 0;
    out[to++] = 2;
    for (let i = 0; i < length; i++) {
      const value = row[i + step];
      out[to + i] = value - before[i + step];
      guessed[i] = value - paeth(row[i], before[i + step], before[i]);
      upSum += size(out[to + i]);
      guessedSum += size(guessed[i]);
    }
    if (guessedSum < upSum) {
      out[to - 1] = 4;
      out.set(guessed, to);
    }
    to += length;
  }
  return out;
}

export async function deflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The PNG file of a picture, as a blob. kind: "rgb" drops alpha, "rgba" keeps it, "grey" keeps red only.
export async function encodePng(rgba, width, height, { kind = "rgb", dpi, text = {} } = {}) {
  const [channels, type] = { rgb: [[0, 1, 2], 2], rgba: [[0, 1, 2, 3], 6], grey: [[0], 0] }[kind];
  const data = await deflate(filteredRows(rgba, width, height, channels));
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, type, 0, 0, 0], 8); // eight bits per channel
  const chunks = [pngChunk("IHDR", header)];
  if (dpi) {
    const resolution = new Uint8Array(9);
    const perMetre = Math.round(dpi / 0.0254);
    new DataView(resolution.buffer).setUint32(0, perMetre);
    new DataView(resolution.buffer).setUint32(4, perMetre);
    resolution[8] = 1;
    chunks.push(pngChunk("pHYs", resolution));
  }
  for (const [name, value] of Object.entries(text)) {
    chunks.push(pngChunk("iTXt", new TextEncoder().encode(`${name}\0\0\0\0\0${value}`))); // UTF-8, not compressed
  }
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  return new Blob([signature, ...chunks, pngChunk("IDAT", data), pngChunk("IEND", new Uint8Array())], { type: "image/png" });
}
