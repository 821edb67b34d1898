// Draws pins as marks on their patches, with lines to their best matches. Strokes keep their width at any zoom.

import { svgElement } from "./dom.js";
import { fitMark } from "./tile.js";

export const PIN_COLORS = ["#ffd60a", "#ff375f", "#32d7ff", "#30d158", "#ff9f0a", "#bf5af2", "#ffffff", "#66d4cf"];
export const MOST_LINES = 5;

export class Links {
  constructor(root, gallery) {
    this.root = root;
    this.gallery = gallery;
    this.links = [];
    gallery.moved = () => {
      this.fit();
      this.drawLines();
    };
  }

  close() {
    this.root.replaceChildren();
  }

  // links: [{ pin, matches }], with the best matches first; lined: whether lines are drawn.
  show(links, lined) {
    this.links = links;
    this.lined = lined;
    for (const tile of this.gallery.tiles) {
      for (const mark of tile.pinMarks) mark.remove();
      tile.pinMarks = [];
    }
    links.forEach(({ pin, matches }, i) => {
      const color = PIN_COLORS[i % PIN_COLORS.length];
      this.mark(pin.photo, pin.index, color, "pin");
      for (const match of matches.slice(0, MOST_LINES)) {
        const { start } = this.gallery.tiles[match.photo].photo;
        this.mark(match.photo, match.patch - start, color, match.mutual ? "match mutual" : "match");
      }
    });
    this.drawLines();
  }

  mark(photo, index, color, kind) {
    const tile = this.gallery.tiles[photo];
    const w = tile.photo.grid[1];
    for (const { marks } of tile.panes) {
      const group = svgElement("g", { class: kind, transform: `translate(${index % w} ${Math.floor(index / w)})` });
      for (const name of ["edge", "line"]) group.append(svgElement("rect", { class: name, width: 1, height: 1 }));
      group.lastChild.style.stroke = color;
      marks.append(group);
      tile.pinMarks.push(group);
      fitMark(group, kind === "pin" ? "pin" : "match", this.gallery.unit(tile));
    }
  }

  fit() {
    for (const tile of this.gallery.tiles) {
      for (const mark of tile.pinMarks) fitMark(mark, mark.classList.contains("pin") ? "pin" : "match", this.gallery.unit(tile));
    }
  }

  drawLines() {
    const { tiles, shown = [] } = this.gallery;
    if (!this.links.length || !this.lined) {
      this.root.replaceChildren();
      return;
    }
    const origin = this.root.getBoundingClientRect();
    const seen = new Set(shown);
    const places = tiles.map((tile) => seen.has(tile.index) && [tile.marks.getBoundingClientRect(), tile.main.pane.getBoundingClientRect()]);
    const centre = (photo, index) => {
      if (!places[photo]) return null;
      const [h, w] = tiles[photo].photo.grid;
      const [box, pane] = places[photo];
      const x = box.left + (((index % w) + 0.5) / w) * box.width;
      const y = box.top + ((Math.floor(index / w) + 0.5) / h) * box.height;
      const inside = x >= pane.left && x <= pane.right && y >= pane.top && y <= pane.bottom;
      return inside ? [x - origin.left, y - origin.top] : null; // no lines to what is out of view after zooming
    };
    const [casings, lines, texts] = [[], [], []];
    this.links.forEach(({ pin, matches }, i) => {
      const from = centre(pin.photo, pin.index);
      for (const match of matches.slice(0, MOST_LINES)) {
        const to = centre(match.photo, match.patch - tiles[match.photo].photo.start);
        if (!from || !to) continue;
        const ends = { x1: from[0], y1: from[1], x2: to[0], y2: to[1] };
        casings.push(svgElement("path", { d: `M${from}L${to}`, class: "casing" }));
        const line = svgElement("line", { ...ends, class: match.mutual ? "link mutual" : "link" });
        line.style.stroke = PIN_COLORS[i % PIN_COLORS.length];
        lines.push(line);
        const at = (k) => from[k] + 0.72 * (to[k] - from[k]); // nearer to the match, because all lines of a pin meet at the pin
        const text = svgElement("text", { x: at(0), y: at(1), class: "cosine" });
        text.textContent = match.value.toFixed(2);
        texts.push(text);
      }
    });
    this.root.replaceChildren(...casings, ...lines, ...texts);
  }
}
