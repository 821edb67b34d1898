// Writes a figure as PNG, SVG or PDF. scene: { width, height, paper, title, caption, command, items } in points, with y
// pointing down. An item is { kind: "image", x, y, width, height, pixels, columns, rows }, a "rect", "line" or "text".

import { deflate, encodePng, filteredRows } from "./png.js";

const MOST_PIXELS = 120_000_000;
const MOST_SIDE = 16_384; // largest side of a canvas that all browsers allow
const FONTS = { false: "Helvetica, Arial, 'Liberation Sans', sans-serif", true: "'Courier New', Courier, 'Liberation Mono', monospace" };

let measuring = null;

// The width of a text in points.
export function measureText(text, size, mono) {
  measuring ??= new OffscreenCanvas(1, 1).getContext("2d");
  measuring.font = `100px ${FONTS[Boolean(mono)]}`;
  return (measuring.measureText(text).width * size) / 100;
}

// Whether pixels can be read from a canvas: browsers that protect against fingerprinting return noise.
export function checkCanvas(context) {
  context.save();
  context.fillStyle = "#123456";
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  context.clearRect(0, 0, 1, 1);
  context.restore();
  if (Math.max(Math.abs(red - 0x12), Math.abs(green - 0x34), Math.abs(blue - 0x56)) > 8) {
    throw new Error("This browser protects against fingerprinting, so the page cannot read the pixels of photos. Choose SVG without the photo, or use the command.");
  }
}

export function figureSize(scene, dpi) {
  return [Math.max(1, Math.round((scene.width * dpi) / 72)), Math.max(1, Math.round((scene.height * dpi) / 72))];
}

// Refuses a figure that is too large for a canvas or for memory.
export function checkSize(figure, dpi, format) {
  const [width, height] = figureSize(figure, dpi);
  if (width * height > MOST_PIXELS || (format === "png" && Math.max(width, height) > MOST_SIDE)) {
    throw new Error(`The figure would have ${width} × ${height} pixels, which is more than a browser can draw. Lower the resolution or the width, or choose fewer photos.`);
  }
}

export async function toPng(scene, dpi) {
  const [width, height] = figureSize(scene, dpi);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  checkCanvas(context);
  const scale = dpi / 72;
  if (scene.paper) {
    context.fillStyle = scene.paper;
    context.fillRect(0, 0, width, height);
  }
  for (const item of scene.items) {
    if (item.kind !== "image") continue;
    // Panels have the resolution of the figure, so nothing is enlarged or smoothed.
    context.putImageData(new ImageData(item.pixels, item.columns, item.rows), Math.round(item.x * scale), Math.round(item.y * scale));
  }
  context.scale(scale, scale);
  for (const item of scene.items) drawItem(context, item);
  const { data } = context.getImageData(0, 0, width, height);
  const text = { Title: scene.title, Description: scene.caption, Comment: scene.command };
  return encodePng(data, width, height, { kind: scene.paper ? "rgb" : "rgba", dpi, text });
}

function drawItem(context, item) {
  if (item.kind === "text") {
    context.fillStyle = item.ink;
    context.font = `${item.size}px ${FONTS[Boolean(item.mono)]}`;
    context.fillText(item.text, item.x, item.y);
  } else if (item.kind === "rect" || item.kind === "line") {
    context.strokeStyle = item.stroke;
    context.lineWidth = item.wide;
    context.setLineDash(item.dashed ? [2.5, 2] : []);
    context.beginPath();
    if (item.kind === "rect") context.rect(item.x, item.y, item.width, item.height);
    else {
      context.moveTo(item.x1, item.y1);
      context.lineTo(item.x2, item.y2);
    }
    context.stroke();
  }
}

const short = (value) => String(Math.round(value * 1000) / 1000);
// Escapes a text for XML, without the characters that XML does not allow.
const xmlText = (text) =>
  text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "").replace(/[&<>"]/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[sign]);

async function dataUrl(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return `data:image/png;base64,${btoa(text)}`;
}

export async function toSvg(scene) {
  const { width, height } = scene;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${short(width)}pt" height="${short(height)}pt" viewBox="0 0 ${short(width)} ${short(height)}">`,
    `<title>${xmlText(scene.title)}</title>`,
    `<desc>${xmlText(`${scene.caption}\n${scene.command}`)}</desc>`,
  ];
  if (scene.paper) parts.push(`<rect width="100%" height="100%" fill="${scene.paper}"/>`);
  for (const item of scene.items) {
    const at = (names) => names.map((name) => `${name}="${short(item[name])}"`).join(" ");
    if (item.kind === "image") {
      const url = await dataUrl(await encodePng(item.pixels, item.columns, item.rows, { kind: item.clear ? "rgba" : "rgb" }));
      parts.push(`<image ${at(["x", "y", "width", "height"])} preserveAspectRatio="none" style="image-rendering:pixelated" href="${url}"/>`);
    } else if (item.kind === "text") {
      parts.push(`<text ${at(["x", "y"])} font-size="${short(item.size)}" font-family="${FONTS[Boolean(item.mono)]}" fill="${item.ink}" xml:space="preserve">${xmlText(item.text)}</text>`);
    } else {
      const shape = item.kind === "rect" ? at(["x", "y", "width", "height"]) : at(["x1", "y1", "x2", "y2"]);
      parts.push(`<${item.kind} ${shape} fill="none" stroke="${item.stroke}" stroke-width="${short(item.wide)}"${item.dashed ? ' stroke-dasharray="2.5 2"' : ""}/>`);
    }
  }
  return new Blob([parts.join("\n"), "\n</svg>\n"], { type: "image/svg+xml" });
}

// -- PDF ------------------------------------------------------------------------------------------------------------

// Characters of WinAnsiEncoding beyond Latin-1.
const WIN_ANSI = "€ ‚ƒ„…†‡ˆ‰Š‹Œ Ž  ‘’“”•–—˜™š›œ žŸ";

function winAnsi(text) {
  const bytes = [];
  for (const sign of text) {
    const code = sign.codePointAt(0);
    const place = sign === " " ? -1 : WIN_ANSI.indexOf(sign);
    if ((code >= 32 && code < 127) || (code >= 160 && code < 256)) bytes.push(code);
    else if (place >= 0) bytes.push(128 + place);
    else return null;
  }
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const utf16 = (text) => `<feff${[...Array(text.length).keys()].map((i) => text.charCodeAt(i).toString(16).padStart(4, "0")).join("")}>`;
const ascii = (text) => new TextEncoder().encode(text);
const pdfColor = (color) => [1, 3, 5].map((i) => short(parseInt(color.slice(i, i + 2), 16) / 255)).join(" ");

// Draws a text as an image, because the standard fonts of PDF lack some of its characters.
function textImage(item) {
  const scale = 600 / 72;
  const width = Math.ceil(measureText(item.text, item.size, item.mono) * scale) + 4;
  const height = Math.ceil(item.size * 1.4 * scale);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  checkCanvas(context);
  context.scale(scale, scale);
  drawItem(context, { ...item, x: 0, y: item.size });
  const pixels = context.getImageData(0, 0, width, height).data;
  return { kind: "image", x: item.x, y: item.y - item.size, width: width / scale, height: height / scale, pixels, columns: width, rows: height, clear: true };
}

class PdfFile {
  constructor() {
    this.objects = [];
  }

  // Adds an object and returns its number. The bytes of a stream must be compressed already.
  add(dictionary, stream = null) {
    this.objects.push([dictionary, stream]);
    return this.objects.length;
  }

  async image({ pixels, columns, rows, clear }) {
    const one = async (channels, space, extra) => {
      const data = await deflate(filteredRows(pixels, columns, rows, channels));
      const how = `/Filter /FlateDecode /DecodeParms << /Predictor 15 /Colors ${channels.length} /BitsPerComponent 8 /Columns ${columns} >>`;
      return this.add(`/Type /XObject /Subtype /Image /Width ${columns} /Height ${rows} /ColorSpace /${space} /BitsPerComponent 8 /Interpolate false ${how}${extra}`, data);
    };
    const mask = clear ? ` /SMask ${await one([3], "DeviceGray", "")} 0 R` : "";
    return one([0, 1, 2], "DeviceRGB", mask);
  }

  bytes(root, info) {
    const parts = [ascii("%PDF-1.5\n"), Uint8Array.of(37, 200, 201, 202, 203, 10)];
    let length = parts[0].length + parts[1].length;
    const put = (bytes) => {
      parts.push(bytes);
      length += bytes.length;
    };
    const places = this.objects.map(([dictionary, stream], i) => {
      const place = length;
      put(ascii(`${i + 1} 0 obj\n<< ${dictionary}${stream ? ` /Length ${stream.length}` : ""} >>\n`));
      if (stream) [ascii("stream\n"), stream, ascii("\nendstream\n")].forEach(put);
      put(ascii("endobj\n"));
      return place;
    });
    const start = length;
    const table = places.map((place) => `${String(place).padStart(10, "0")} 00000 n \n`).join("");
    put(ascii(`xref\n0 ${places.length + 1}\n0000000000 65535 f \n${table}trailer\n<< /Size ${places.length + 1} /Root ${root} 0 R /Info ${info} 0 R >>\nstartxref\n${start}\n%%EOF\n`));
    return new Blob(parts, { type: "application/pdf" });
  }
}

export async function toPdf(scene) {
  const file = new PdfFile();
  const [width, height] = [short(scene.width), short(scene.height)];
  const drawn = [];
  const images = [];
  if (scene.paper) drawn.push(`${pdfColor(scene.paper)} rg 0 0 ${width} ${height} re f`);
  const up = (y) => short(scene.height - y);
  for (let item of scene.items) {
    const code = item.kind === "text" ? winAnsi(item.text) : null;
    if (item.kind === "text" && code === null) item = textImage(item);
    if (item.kind === "image") {
      images.push(await file.image(item));
      drawn.push(`q ${short(item.width)} 0 0 ${short(item.height)} ${short(item.x)} ${up(item.y + item.height)} cm /I${images.length} Do Q`);
    } else if (item.kind === "text") {
      drawn.push(`BT ${pdfColor(item.ink)} rg /${item.mono ? "M" : "F"} ${short(item.size)} Tf ${short(item.x)} ${up(item.y)} Td <${code}> Tj ET`);
    } else {
      const path = item.kind === "rect"
        ? `${short(item.x)} ${up(item.y + item.height)} ${short(item.width)} ${short(item.height)} re`
        : `${short(item.x1)} ${up(item.y1)} m ${short(item.x2)} ${up(item.y2)} l`;
      drawn.push(`${pdfColor(item.stroke)} RG ${short(item.wide)} w ${item.dashed ? "[2.5 2]" : "[]"} 0 d ${path} S`);
    }
  }
  const content = file.add("/Filter /FlateDecode", await deflate(ascii(drawn.join("\n"))));
  const font = (name) => file.add(`/Type /Font /Subtype /Type1 /BaseFont /${name} /Encoding /WinAnsiEncoding`);
  const fonts = `/F ${font("Helvetica")} 0 R /M ${font("Courier")} 0 R`;
  const known = images.map((id, i) => `/I${i + 1} ${id} 0 R`).join(" ");
  const pages = file.objects.length + 2;
  const page = file.add(
    `/Type /Page /Parent ${pages} 0 R /MediaBox [0 0 ${width} ${height}] /Contents ${content} 0 R /Resources << /Font << ${fonts} >> /XObject << ${known} >> >> /Group << /S /Transparency /CS /DeviceRGB >>`,
  );
  file.add(`/Type /Pages /Kids [${page} 0 R] /Count 1`);
  const root = file.add(`/Type /Catalog /Pages ${pages} 0 R`);
  const info = file.add(`/Title ${utf16(scene.title)} /Subject ${utf16(scene.caption)} /Keywords ${utf16(scene.command)} /Creator (PatchPrism)`);
  return file.bytes(root, info);
}
