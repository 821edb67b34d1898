// Sections of the panel that can be folded; each is a <details> element.

import { element } from "./dom.js";

// Adds a section to the panel, before the section with the id `before` or at the end. Returns { section, body, aside }, where
// aside is a short text beside the title.
export function addSection({ id, title, before = null, open = false }) {
  const aside = element("span", { class: "aside" });
  const body = element("div", { class: "body" });
  const heading = element("h2", { id: `${id}-title` }, title);
  const section = element("details", { id, class: "section", open }, element("summary", {}, heading, aside), body);
  const panel = document.getElementById("panel");
  panel.insertBefore(section, before ? document.getElementById(before) : null);
  return { section, body, aside };
}

// Folds open sections, starting with the last, until the panel fits the window.
export function foldWhatDoesNotFit(panel) {
  const sections = [...panel.querySelectorAll("details.section")].filter((section) => section.open && !section.hidden);
  while (sections.length > 1 && panel.scrollHeight > panel.clientHeight + 1) sections.pop().open = false;
}
