/** Answers to samples: a class, labels, boxes, a mask, a text, decisions over time, or values. */

import { formatShape, moveAxis, toDoubles } from "./arrays.js";
import { EdgekitError, makeJobError } from "./failures.js";
import { sigmoid, softmaxRows } from "./portable_math.js";
import { postprocess } from "./postprocess.js";
import { findLargest } from "./scores.js";
import { getLabel } from "./settings.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 * @typedef {import("./postprocess.js").Outputs} Outputs
 * @typedef {import("./settings.js").ModelSettings} ModelSettings
 *
 * A class with its probability.
 * @typedef {{label: string, index: number, confidence: number}} Scored
 *
 * An answer; some kinds have more fields.
 * @typedef {{kind: string, result: any, confidence: number|null, [field: string]: any}} Answer
 */

const SHOWN_CLASSES = 5;

/**
 * Convert the outputs for one sample to an answer.
 *
 * @param {Outputs} outputs without the axis of the samples.
 * @param {ModelSettings} settings
 * @param {import("./letterbox.js").Letterbox|null} letterbox where the image is in the input.
 * @returns {Answer}
 */
export function makeAnswer(outputs, settings, letterbox) {
  const { answer } = settings;
  if (answer.kind === "boxes") return answerBoxes(outputs, settings, letterbox);
  const processed = settings.postprocess ? postprocess(outputs, null, settings.postprocess) : null;
  if (processed?.text !== undefined) return answerText(processed);
  if (processed?.mask) return answerMask(processed.mask, settings);
  const values = processed?.outputs ?? outputs;
  const makers = {
    class: () => answerClass(getOutput(values, settings), settings),
    labels: () => answerLabels(getOutput(values, settings), settings),
    mask: () =>
      answerMask(choosePositions(getOutput(values, settings), settings).classes, settings),
  };
  return makers[answer.kind]?.() ?? answerValues(values);
}

/** Return the output that the answer reads. */
function getOutput(outputs, { answer }) {
  return outputs.get(answer.output) ?? [...outputs.values()][0];
}

/**
 * Return the class of an output of scores.
 *
 * @param {NumberArray} output
 * @param {ModelSettings} settings
 * @returns {Answer}
 */
function answerClass(output, settings) {
  const scores = readScores(output);
  const { logits, threshold } = settings.answer;
  if (scores.length === 1) {
    const present = logits ? sigmoid(scores[0]) : scores[0];
    return rankClasses([1 - present, present], settings, present > threshold ? 1 : 0);
  }
  return rankClasses(logits ? softmaxRows(scores, scores.length) : scores, settings);
}

/** Return the best classes by falling probability; `first` comes first, if it is given. */
function rankClasses(shares, settings, first = -1) {
  const places = Array.from(shares, (_, index) => index);
  places.sort((a, b) => shares[b] - shares[a] || a - b);
  if (first >= 0) places.sort((a, b) => Number(b === first) - Number(a === first));
  const classes = places.slice(0, SHOWN_CLASSES).map((index) => ({
    label: getLabel(settings, index),
    index,
    confidence: shares[index],
  }));
  return {
    kind: "class",
    result: classes[0].label,
    confidence: classes[0].confidence,
    classes,
  };
}

/** Return the labels above the threshold. */
function answerLabels(output, settings) {
  const scores = readScores(output);
  const { logits, threshold } = settings.answer;
  const result = Array.from(logits ? scores.map(sigmoid) : scores, (confidence, index) => ({
    label: getLabel(settings, index),
    index,
    confidence,
  })).filter(({ confidence }) => confidence > threshold);
  result.sort((a, b) => b.confidence - a.confidence || a.index - b.index);
  return { kind: "labels", result, confidence: result.length ? result[0].confidence : null };
}

/** Return the scores of an output, which must be numbers. */
function readScores(output) {
  const scores = toDoubles(output);
  if (!scores.length || !scores.every(Number.isFinite)) {
    throw new EdgekitError("model_failed", "the model returned values that are no numbers");
  }
  return scores;
}

/** Return boxes in pixels of the original image, best first. */
function answerBoxes(outputs, settings, letterbox) {
  const processed = settings.postprocess && postprocess(outputs, letterbox, settings.postprocess);
  if (!processed?.boxes) throw makeJobError("settings.json: boxes need a post-processing of boxes");
  const { boxes } = processed;
  const result = boxes.classes.map((index, place) => ({
    label: getLabel(settings, index),
    index,
    confidence: boxes.scores[place],
    box: [...boxes.boxes.subarray(4 * place, 4 * place + 4)],
  }));
  return { kind: "boxes", result, confidence: result.length ? result[0].confidence : null };
}

/** Return a text, and the mean probability of its steps. */
function answerText(/** @type {any} */ { text, best, table }) {
  let total = 0;
  const isProbability = table.data.every((value) => value >= 0 && value <= 1);
  const shares = isProbability ? table.data : softmaxRows(table.data, table.columns);
  best.forEach((index, step) => {
    total += shares[step * table.columns + index];
  });
  return { kind: "text", result: text, confidence: best.length ? total / best.length : null };
}

/**
 * Choose the class at each position, and its probability.
 *
 * @param {NumberArray} output
 * @param {ModelSettings} settings
 * @returns {{classes: NumberArray, confidences: Float64Array}}
 */
export function choosePositions(output, settings) {
  const { logits, threshold, classAxis } = settings.answer;
  const scores = readScores(output);
  if (classAxis === null) {
    const shares = logits ? scores.map(sigmoid) : scores;
    const data = Int32Array.from(shares, (share) => (share > threshold ? 1 : 0));
    const confidences = shares.map((share, place) => (data[place] ? share : 1 - share));
    return { classes: { data, shape: output.shape, dtype: "int32" }, confidences };
  }
  const last = output.shape.length - 1;
  if (classAxis > last) {
    throw new EdgekitError(
      "bad_job",
      `an output of shape ${formatShape(output.shape)} has no axis ${classAxis}`,
    );
  }
  const moved = moveAxis(scores, output.shape, classAxis, last);
  const count = moved.shape[last];
  const data = findLargest(moved.data, count);
  const shares = logits ? softmaxRows(moved.data, count) : moved.data;
  const confidences = Float64Array.from(data, (best, place) => shares[place * count + best]);
  return { classes: { data, shape: moved.shape.slice(0, last), dtype: "int32" }, confidences };
}

/** Return a mask as runs of classes, row by row, and the share of each class. */
function answerMask(mask, settings) {
  const shape = mask.shape.filter((side) => side !== 1);
  while (shape.length < 2) shape.unshift(1);
  if (shape.length > 2) {
    throw new EdgekitError("bad_job", `a mask of shape ${formatShape(mask.shape)} is no image`);
  }
  const runs = [];
  const counts = new Map();
  mask.data.forEach((index) => {
    if (runs.length && runs[runs.length - 2] === index) runs[runs.length - 1] += 1;
    else runs.push(index, 1);
    counts.set(index, (counts.get(index) ?? 0) + 1);
  });
  const classes = [...counts]
    .sort(([a], [b]) => a - b)
    .map(([index, count]) => ({
      label: getLabel(settings, index),
      index,
      share: count / mask.data.length,
    }));
  const result = { width: shape[1], height: shape[0], classes, runs };
  return { kind: "mask", result, confidence: null };
}

/** Return all outputs as nested lists. */
function answerValues(outputs) {
  const result = Object.fromEntries(
    [...outputs].map(([name, array]) => [name, nest([...toDoubles(array)], array.shape)]),
  );
  return { kind: "values", result, confidence: null };
}

/** Nest a flat list by a shape. */
function nest(values, shape) {
  if (!shape.length) return values[0];
  if (shape.length === 1) return values;
  const size = values.length / shape[0];
  return Array.from({ length: shape[0] }, (_, k) =>
    nest(values.slice(k * size, (k + 1) * size), shape.slice(1)),
  );
}
