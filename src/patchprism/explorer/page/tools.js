// The tools beside the photos: scatter, teaching and export.

import { Exporter } from "./export.js";
import { Scatter } from "./scatter.js";
import { Teacher } from "./teach.js";

export function tools(app) {
  app.scatter = new Scatter(app);
  app.teacher = new Teacher(app);
  app.exporter = new Exporter(app);
}
