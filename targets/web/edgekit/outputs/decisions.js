/** Decisions over time: the class of each span of a sound. */

import { moveAxis, toDoubles } from "../arrays.js";
import { makeJobError } from "../failures.js";
import { sigmoid, softmaxRows } from "../portable_math.js";
import { findLargest } from "./scores.js";
import { getLabel } from "../settings.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("../settings.js").ModelSettings} ModelSettings
 *
 * Scores with a row for each frame.
 * @typedef {import("./box_selection.js").Table} Table
 */

/** Digits after the point of times in seconds. */
const DIGITS = 6;

/**
 * Return an output of one sample with a row for each frame; single scores without a class axis.
 *
 * @param {NumberArray} output
 * @param {import("../settings.js").Answer} answer
 * @returns {Table}
 */
export function splitFrames(output, { classAxis }) {
  const values = toDoubles(output);
  const last = output.shape.length - 1;
  if (classAxis === null || classAxis > last) {
    return { data: values, rows: values.length, columns: 1 };
  }
  const { data, shape } = moveAxis(values, output.shape, classAxis, last);
  const columns = shape[last];
  return { data, rows: columns ? data.length / columns : 0, columns };
}

/**
 * Return the scores of all steps as rows.
 *
 * @param {readonly Float64Array[]} frames
 * @returns {Table}
 */
export function stackFrames(frames) {
  const columns = frames.length ? frames[0].length : 1;
  if (frames.some((frame) => frame.length !== columns)) {
    throw makeJobError("the model returned outputs of different sizes");
  }
  const data = new Float64Array(frames.length * columns);
  frames.forEach((frame, row) => data.set(frame, row * columns));
  return { data, rows: frames.length, columns };
}

/**
 * Return the class of each span of time; neighbors of one class are joined.
 *
 * @param {Table} frames scores of the classes, or a single one of class 1 of two.
 * @param {ModelSettings} settings
 * @param {number} startS time of the first frame in seconds.
 * @param {number} stepS duration of a frame.
 */
export function describeDecisions(frames, settings, startS, stepS) {
  const { classes, shares } = chooseFrames(frames, settings.answer);
  const result = [];
  let total = 0;
  for (let first = 0, place = 0; place < frames.rows; place++) {
    total += shares[place];
    if (place + 1 < frames.rows && classes[place + 1] === classes[first]) continue;
    const span = shares.slice(first, place + 1);
    result.push({
      from_s: roundTime(startS + first * stepS),
      to_s: roundTime(startS + (place + 1) * stepS),
      label: getLabel(settings, classes[first]),
      index: classes[first],
      confidence: span.reduce((sum, share) => sum + share, 0) / span.length,
    });
    first = place + 1;
  }
  return { kind: "decisions", result, confidence: frames.rows ? total / frames.rows : null };
}

/** Return class and probability of each frame. */
function chooseFrames({ data, rows, columns }, { logits, threshold }) {
  if (columns === 1) {
    const second = logits ? data.map(sigmoid) : data;
    const classes = Int32Array.from(second, (share) => (share > threshold ? 1 : 0));
    return { classes, shares: second.map((share, row) => (classes[row] ? share : 1 - share)) };
  }
  const classes = rows ? findLargest(data, columns) : new Int32Array(0);
  const shares = logits ? softmaxRows(data, columns) : data;
  return {
    classes,
    shares: Float64Array.from(classes, (best, row) => shares[row * columns + best]),
  };
}

function roundTime(seconds) {
  return Number(seconds.toFixed(DIGITS));
}
