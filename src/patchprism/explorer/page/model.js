// Computes what is shown from the message and the settings: scores, masks, colours, similarities. No DOM.

import { turnedColouring } from "./agree.js";
import { allColors, allPatchValues, extentOf, histogramOf, masksOf, objectColors, paintPicture, scoreColors, splitAt } from "./math.js";
import { componentsOf } from "./message.js";
import { editPrism } from "./prism.js";
import { Similarity, pinMatches } from "./similarity.js";

export const BINS = 128;

export class Model {
  constructor({ header, buffers }) {
    this.header = header;
    this.buffers = buffers;
    let start = 0;
    this.photos = header.photos.map((photo) => {
      const placed = { ...photo, start };
      start += photo.grid[0] * photo.grid[1];
      return placed;
    });
    this.count = start;
    const steps = [...header.scene.step, ...header.object.step];
    const components = componentsOf(buffers.components, steps);
    this.scene = components.slice(0, header.scene.step.length);
    this.object = components.slice(header.scene.step.length);
    this.scores = buffers.scores;
    this.histogram = histogramOf(this.scores, BINS);
    this.fitMask = splitAt(this.scores, header.fit.threshold ?? 0, header.fit.side);
    this.similarity = new Similarity(buffers.tokens, buffers["token-scales"], this.photos);
    this.mask = new Uint8Array(this.count);
    this.bytes = new Uint8Array(3 * this.count);
    this.scoreBytes = null;
    this.extra = {}; // bytes of the modes that Python computes; see modes.js
    this.made = {};
  }

  // Shows other scores, such as those of a taught head, instead of the scores of the fit; null resets them.
  setScores(scores) {
    this.scores = scores ?? this.buffers.scores;
    this.histogram = histogramOf(this.scores, BINS);
    this.scoreBytes = null;
    this.made.mask = null;
  }

  // Computes masks and colours for some settings, as far as they have changed.
  update(state) {
    const maskKey = [state.threshold, state.side, state.opening, state.closing].join();
    const maskChanged = maskKey !== this.made.mask;
    if (maskChanged) {
      this.mask = masksOf(this.scores, this.photos, state);
      this.made.mask = maskKey;
    }
    const colorKey = [state.basis, state.components, state.scaling, state.space, state.turned].join();
    if (colorKey !== this.made.color || (state.basis === "all" && maskChanged)) {
      if (state.basis === "all") {
        const values = allPatchValues(this.scene, this.photos, this.mask, state.components);
        allColors(values, this.allRange(state), this.header.scene, state, this.bytes);
      } else {
        const { object, pca, ranges } = this.colouring(state);
        objectColors(object, pca, ranges[state.scaling], state, this.bytes);
      }
      this.made.color = colorKey;
    }
    return { maskChanged };
  }

  // Sets the turns of the colours, which are applied one after the other; an empty list resets them.
  setTurns(turns) {
    this.turned = turns.length ? turnedColouring(this, turns) : null;
    this.made.color = null;
  }

  // Whether the colours that are shown are turned. This is only possible for the components that the turn was found for.
  isTurned(state) {
    return Boolean(state.turned && this.turned) && state.basis === "object" && state.components.every((signed) => this.turned.known.has(Math.abs(signed)));
  }

  // The components, deviations and ranges that the colours are computed from.
  colouring(state) {
    const { header, object } = this;
    return this.isTurned(state) ? this.turned : { object, pca: header.object, ranges: header.ranges };
  }

  // The values that become 0 and 1 in the all-patch picture. They are found over all patches if the whole image is shown, and
  // otherwise with the foreground of the fit, never with the foreground that is shown.
  allRange(state) {
    const { fit, all_range: fitted } = this.header;
    const whole = state.basis === "all" && state.side === "none";
    const key = `${state.components.join()} ${whole}`;
    if (key === `${fit.components.join()} ${fit.side === "none"}`) return fitted;
    if (this.made.range !== key) {
      const mask = whole ? new Uint8Array(this.count).fill(1) : this.fitMask;
      this.range = extentOf(allPatchValues(this.scene, this.photos, mask, state.components));
      this.made.range = key;
    }
    return this.range;
  }

  // The bytes (n, 3) that a mode shows, and the patches that have a colour (null: all).
  layer(state) {
    if (state.mode === "score") {
      this.scoreBytes ??= scoreColors(this.scores, new Uint8Array(3 * this.count));
      return { colors: this.scoreBytes, visible: null };
    }
    if (this.extra[state.mode]) return { colors: this.extra[state.mode], visible: null };
    return { colors: this.bytes, visible: state.basis === "all" ? null : this.mask };
  }

  // The share of foreground patches, in all photos or in one.
  share(photo) {
    const { start, grid } = photo ?? { start: 0, grid: [this.count, 1] };
    const n = grid[0] * grid[1];
    let sum = 0;
    for (let i = start; i < start + n; i++) sum += this.mask[i];
    return sum / n;
  }

  photoOf(index) {
    let at = this.photos.length - 1;
    while (at > 0 && this.photos[at].start > index) at--;
    return at;
  }

  // The matches of a pin { photo, index } in the foreground, or everywhere.
  matches(pin, everywhere = false) {
    const among = everywhere ? null : this.mask;
    return pinMatches(this.similarity, this.photos, pin.photo, this.photos[pin.photo].start + pin.index, among);
  }

  // The picture of a photo as shown, RGBA of the given size. pixels: the photo in this size, if the mode needs it.
  picture(index, state, size, pixels) {
    const photo = this.photos[index];
    const { start, grid } = photo;
    const n = grid[0] * grid[1];
    const { colors, visible } = this.layer(state);
    const scale = size[0] / photo.size[0];
    const overPhoto = state.mode === "overlay" || (state.mode === "colours" && state.background === "photo");
    return paintPicture({
      colors: colors.subarray(3 * start, 3 * (start + n)),
      visible: visible ? visible.subarray(start, start + n) : new Uint8Array(n).fill(state.mode === "photo" ? 0 : 1),
      grid,
      crop: scale === 1 ? photo.crop : photo.crop.map((edge) => edge * scale),
      size,
      fill: state.mode === "colours" && state.background === "grey" ? 128 : 0,
      photo: overPhoto || state.mode === "photo" ? pixels : undefined,
      alpha: state.mode === "overlay" ? state.alpha : 1,
    });
  }

  // The file of the prism, with the settings of the page.
  prism(state) {
    const { header } = this;
    const options = {
      scaling: state.scaling,
      components: state.components,
      space: state.space === "rgb" ? undefined : state.space,
      mask_threshold: undefined,
      mask_side: undefined,
      opening: state.opening || undefined,
      closing: state.closing || undefined,
    };
    if (state.side !== header.fit.side) options.mask_side = state.side;
    if (state.side !== "none" && (state.threshold !== header.fit.threshold || options.mask_side)) {
      options.mask_threshold = state.threshold;
      options.mask_side = state.side;
    }
    const ranges = {};
    if (state.scaling !== header.fit.scaling && state.scaling !== "sigmoid") {
      const range = header.ranges[state.scaling];
      ranges.object_range = [...range.low, ...range.high];
    }
    const all = this.allRange(state);
    ranges.all_range = [...all.low, ...all.high];
    return editPrism(this.buffers.prism, { options, ranges });
  }
}
