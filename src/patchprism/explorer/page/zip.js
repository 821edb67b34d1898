// Writes a ZIP archive without compression, because pictures are compressed already.

import { crc32 } from "./png.js";

// File names that are valid on all systems, and differ even if case is ignored.
export function fileNames(names) {
  const taken = new Set();
  return names.map((name) => {
    const clean = name.replace(/[\u0000-\u001f<>:"/\\|?*\u007f]/g, "_").replace(/^[ .]+|[ .]+$/g, "") || "photo";
    const [, stem, suffix] = /^(.*?)((?:\.[^.]{1,10})?)$/su.exec(clean);
    let given = clean;
    for (let n = 2; taken.has(given.toLowerCase()); n++) given = `${stem} (${n})${suffix}`;
    taken.add(given.toLowerCase());
    return given;
  });
}

// files: [{ name, blob }] -> a blob of at most 4 GB.
export async function zip(files, when = new Date()) {
  const time = (when.getHours() << 11) | (when.getMinutes() << 5) | (when.getSeconds() >> 1);
  const day = (Math.max(when.getFullYear() - 1980, 0) << 9) | ((when.getMonth() + 1) << 5) | when.getDate();
  const parts = [];
  const list = [];
  let offset = 0;
  const names = fileNames(files.map((file) => file.name));
  for (const [i, { blob }] of files.entries()) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const name = new TextEncoder().encode(names[i]);
    // The fields that a file's header and its entry in the list share: version 2.0, UTF-8 names, no compression.
    const common = new DataView(new ArrayBuffer(26));
    [20, 0x800, 0, time, day].forEach((value, k) => common.setUint16(2 * k, value, true));
    [crc32(bytes), bytes.length, bytes.length].forEach((value, k) => common.setUint32(10 + 4 * k, value, true));
    common.setUint16(22, name.length, true);
    const shared = new Uint8Array(common.buffer);
    parts.push(Uint8Array.of(80, 75, 3, 4), shared, name, bytes);
    const rest = new DataView(new ArrayBuffer(14));
    rest.setUint32(10, offset, true);
    list.push(Uint8Array.of(80, 75, 1, 2, 20, 0), shared, new Uint8Array(rest.buffer), name);
    offset += 30 + name.length + bytes.length;
    if (offset > 0xffffffff) throw new Error("These files are larger than 4 GB together, which this archive cannot hold.");
  }
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, files.length, true);
  end.setUint16(10, files.length, true);
  end.setUint32(12, list.reduce((sum, part) => sum + part.length, 0), true);
  end.setUint32(16, offset, true);
  return new Blob([...parts, ...list, new Uint8Array(end.buffer)], { type: "application/zip" });
}
