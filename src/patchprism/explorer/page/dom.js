// Creates elements. No state.

const SVG = "http://www.w3.org/2000/svg";
export const DOWNLOAD_ICON = "M12 4v11m0 0-4.5-4.5M12 15l4.5-4.5M5 19.5h14";
export const OPEN_ICON = "M9 4.5H4.5V9M15 4.5h4.5V9M9 19.5H4.5V15M15 19.5h4.5V15";
export const HIDE_ICON = "M4 4l16 16M9.9 5.4A9 9 0 0 1 21 12a13 13 0 0 1-2 2.8M6.5 6.7A13 13 0 0 0 3 12a9.5 9.5 0 0 0 13 5.4M10 10a3 3 0 0 0 4 4";
export const REMOVE_ICON = "M5 7h14M10 7V4.5h4V7M7 7l1 12.5h8L17 7";

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function svgElement(tag, attributes = {}) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

export function icon(path) {
  const svg = svgElement("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "icon" });
  svg.append(svgElement("path", { d: path }));
  return svg;
}

// Sets a text only if it differs, because setting the same text again causes a new layout.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
