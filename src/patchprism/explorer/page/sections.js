// Sections of the panel, which fold: a native <details> each.

import { element } from "./dom.js";

// Adds a section to the panel before the one with the id `before`, or at the end. Returns { section, body, aside },
// aside being a short text beside its title.
export function addSection({ id, title, before = null, open = false }) {
  const aside = element("span", { class: "aside" });
  const body = element("div", { class: "body" });
  const heading = element("h2", { id: `${id}-title` }, title);
  const section = element("details", { id, class: "section", open }, element("summary", {}, heading, aside), body);
  const panel = document.getElementById("panel");
  panel.insertBefore(section, before ? document.getElementById(before) : null);
  return { section, body, aside };
}

// Folds the sections that do not fit the window, the last first; what is folded already stays.
export function foldWhatDoesNotFit(panel) {
  const sections = [...panel.querySelectorAll("details.section")].filter((section) => section.open && !section.hidden);
  while (sections.length > 1 && panel.scrollHeight > panel.clientHeight + 1) sections.pop().open = false;
}
