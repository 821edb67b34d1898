// Whole numbers from few bytes, and bytes from text: the other half of src/patchprism/explorer/coding.py and html.py.

const BITS = 12;
const SYMBOLS = 64;
const ESCAPE = SYMBOLS - 1;
const SLOTS = 1 << BITS;
const WEIGHT = 1 << 12;

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;.=>?@^_`{|}~";

// Python's base85 with "." for "<": what travels inside notebooks, whose JSON spells control characters out.
function decode85(text) {
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

// Seven bits a character; from U+0080 on a character holds one of three that HTML would spoil, and the next.
const SPOILT = [0, 13, 60];

function decode128(text) {
  const length = text.length;
  const bytes = new Uint8Array(Math.ceil((length * 14) / 8));
  let at = 0;
  let word = 0;
  let held = 0;
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i);
    if (code < 128) {
      word = (word << 7) | code;
      held += 7;
    } else {
      word = (word << 14) | (SPOILT[(code - 128) >> 7] << 7) | (code & 127);
      held += 14;
    }
    while (held >= 8) {
      held -= 8;
      bytes[at++] = word >>> held;
    }
    word &= 255;
  }
  return bytes.subarray(0, at);
}

export function decodeText(text, code) {
  return code === "85" ? decode85(text) : decode128(text);
}

// coding.decode, in pieces: numbers of one kind after another, as many as are asked for.
export class Decoder {
  constructor(bytes) {
    // A copy, since typed arrays of two and four bytes must start at multiples of these.
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const [count, nWords, nEscapes, nLow] = [0, 4, 8, 12].map((at) => view.getUint32(at, true));
    this.count = count; // of numbers
    this.lanes = view.getUint16(16, true);
    const nClasses = view.getUint16(18, true);
    let at = bytes.byteOffset + 20;
    const take = (Type, count) => {
      const part = new Type(bytes.buffer.slice(at, at + count * Type.BYTES_PER_ELEMENT));
      at += part.byteLength;
      return part;
    };
    this.shifts = take(Uint8Array, nClasses);
    this.frequencies = take(Uint16Array, nClasses * SYMBOLS);
    this.states = take(Uint32Array, this.lanes);
    this.words = take(Uint16Array, nWords);
    this.escapes = take(Int32Array, nEscapes);
    this.low = take(Uint8Array, nLow);
    this.starts = new Uint16Array(nClasses * SYMBOLS);
    this.slots = new Uint8Array(nClasses * SLOTS);
    for (let c = 0; c < nClasses; c++) {
      let start = 0;
      for (let s = c * SYMBOLS; s < (c + 1) * SYMBOLS; s++) {
        this.starts[s] = start;
        this.slots.fill(s - c * SYMBOLS, c * SLOTS + start, c * SLOTS + start + this.frequencies[s]);
        start += this.frequencies[s];
      }
    }
    Object.assign(this, { lane: 0, word: 0, escape: 0, lowAt: 0, lowWord: 0, lowHeld: 0 });
  }

  // The next number, of class c.
  next(c) {
    const { states, lane } = this;
    const state = states[lane];
    const slot = state & (SLOTS - 1);
    const symbol = this.slots[c * SLOTS + slot];
    const entry = c * SYMBOLS + symbol;
    let next = this.frequencies[entry] * (state >>> BITS) + slot - this.starts[entry];
    if (next < 65536) next = next * 65536 + this.words[this.word++];
    states[lane] = next;
    this.lane = lane + 1 === this.lanes ? 0 : lane + 1;
    const high = symbol === ESCAPE ? this.escapes[this.escape++] : (symbol >>> 1) ^ -(symbol & 1);
    const shift = this.shifts[c];
    return shift ? (high << shift) + this.bits(shift) : high;
  }

  // So many bits stored as they are, the lowest first; at most 16 at a time fit beside what is held.
  bits(count) {
    if (count > 16) return this.bits(16) + 65536 * this.bits(count - 16);
    while (this.lowHeld < count) {
      this.lowWord |= this.low[this.lowAt++] << this.lowHeld;
      this.lowHeld += 8;
    }
    const value = this.lowWord & ((1 << count) - 1);
    this.lowWord >>>= count;
    this.lowHeld -= count;
    return value;
  }
}

// What a row and its four neighbours, known already, add to the prediction of another; all at once, since sums
// are then read and written a fifth as often.
function addWeighted(total, [p, q, r, s, t], [a, b, c, d, e]) {
  for (let i = 0; i < total.length; i++) total[i] += p[i] * a + q[i] * b + r[i] * c + s[i] * d + t[i] * e;
}

// One row of one photo: predicted from the neighbours and `total`, and what was missed added.
function readRow(decoder, kind, row, [left, above, corner, right], own, total, start, [h, w]) {
  const [p, q, r, s] = own;
  for (let y = 0, i = start; y < h; y++) {
    for (let x = 0; x < w; x++, i++) {
      // At a border the nearest that is known, or nothing.
      const a = y ? row[i - w] : x ? row[i - 1] : 0;
      above[i] = a;
      left[i] = x ? row[i - 1] : a;
      corner[i] = x && y ? row[i - w - 1] : a;
      right[i] = y && x + 1 < w ? row[i - w + 1] : a;
      const sum = total[i] + p * left[i] + q * above[i] + r * corner[i] + s * right[i];
      row[i] = decoder.next(kind) + Math.floor(sum / WEIGHT + 0.5);
    }
  }
}

// coding.decode_rows: Int32Array (count * n), each row predicted from what is known before it.
export function decodeRows(bytes, count, grids) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const nWeights = view.getUint32(0, true);
  const weights = Array.from({ length: nWeights }, (_, i) => view.getInt16(4 + 2 * i, true));
  const decoder = new Decoder(bytes.subarray(4 + 2 * nWeights));
  const n = grids.reduce((sum, [h, w]) => sum + h * w, 0);
  const rows = new Int32Array(count * n);
  const known = []; // of each row before: itself and its four neighbours
  let at = 0;
  for (let k = 0; k < count; k++) {
    const row = rows.subarray(k * n, (k + 1) * n);
    const own = weights.slice(at, at + 4);
    const total = new Float64Array(n);
    known.forEach((five, j) => addWeighted(total, five, weights.slice(at + 4 + 5 * j, at + 9 + 5 * j)));
    at += 4 + 5 * known.length;
    const around = [0, 1, 2, 3].map(() => new Int32Array(n));
    let start = 0;
    for (const grid of grids) {
      readRow(decoder, k, row, around, own, total, start, grid);
      start += grid[0] * grid[1];
    }
    known.push([row, ...around]);
  }
  return rows;
}
