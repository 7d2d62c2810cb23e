/** Answers to samples: a class, labels, boxes, a mask, a text, decisions over time, or values. */

import { countValues, toDoubles } from "../arrays.js";
import { describeDecisions, splitFrames, stackFrames } from "./decisions.js";
import { EdgekitError, makeJobError } from "../failures.js";
import { restoreBoxes } from "../images/letterbox.js";
import { describeMask } from "./masks.js";
import { sigmoid, softmaxRows } from "../portable_math.js";
import { postprocess, selectOutputs } from "./postprocess.js";
import { getLabel } from "../settings.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("./postprocess.js").Outputs} Outputs
 * @typedef {import("./postprocess.js").Processed} Processed
 * @typedef {import("../samples.js").PreparedSample} PreparedSample
 * @typedef {import("../settings.js").ModelSettings} ModelSettings
 *
 * An answer; some kinds have more fields.
 * @typedef {{kind: string, result: any, confidence: number|null, [field: string]: any}} Answer
 */

const SHOWN_CLASSES = 5;
const MOST_VALUES = 1 << 22;

/**
 * Convert the outputs of a sample to an answer.
 *
 * @param {readonly Outputs[]} steps outputs of each step, without the axis of the samples.
 * @param {PreparedSample} prepared the sample.
 * @param {ModelSettings} settings
 * @param {number} [beginS] time at which the sample begins in its stream, in seconds.
 * @returns {Answer}
 */
export function makeAnswer(steps, prepared, settings, beginS = 0) {
  const { answer, audio } = settings;
  steps.forEach((outputs) => checkOutputs(outputs, settings));
  if (answer.kind === "decisions" && audio?.step) {
    const frames = steps.map((outputs) => toDoubles(getOutput(outputs, settings)));
    const stepS = audio.step / audio.rate;
    return describeDecisions(stackFrames(frames), settings, beginS, stepS);
  }
  const outputs = steps[steps.length - 1];
  if (answer.kind === "boxes") return describeBoxes(outputs, prepared, settings);
  const processed = settings.postprocess ? postprocess(outputs, null, settings.postprocess) : {};
  if (answer.kind === "text") return describeText(processed, outputs, settings);
  const values = processed.outputs ?? (processed.mask ? null : outputs);
  if (answer.kind === "values") return describeValues(values ?? nameMask(processed), settings);
  const makers = {
    class: (output) => describeClasses(takeLastToken(output, prepared, settings), settings),
    labels: describeLabels,
    mask: () => describePositions(processed, outputs, prepared, settings),
    decisions: (output) => {
      const frames = splitFrames(output, answer);
      const stepS = (prepared.seconds ?? 0) / Math.max(1, frames.rows);
      return describeDecisions(frames, settings, beginS, stepS);
    },
  };
  return makers[answer.kind](getOutput(values ?? nameMask(processed), settings), settings);
}

/** Check that the outputs that are read are finite. */
function checkOutputs(outputs, settings) {
  const { answer } = settings;
  const read = settings.postprocess
    ? selectOutputs(outputs, settings.postprocess)
    : answer.kind === "values"
      ? outputs
      : new Map([["", getOutput(outputs, settings)]]);
  for (const array of read.values()) {
    if (!toDoubles(array).every(Number.isFinite)) {
      throw new EdgekitError("model_failed", "the model returned values that are no numbers");
    }
  }
}

/** Return the output that the answer reads. */
function getOutput(outputs, { answer }) {
  const output = outputs.get(answer.output) ?? [...outputs.values()][0];
  if (!output) throw new EdgekitError("model_failed", "the model has no outputs");
  return output;
}

/** Return a mask as an output. @param {Processed} processed @returns {Outputs} */
function nameMask({ mask, text }) {
  if (mask) return new Map([["mask", mask]]);
  const data = Int32Array.from([...(text ?? "")], (letter) => letter.codePointAt(0) ?? 0);
  return new Map([["text", { data, shape: [data.length], dtype: "int32" }]]);
}

/** Return the scores of the token after a text; an output of another model as it is. */
function takeLastToken(output, /** @type {PreparedSample} */ { tokens }, { text }) {
  const columns = output.shape[output.shape.length - 1];
  if (!text?.nextTokens || !columns) return output;
  const rows = toDoubles(output).length / columns;
  const last = Math.min(tokens || rows, rows) - 1;
  const data = toDoubles(output).subarray(last * columns, (last + 1) * columns);
  return { data, shape: [columns], dtype: "float64" };
}

/**
 * Return the best class and the five best ones; a single score is that of class 1 of two.
 *
 * @param {NumberArray} output
 * @param {ModelSettings} settings
 * @returns {Answer}
 */
function describeClasses(output, settings) {
  const scores = toDoubles(output);
  const { logits, threshold } = settings.answer;
  let shares = scores;
  /** @type {number[]} */
  let order;
  if (scores.length === 1) {
    const share = logits ? sigmoid(scores[0]) : scores[0];
    shares = Float64Array.of(1 - share, share);
    order = share > threshold ? [1, 0] : [0, 1];
  } else {
    if (logits) shares = softmaxRows(scores, scores.length);
    order = sortPlaces(scores).slice(0, SHOWN_CLASSES);
  }
  const classes = order.map((index) => describeClass(settings, index, shares[index]));
  return { kind: "class", result: classes[0].label, confidence: classes[0].confidence, classes };
}

/** Return the places of values, the largest first; equal ones in their order. */
function sortPlaces(values) {
  return Array.from(values, (_, place) => place).sort((a, b) => values[b] - values[a] || a - b);
}

/** Return the labels above the threshold, the best one first. */
function describeLabels(output, settings) {
  const scores = toDoubles(output);
  const { logits, threshold } = settings.answer;
  const shares = logits ? scores.map(sigmoid) : scores;
  const order = sortPlaces(shares).filter((place) => shares[place] > threshold);
  const result = order.map((index) => describeClass(settings, index, shares[index]));
  return { kind: "labels", result, confidence: result.length ? result[0].confidence : null };
}

/** Return boxes in pixels of the original image, best first. */
function describeBoxes(outputs, /** @type {PreparedSample} */ { pixels }, settings) {
  const isLetterboxed = settings.images?.mode === "letterbox";
  let letterbox = pixels?.letterbox ?? null;
  if (pixels && !isLetterboxed) {
    const [height, width] = pixels.shape;
    letterbox = { scaleX: 1, scaleY: 1, left: 0, top: 0, width, height };
  }
  const processed = settings.postprocess && postprocess(outputs, letterbox, settings.postprocess);
  if (!processed?.boxes) throw makeJobError("settings.json: boxes need a post-processing of boxes");
  const { scores, classes } = processed.boxes;
  let { boxes } = processed.boxes;
  if (pixels && !isLetterboxed) {
    boxes = restoreBoxes(boxes, pixels.letterbox);
  }
  const result = classes.map((index, place) => ({
    ...describeClass(settings, index, scores[place]),
    box: [...boxes.subarray(4 * place, 4 * place + 4)],
  }));
  return { kind: "boxes", result, confidence: result.length ? result[0].confidence : null };
}

/** Return a text, with the mean probability of its characters. */
function describeText(processed, outputs, settings) {
  const { logits, ignore } = settings.answer;
  if (processed.text !== undefined) {
    const { text, chosen, table } = processed;
    const shares = logits ? softmaxRows(table.data, table.columns) : table.data;
    const best = chosen.map((step) => {
      const row = shares.subarray(step * table.columns, (step + 1) * table.columns);
      return Math.min(
        Math.max(
          row.reduce((most, share) => Math.max(most, share)),
          0,
        ),
        1,
      );
    });
    const confidence = best.length
      ? best.reduce((sum, share) => sum + share, 0) / best.length
      : null;
    return { kind: "text", result: text.trim(), confidence };
  }
  const points = [...toDoubles(getOutput(outputs, settings))].filter((point) => point !== ignore);
  const isText = points.every(
    (point) =>
      Number.isInteger(point) && point >= 0 && point <= 0x10ffff && point >> 11 !== 0xd800 >> 11,
  );
  if (!isText) throw new EdgekitError("model_failed", "the model did not return a text");
  const text = points.map((point) => String.fromCodePoint(point)).join("");
  return { kind: "text", result: text.trim(), confidence: null };
}

/** Return a mask of the classes that were chosen, or that the scores choose. */
function describePositions(processed, outputs, /** @type {PreparedSample} */ { pixels }, settings) {
  const isChosen = processed.mask && settings.answer.classAxis === null;
  const scores = processed.mask ? outputs : (processed.outputs ?? outputs);
  const output = isChosen ? processed.mask : getOutput(scores, settings);
  return describeMask(output, settings, pixels);
}

/** Return outputs as nested lists, without those that are fed back as states. */
function describeValues(outputs, { feeding }) {
  const fedBack = new Set(feeding.states.map(({ output }) => output));
  const kept = [...outputs].filter(([name]) => !fedBack.has(name));
  const count = kept.reduce((total, [, array]) => total + countValues(array.shape), 0);
  if (count > MOST_VALUES) {
    throw new EdgekitError(
      "model_failed",
      `the outputs have ${count} numbers, more than an answer holds (${MOST_VALUES})`,
    );
  }
  const result = Object.fromEntries(
    kept.map(([name, array]) => {
      const values = Array.from(toDoubles(array), (value) =>
        array.dtype === "bool" ? value !== 0 : Number.isFinite(value) ? value : null,
      );
      return [name, nest(values, array.shape)];
    }),
  );
  return { kind: "values", result, confidence: null };
}

/** Nest a flat list by a shape. */
function nest(values, shape) {
  if (!shape.length) return values[0];
  if (shape.length === 1) return values;
  const size = values.length / Math.max(1, shape[0]);
  return Array.from({ length: shape[0] }, (_, k) =>
    nest(values.slice(k * size, (k + 1) * size), shape.slice(1)),
  );
}

/**
 * Return a class by its name and its number, with its confidence.
 *
 * @param {ModelSettings} settings
 * @param {number} index
 * @param {number} confidence
 */
function describeClass(settings, index, confidence) {
  return { label: getLabel(settings, index), index, confidence };
}
