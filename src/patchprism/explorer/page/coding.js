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
    const [, nWords, nEscapes, nLow] = [0, 4, 8, 12].map((at) => view.getUint32(at, true));
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
    return shift ? high * 2 ** shift + this.bits(shift) : high;
  }

  bits(count) {
    let { lowWord, lowHeld } = this;
    while (lowHeld < count) {
      lowWord += this.low[this.lowAt++] * 2 ** lowHeld; // may pass 31 bits, so no shifts
      lowHeld += 8;
    }
    const size = 2 ** count;
    const value = lowWord % size;
    this.lowWord = (lowWord - value) / size;
    this.lowHeld = lowHeld - count;
    return value;
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
    known.forEach((values, j) => {
      const weight = weights[at + 4 + j];
      if (weight) for (let i = 0; i < n; i++) total[i] += values[i] * weight;
    });
    at += 4 + known.length;
    const around = [0, 1, 2, 3].map(() => new Int32Array(n));
    const [left, above, corner, right] = around;
    let start = 0;
    for (const [h, w] of grids) {
      for (let y = 0, i = start; y < h; y++) {
        for (let x = 0; x < w; x++, i++) {
          // At a border the nearest that is known, or nothing.
          const a = y ? row[i - w] : x ? row[i - 1] : 0;
          above[i] = a;
          left[i] = x ? row[i - 1] : a;
          corner[i] = x && y ? row[i - w - 1] : a;
          right[i] = y && x + 1 < w ? row[i - w + 1] : a;
          const sum = total[i] + own[0] * left[i] + own[1] * above[i] + own[2] * corner[i] + own[3] * right[i];
          row[i] = decoder.next(k) + Math.floor(sum / WEIGHT + 0.5);
        }
      }
      start += h * w;
    }
    known.push(row, ...around);
  }
  return rows;
}
