// Two modes that Python computes: clusters of patches, and the attention of the class token.
//
// A single file contains them in its message; a served page requests them when they are first shown. The result is kept in
// model.extra, mode -> bytes (n, 3), which the model shows instead of the colours.

import { byId, element, setText } from "./dom.js";
import { mappedTable, roundHalfEven } from "./math.js";
import { addSection } from "./sections.js";
import { showJob } from "./served.js";
import { linked } from "./state.js";

const MOST_CLUSTERS = 12;
const DIMMED = 190; // opacity of the shade over other clusters, up to 255

const percent = (share) => (share > 0 && share < 0.005 ? "under 1 %" : `${Math.round(100 * share)} %`);

export function labelColors(labels, palette) {
  const colors = palette.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const bytes = new Uint8Array(3 * labels.length);
  labels.forEach((label, i) => bytes.set(colors[label], 3 * i));
  return bytes;
}

// pictures/sheet.py: heat, whose table has 256 colours. Each photo has its own scale, from 0 to its top.
export function attentionColors(weights, tops, photos) {
  const bytes = new Uint8Array(3 * weights.length);
  const table = mappedTable(256);
  photos.forEach(({ start, grid }, photo) => {
    const scale = Math.fround(255 / tops[photo]);
    for (let i = start; i < start + grid[0] * grid[1]; i++) {
      const step = tops[photo] > 0 ? Math.min(roundHalfEven(Math.fround(weights[i] * scale)), 255) : 128;
      bytes.set(table.subarray(3 * step, 3 * step + 3), 3 * i);
    }
  });
  return bytes;
}

export function modes(app) {
  Object.assign(app.defaults, { clusters: "auto" });
  linked.set("clusters", { write: String, read: (text) => (text === "auto" ? text : Number(text) >= 2 && Number(text) <= MOST_CLUSTERS ? Math.floor(text) : undefined) });
  const { section, body, aside } = addSection({ id: "mode", title: "Clusters", before: "work", open: true });
  const choose = element("select", { id: "clusters", "aria-label": "Number of clusters", onchange: () => app.change({ clusters: choose.value === "auto" ? "auto" : Number(choose.value) }) });
  const legend = element("ul", { id: "cluster-legend" });
  const note = element("p", { class: "note", id: "mode-note" });
  const row = element("label", { class: "choice" }, element("span", {}, "Number"), choose);
  const bar = element("div", { class: "scale", id: "attention-bar", role: "img", "aria-label": "Colours from 0 to the 99th percentile of a photo’s patches" }, "0", element("i"), "99th percentile");
  body.append(row, legend, bar, note);
  section.hidden = true;

  let found = {}; // what was computed for the model: clusters by their number or "auto", and "attention"
  let turn = 0;

  const has = (mode) => !byId(`mode-${mode}`).hidden;
  const counts = () => app.model.header.clusters?.counts ?? [...Array(MOST_CLUSTERS - 1).keys()].map((i) => i + 2);

  // Clusters for a number or "auto": { labels, count, silhouette }.
  const clustersOf = async (asked) => {
    const { header, buffers, count: n } = app.model;
    if (app.server) return app.server.clusters(asked);
    const { counts: there, auto } = header.clusters;
    const at = Math.max(there.indexOf(asked === "auto" ? auto.count : asked), 0);
    return { ...(asked === "auto" && auto), count: there[at], labels: buffers.clusters.subarray(at * n, (at + 1) * n) };
  };

  const attentionOf = async () => {
    const { header, buffers } = app.model;
    if (!app.server) return { ...header.attention, weights: buffers.attention };
    try {
      return await app.server.attention(showJob);
    } finally {
      showJob(null);
    }
  };

  // Highlights one cluster; -1 for none.
  const single = (k) => {
    const labels = found[app.state.clusters]?.labels;
    if (k < 0 || !labels) return app.gallery.paint("others", null);
    const rgba = new Uint8ClampedArray(4 * app.model.count);
    labels.forEach((label, i) => (rgba[4 * i + 3] = label === k ? 0 : DIMMED));
    app.gallery.paint("others", rgba);
  };

  const describeClusters = ({ labels, count, silhouette }) => {
    const sizes = new Array(count).fill(0);
    for (const label of labels) sizes[label]++;
    legend.replaceChildren(...sizes.map((size, k) => {
      const swatch = element("i", { class: "swatch" });
      swatch.style.background = app.model.header.palette[k];
      const show = () => single(k);
      const hide = () => single(-1);
      const said = percent(size / labels.length);
      return element("li", {}, element("button", { type: "button", class: "quiet", "aria-label": `Cluster ${k + 1}, ${said} of patches; highlighted while it has the focus`, onpointerenter: show, onpointerleave: hide, onfocus: show, onblur: hide }, swatch, `${k + 1}: ${said}`));
    }));
    const weak = silhouette < 0.25 ? " The patches form no clear clusters." : "";
    const chosen = silhouette === undefined || silhouette === null ? "" : ` ${count} clusters have the best mean silhouette (${silhouette.toFixed(2)}).${weak}`;
    setText(note, `k-means over the patches of all photos, the largest cluster first. Point at a cluster to see it alone.${chosen}`);
    setText(aside, `${count} clusters`);
  };

  const describeAttention = ({ layer }) => {
    setText(note, `What the class token attends to in layer ${layer}, averaged over heads. Each photo has its own scale, from 0 to the 99th percentile of its patches.`);
    setText(aside, "");
  };

  const show = async () => {
    const { state, model } = app;
    const { mode } = state;
    const own = mode === "clusters" || mode === "attention";
    section.hidden = !own;
    bar.hidden = mode !== "attention";
    if (own && !has(mode)) {
      const first = app.file?.message.header[mode] ? app.file.first : null;
      app.toast(first === null ? `This page has no ${mode}.` : `This file has ${mode} for layer ${first} only.`);
      return app.change({ mode: "colours" }, { remember: false });
    }
    if (!own) return;
    setText(byId("mode-title"), mode === "clusters" ? "Clusters" : "Attention");
    row.hidden = legend.hidden = mode !== "clusters";
    choose.value = String(state.clusters);
    const key = mode === "clusters" ? state.clusters : "attention";
    const mine = ++turn;
    if (!found[key]) {
      setText(note, "Computing…");
      legend.replaceChildren();
      delete model.extra[mode];
      const made = mode === "clusters" ? await clustersOf(key) : await attentionOf();
      if (model !== app.model) return;
      found[key] = made;
      if (mine !== turn) return;
    }
    if (mode === "clusters") {
      model.extra.clusters = labelColors(found[key].labels, model.header.palette);
      describeClusters(found[key]);
    } else {
      model.extra.attention ??= attentionColors(found[key].weights, found[key].tops, model.photos);
      describeAttention(found[key]);
    }
    model.extraKey = key;
    app.schedule("view");
  };
  const ask = () => show().catch((error) => {
    app.toast(error.message);
    app.change({ mode: "colours" }, { remember: false });
  });

  // The line of the readout for the mode that is shown; "" for none.
  app.modeFact = (photo, patch) => {
    const { mode, clusters } = app.state;
    if (mode === "clusters" && found[clusters]) return `cluster ${found[clusters].labels[patch] + 1}`;
    if (mode !== "attention" || !found.attention) return "";
    return `attention ${found.attention.weights[patch].toPrecision(2)} of ${found.attention.tops[photo].toPrecision(2)}`;
  };

  app.on("load", async (model) => {
    found = {};
    const { header } = model;
    byId("mode-clusters").hidden = !(app.server || header.clusters);
    byId("mode-attention").hidden = !(app.server ? app.server.hasAttention : header.attention);
    choose.replaceChildren(new Option("Auto", "auto"), ...counts().map((count) => new Option(count, count)));
    ask();
  });
  app.on("change", (patch) => ("mode" in patch || "clusters" in patch) && ask());
}
