// Reads, edits and writes the files of prisms and heads (safetensors).

function parse(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  return { header, data: bytes.subarray(8 + length) };
}

// Changes options and ranges in the file of a prism. changes: { options, ranges }, where ranges maps the name of a tensor to
// its float64 numbers, row by row.
export function editPrism(bytes, changes) {
  const { header, data } = parse(bytes);
  const content = data.slice();
  const prism = JSON.parse(header.__metadata__.patchprism);
  for (const [name, value] of Object.entries(changes.options)) {
    if (value === undefined) delete prism.options[name];
    else prism.options[name] = value;
  }
  header.__metadata__.patchprism = JSON.stringify(prism);
  for (const [name, numbers] of Object.entries(changes.ranges)) {
    const [begin] = header[name].data_offsets;
    const view = new DataView(content.buffer, content.byteOffset + begin);
    numbers.forEach((value, i) => view.setFloat64(8 * i, value, true));
  }
  return joined(header, content);
}

function joined(header, content) {
  const text = JSON.stringify(header);
  const encoder = new TextEncoder();
  // Tensors must start at a multiple of eight bytes.
  const short = (8 - (encoder.encode(text).length % 8)) % 8;
  const head = encoder.encode(text + " ".repeat(short));
  const out = new Uint8Array(8 + head.length + content.length);
  new DataView(out.buffer).setBigUint64(0, BigInt(head.length), true);
  out.set(head, 8);
  out.set(content, 8 + head.length);
  return out;
}

// Writes a file of float64 tensors: { name: [shape, numbers] }.
export function writeTensors(tensors, metadata) {
  const header = { __metadata__: metadata };
  let end = 0;
  for (const [name, [shape, numbers]] of Object.entries(tensors)) {
    header[name] = { dtype: "F64", shape, data_offsets: [end, end + 8 * numbers.length] };
    end += 8 * numbers.length;
  }
  const content = new DataView(new ArrayBuffer(end));
  let at = 0;
  for (const [, numbers] of Object.values(tensors)) for (const value of numbers) content.setFloat64((at += 8) - 8, value, true);
  return joined(header, new Uint8Array(content.buffer));
}

// Reads a file of float64 tensors: { metadata, tensors: { name: { shape, values } } }. Throws if it is not such a file.
export function readTensors(bytes) {
  const { header, data } = parse(bytes);
  const { __metadata__: metadata = {}, ...entries } = header;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(entries)) {
    const count = shape.reduce((product, side) => product * side, 1);
    if (dtype !== "F64" || end - begin !== 8 * count) throw new Error(`${name} is not a float64 tensor`);
    tensors[name] = { shape, values: Float64Array.from({ length: count }, (_, i) => view.getFloat64(begin + 8 * i, true)) };
  }
  return { metadata, tensors };
}
