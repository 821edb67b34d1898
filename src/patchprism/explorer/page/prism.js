// The prism's file, changed to show what the page shows: safetensors read, edited and written.

function parse(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  return { header, data: bytes.subarray(8 + length) };
}

// A prism file whose options and ranges are the view's. changes: { options, ranges } where ranges maps a
// tensor's name to its float64 numbers, row by row.
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
  let text = JSON.stringify(header);
  const encoder = new TextEncoder();
  // Tensors start at a multiple of eight.
  const short = (8 - (encoder.encode(text).length % 8)) % 8;
  const head = encoder.encode(text + " ".repeat(short));
  const out = new Uint8Array(8 + head.length + content.length);
  new DataView(out.buffer).setBigUint64(0, BigInt(head.length), true);
  out.set(head, 8);
  out.set(content, 8 + head.length);
  return out;
}
