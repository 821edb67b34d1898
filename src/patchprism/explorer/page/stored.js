// For feature stores with more photos than the page shows: shows other photos, and searches all of them.

import { byId, element, setText } from "./dom.js";
import { addSection } from "./sections.js";
import { showJob } from "./served.js";

const counted = (n) => n.toLocaleString("en");
const photosOf = (n) => `${counted(n)} photo${n === 1 ? "" : "s"}`;

export function stored(app) {
  const { section, body, aside } = addSection({ id: "stored", title: "Feature store", before: "foreground", open: true });
  const said = element("p", { class: "note", id: "stored-note" });
  const find = element("input", { type: "text", id: "stored-find", placeholder: "part of a name", "aria-label": "Show photos whose names contain", maxlength: 200, onkeydown: (event) => event.key === "Enter" && choose() });
  const button = (id, label, title, does) => element("button", { type: "button", id, title, onclick: does }, label);
  const go = button("stored-show", "Show", "Show photos whose names contain this text", () => choose());
  const another = button("stored-another", "Another sample", "Show another random sample of these names", () => choose(true));
  const tools = element("div", { class: "row" }, find, go, another);
  body.append(said, tools);
  let seed = 0;
  let matches = new Map(); // results of searches, by the photo and patch of the pin
  let pinned = [];

  // Rows of the photos with pins or marks, which stay so that nothing is lost.
  const held = () => {
    const { pins, held: patch, marks, single } = app.state;
    const rows = new Set([...pins, ...(patch ? [patch] : [])].map(({ photo }) => photo));
    for (const [patchOf] of marks) rows.add(app.model.photoOf(patchOf));
    if (single !== null) rows.add(single);
    return rows;
  };
  const others = (keep) => app.model.photos.map((_, row) => row).filter((row) => !keep.has(row));
  const show = (keep, request) => app.work({ without: others(keep), same: true }, { start: () => app.server.showStored({ keep: [...keep].sort((a, b) => a - b), ...request }, showJob) });

  const choose = (again = false) => {
    seed = again ? seed + 1 : 0;
    return show(held(), { find: find.value.trim(), seed });
  };
  // Shows a photo that a search has found. If the page is full, it replaces the last photo without pins or marks.
  const bring = async (place, name) => {
    const keep = new Set(app.model.photos.keys());
    const there = app.model.photos.findIndex((photo) => photo.source === name);
    if (there < 0) {
      const most = app.server.limits.shown;
      if (keep.size >= most) {
        const last = [...keep].filter((row) => !held().has(row)).at(-1);
        if (last === undefined) return app.toast(`A page shows at most ${most} photos. Remove a pin first.`);
        keep.delete(last);
      }
      await show(keep, { add: [place] });
    }
    const row = app.model.photos.findIndex((photo) => photo.source === name);
    app.gallery.tiles[row]?.frame.scrollIntoView({ block: "nearest" });
  };

  const keyOf = (pin) => `${app.model.photos[pin.photo].source} ${pin.index}`;
  const search = async (pin, pressed) => {
    const { threshold, side, opening, closing, everywhere } = app.state;
    const request = { photo: pin.photo, patch: pin.index, mask_threshold: threshold, mask_side: side, opening, closing, everywhere };
    const key = keyOf(pin);
    pressed.disabled = true;
    try {
      matches.set(key, await app.server.searchStored(request, showJob));
    } finally {
      showJob(null);
      pressed.disabled = false;
    }
    draw();
  };

  const strip = (found) => element("div", { class: "strip", role: "group", "aria-label": "Best matches in the feature store" }, ...found.map(({ crop, name, source, place, value, mutual }) => {
    const told = `${name}, cosine ${value.toFixed(2)}`;
    return element("button", { type: "button", class: mutual ? "crop mutual" : "crop", title: told, "aria-label": `Show ${told}`, onclick: () => app.report(bring(place, source)) },
      element("img", { src: crop, alt: "" }), value.toFixed(2), element("span", { class: "crop-name" }, name));
  }));

  // Adds to each pin in the panel a button that searches the store, and the results.
  const draw = () => {
    const { stored: total } = app.model.header;
    if (!app.server || !(total > app.model.photos.length)) return;
    const rows = byId("pins").children;
    pinned.forEach(({ pin }, i) => {
      if (!rows[i]) return;
      rows[i].querySelector(".stored-search")?.remove();
      const found = matches.get(keyOf(pin));
      const pressed = button("", `Search all ${photosOf(total)}${found ? " again" : ""}`, "Find the most similar patches in all photos of the feature store", () => app.report(search(pin, pressed)));
      pressed.removeAttribute("id");
      rows[i].append(element("div", { class: "stored-search" }, ...(found ? [strip(found)] : []), pressed));
    });
  };

  app.on("load", ({ header, photos }) => {
    const total = header.stored;
    section.hidden = !(total > photos.length); // not needed if all photos are shown
    if (section.hidden) return;
    tools.hidden = !app.server;
    setText(aside, `${counted(photos.length)} of ${counted(total)}`);
    const more = app.server ? " Pin a patch to search all of them; other photos come in the fit’s colours, and photos with pins or marks stay." : "";
    setText(said, `${photosOf(photos.length)} of the ${counted(total)} in the feature store ${photos.length === 1 ? "is" : "are"} shown.${more}`);
  });
  app.on("pins", (links) => {
    pinned = links;
    draw();
  });
}
