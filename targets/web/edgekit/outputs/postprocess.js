/** Post-processing of a model's outputs by kind: boxes, texts, masks and probabilities. */

import { decodeCtc } from "./ctc.js";
import {
  convertBoxes,
  convertDistances,
  convertYolov5,
  convertYolov8,
  convertYolox,
} from "./detectors.js";
import { makeJobError } from "../failures.js";
import { applyThreshold, chooseClasses, computeSigmoid, computeSoftmax } from "./scores.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("./box_selection.js").Table} Table
 * @typedef {Map<string, NumberArray>} Outputs outputs by name, in the model's order.
 *
 * Boxes by falling score: four numbers each, with a score and the number of a class.
 * @typedef {{boxes: Float64Array, scores: Float64Array, classes: number[]}} Boxes
 *
 * What a post-processing returns; only the fields of its kind are there.
 * @typedef {object} Processed
 * @property {Boxes} [boxes]
 * @property {string} [text]
 * @property {Table} [table] scores of a text, a row for each step.
 * @property {number[]} [chosen] step of each character of a text.
 * @property {NumberArray} [mask]
 * @property {Outputs} [outputs]
 */

/** @type {Record<string, (outputs: Outputs, letterbox: any, settings: any) => Processed>} */
const KINDS = {
  argmax: (outputs, _, settings) => ({ mask: chooseClasses(outputs, settings) }),
  boxes: (outputs, letterbox, settings) => ({ boxes: convertBoxes(outputs, letterbox, settings) }),
  ctc: (outputs, _, settings) => decodeCtc(outputs, settings),
  distances: (outputs, letterbox, settings) => ({
    boxes: convertDistances(outputs, letterbox, settings),
  }),
  sigmoid: (outputs) => ({ outputs: computeSigmoid(outputs) }),
  softmax: (outputs) => ({ outputs: computeSoftmax(outputs) }),
  threshold: (outputs, _, settings) => ({ outputs: applyThreshold(outputs, settings) }),
  yolov5: (outputs, letterbox, settings) => ({
    boxes: convertYolov5(outputs, letterbox, settings),
  }),
  yolov8: (outputs, letterbox, settings) => ({
    boxes: convertYolov8(outputs, letterbox, settings),
  }),
  yolox: (outputs, letterbox, settings) => ({ boxes: convertYolox(outputs, letterbox, settings) }),
};

/** Kinds of post-processing. */
export const POSTPROCESS_KINDS = Object.keys(KINDS);

/**
 * Convert the outputs of one sample to what the application reads.
 *
 * @param {Outputs} outputs outputs of the model, without the sample axis.
 * @param {import("../images/letterbox.js").Letterbox|null} letterbox place of the image.
 * @param {import("../settings.js").Postprocess} settings
 * @returns {Processed}
 */
export function postprocess(outputs, letterbox, settings) {
  const selected = selectOutputs(outputs, settings);
  const processed = KINDS[settings.kind](selected, letterbox, settings);
  if (!processed.outputs) return processed;
  return { outputs: new Map([...outputs, ...processed.outputs]) };
}

/**
 * Return the outputs that the settings name, in that order; all without such names.
 *
 * @param {Outputs} outputs
 * @param {import("../settings.js").Postprocess} settings
 * @returns {Outputs}
 */
export function selectOutputs(outputs, settings) {
  const missing = settings.outputs.find((name) => !outputs.has(name));
  if (missing !== undefined) {
    throw makeJobError(
      `post-processing ${settings.kind}: the model has no output ${JSON.stringify(missing)}, ` +
        `only ${[...outputs.keys()].join(", ")}`,
    );
  }
  const names = settings.outputs.length ? settings.outputs : [...outputs.keys()];
  return new Map(names.map((name) => [name, /** @type {NumberArray} */ (outputs.get(name))]));
}
