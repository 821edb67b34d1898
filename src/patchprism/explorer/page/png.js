// PNG files, written here and not by a canvas: browsers that guard against fingerprinting put noise into what is
// read back from one. Firefox with privacy.resistFingerprinting changed 99 % of a picture's pixels, by up to 251.

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

function pngChunk(type, data) {
  const out = new Uint8Array(data.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) out[4 + i] = type.charCodeAt(i);
  out.set(data, 8);
  let crc = ~0;
  for (let i = 4; i < data.length + 8; i++) crc = CRC_TABLE[(crc ^ out[i]) & 255] ^ (crc >>> 8);
  view.setUint32(data.length + 8, ~crc >>> 0);
  return out;
}

function paeth(left, above, corner) {
  const fromLeft = Math.abs(above - corner);
  const fromAbove = Math.abs(left - corner);
  const fromCorner = Math.abs(left + above - 2 * corner);
  if (fromLeft <= fromAbove && fromLeft <= fromCorner) return left;
  return fromAbove <= fromCorner ? above : corner;
}

// Rows of RGB, each as its difference from the row above or from Paeth's guess, whichever is smaller.
function filteredRows(rgba, width, height) {
  const length = 3 * width;
  const out = new Uint8Array((length + 1) * height);
  const rows = [new Uint8Array(length + 3), new Uint8Array(length + 3)]; // a pixel of 0 before the first
  const guessed = new Uint8Array(length);
  const size = (byte) => (byte < 128 ? byte : 256 - byte);
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    const [row, before] = y % 2 ? [rows[1], rows[0]] : rows;
    for (let at = 3; at < length + 3; at += 3, from += 4) {
      row[at] = rgba[from];
      row[at + 1] = rgba[from + 1];
      row[at + 2] = rgba[from + 2];
    }
    let upSum = 0;
    let guessedSum = 0;
    out[to++] = 2;
    for (let i = 0; i < length; i++) {
      const value = row[i + 3];
      out[to + i] = value - before[i + 3];
      guessed[i] = value - paeth(row[i], before[i + 3], before[i]);
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

// The file of a picture: RGBA, whose alpha is left out.
export async function encodePng(rgba, width, height) {
  const stream = new Blob([filteredRows(rgba, width, height)]).stream().pipeThrough(new CompressionStream("deflate"));
  const data = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 2, 0, 0, 0], 8); // eight bits of red, green and blue
  const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);
  return new Blob([signature, pngChunk("IHDR", header), pngChunk("IDAT", data), pngChunk("IEND", new Uint8Array())], { type: "image/png" });
}
