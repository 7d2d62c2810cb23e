/** Masks: a class for each position of an image. */

import { countValues, FLOATS, moveAxis, toDoubles } from "../arrays.js";
import { EdgekitError } from "../failures.js";
import { findRegion } from "../images/letterbox.js";
import { sigmoid } from "../portable_math.js";
import { findLargest } from "./scores.js";
import { getLabel } from "../settings.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("../settings.js").ModelSettings} ModelSettings
 */

const MOST_POSITIONS = 1 << 26;

/**
 * Return the class of each position, in runs of equal classes row by row.
 *
 * @param {NumberArray} output scores or classes of one sample.
 * @param {ModelSettings} settings
 * @param {import("../images/images.js").Pixels|null} [pixels] the image, if the sample is one.
 */
export function describeMask(output, settings, pixels = null) {
  const { data, shape } = choosePositions(output, settings.answer);
  const sides = shape.filter((side) => side !== 1);
  const width = sides.length ? sides[sides.length - 1] : 1;
  const height = width ? countValues(shape) / width : 0;
  if (data.length > MOST_POSITIONS) {
    throw new EdgekitError("model_failed", `a mask of ${data.length} positions is too large`);
  }
  const runs = [];
  const counts = new Map();
  for (let start = 0, place = 1; start < data.length; place++) {
    if (place < data.length && data[place] === data[start]) continue;
    runs.push(data[start], place - start);
    counts.set(data[start], (counts.get(data[start]) ?? 0) + place - start);
    start = place;
  }
  const classes = [...counts]
    .sort(([a, first], [b, second]) => second - first || a - b)
    .map(([index, count]) => ({
      label: getLabel(settings, index),
      index,
      share: count / data.length,
    }));
  const region = pixels && findRegion(pixels);
  const further = region ? { region } : {};
  return { kind: "mask", result: { width, height, classes, runs, ...further }, confidence: null };
}

/** Return the class of each position of an output: scores of classes, of one, or classes. */
function choosePositions(output, { classAxis, logits, threshold }) {
  let { shape } = output;
  const last = shape.length - 1;
  if (classAxis !== null && classAxis <= last) {
    if (shape[classAxis] > 1) {
      const moved = moveAxis(toDoubles(output), shape, classAxis, last);
      return {
        data: findLargest(moved.data, moved.shape[last]),
        shape: moved.shape.slice(0, last),
      };
    }
    shape = shape.filter((_, axis) => axis !== classAxis);
  }
  const values = toDoubles(output);
  if (!FLOATS.includes(output.dtype)) return { data: values, shape };
  const shares = logits ? values.map(sigmoid) : values;
  return { data: Int32Array.from(shares, (share) => (share > threshold ? 1 : 0)), shape };
}
