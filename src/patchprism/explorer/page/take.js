// Pictures, the prism, the command and the link, to download or copy.

import { byId, setText } from "./dom.js";
import { encodePng } from "./png.js";
import { turnedNote } from "./agree.js";
import { PRISM_NAME, commandText, needsOwnPrism, toFragment } from "./state.js";

const KINDS = { photo: "photo", colours: "pca", overlay: "overlay", score: "score", clusters: "clusters", attention: "attention" };

export function showsPhoto({ mode, background }) {
  return mode === "photo" || mode === "overlay" || (mode === "colours" && background === "photo");
}

// The pixels of a photo at its own resolution, from the server or from the smaller copy in the page.
async function pixelsOf(app, index) {
  const [height, width] = app.model.photos[index].size;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#123456";
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  if (Math.max(Math.abs(red - 0x12), Math.abs(green - 0x34), Math.abs(blue - 0x56)) > 8) {
    throw new Error("This browser protects against fingerprinting, so the page cannot read the pixels of photos. Use the command below.");
  }
  let { image } = app.gallery.tiles[index];
  if (app.server) image = await createImageBitmap(await app.server.photo(index), { colorSpaceConversion: "none" });
  context.drawImage(image, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

// The picture of a photo as shown, as a PNG file at the photo's resolution.
export async function pictureOf(app, index) {
  const { state, model } = app;
  const { size } = model.photos[index];
  model.update(state);
  const pixels = showsPhoto(state) ? await pixelsOf(app, index) : null;
  return encodePng(model.picture(index, state, size, pixels), size[1], size[0]);
}

export function pictureName(app, index) {
  return `${app.model.photos[index].name.replace(/\.[^.]+$/, "")}.${KINDS[app.state.mode]}.png`;
}

export function take(app) {
  let later = 0;
  // Updates the address and the command, with a short delay after each change.
  const show = () => {
    clearTimeout(later);
    const { state, opening, model } = app;
    const fragment = toFragment(state, opening);
    try {
      history.replaceState(null, "", fragment ? `#${fragment}` : location.pathname + location.search);
    } catch {
      // a frame in a notebook cannot change its address
    }
    const { header } = model;
    setText(byId("command"), commandText(header, state));
    const note = !header.command.files
      ? "Some photos came without a file; put their files’ names in place of those above."
      : needsOwnPrism(header, state) ? `Download the prism first: the command reads ${PRISM_NAME}.` : "";
    setText(byId("command-note"), [note, model.isTurned(state) ? turnedNote(model) : ""].filter(Boolean).join(" "));
    // A file has only copies of the photos, which people may not expect.
    setText(byId("picture-note"), !app.server && showsPhoto(state)
      ? "This file holds smaller, compressed copies of the photos. Pictures with the photo in them are made of these, enlarged to the photo’s size; the command below takes the photos themselves."
      : "");
    setText(byId("zoom-value"), `${Math.round(100 * state.zoom)} %`);
  };
  app.showAddress = show;
  app.on("draw", () => {
    clearTimeout(later);
    later = setTimeout(show, 120);
  });

  const copy = async (text, told) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea"); // some browsers give files no access to the clipboard
      area.value = text;
      document.body.append(area);
      area.select();
      if (!document.execCommand("copy")) told = "This browser does not let the page copy.";
      area.remove();
    }
    app.toast(told);
  };
  app.download = async (index) => app.give(await pictureOf(app, index), pictureName(app, index));
  app.copy = copy;
  byId("copy").onclick = () => {
    show();
    copy(byId("command").textContent, "The command is copied.");
  };
  // A page in a notebook has no address that could be opened.
  byId("link").hidden = location.protocol === "about:";
  byId("link").onclick = () => {
    show();
    const fit = app.server ? `${location.hash ? "&" : "#"}v=${app.server.session}` : ""; // the session whose fit is shown
    copy(location.href + fit, "The link to this view is copied.");
  };
  byId("download-prism").onclick = () => {
    app.give(new Blob([app.model.prism(app.state)], { type: "application/octet-stream" }), PRISM_NAME);
  };
}
