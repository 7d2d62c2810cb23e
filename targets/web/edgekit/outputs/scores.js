/** Post-processing of scores: class masks, probabilities and decisions. */

import { formatShape, moveAxis, toDoubles } from "../arrays.js";
import { makeJobError } from "../failures.js";
import { sigmoid, softmaxRows } from "../portable_math.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("./postprocess.js").Outputs} Outputs
 * @typedef {import("../settings.js").Postprocess} Postprocess
 */

/**
 * Return the class with the largest score at each position.
 *
 * @param {Outputs} outputs
 * @param {Postprocess} settings
 * @returns {NumberArray}
 */
export function chooseClasses(outputs, settings) {
  const scores = [...outputs.values()][0];
  const axis = guessClassAxis(scores.shape);
  const last = scores.shape.length - 1;
  if (last < 0 || scores.shape[axis] === 1) {
    throw makeJobError(
      `post-processing ${settings.kind}: output of shape ${formatShape(scores.shape)} has a ` +
        "single channel",
      "use threshold",
    );
  }
  const moved = moveAxis(toDoubles(scores), scores.shape, axis, last);
  const shape = moved.shape.slice(0, last);
  return { data: findLargest(moved.data, moved.shape[last]), shape, dtype: "int32" };
}

/**
 * Return the place of the largest value in each row of `count` values; the first one of equals.
 *
 * @param {Float64Array} values
 * @param {number} count
 * @returns {Int32Array}
 */
export function findLargest(values, count) {
  const places = new Int32Array(values.length / count);
  for (let row = 0; row < places.length; row++) {
    const start = row * count;
    let best = 0;
    for (let k = 0; k < count; k++) {
      const value = values[start + k];
      if (value > values[start + best]) best = k;
      // As numpy: a value that is no number is the largest.
      if (Number.isNaN(value)) {
        best = k;
        break;
      }
    }
    places[row] = best;
  }
  return places;
}

/**
 * Return the probabilities along the class axis.
 *
 * @param {Outputs} outputs
 * @returns {Outputs}
 */
export function computeSoftmax(outputs) {
  return mapOutputs(outputs, applySoftmax);
}

/**
 * Return the logistic function of each value.
 *
 * @param {Outputs} outputs
 * @returns {Outputs}
 */
export function computeSigmoid(outputs) {
  return mapOutputs(outputs, (array) => ({
    data: toDoubles(array).map(sigmoid),
    shape: array.shape,
    dtype: "float64",
  }));
}

/**
 * Return 1 where a value exceeds the threshold, else 0.
 *
 * @param {Outputs} outputs
 * @param {Postprocess} settings
 * @returns {Outputs}
 */
export function applyThreshold(outputs, settings) {
  return mapOutputs(outputs, (array) => ({
    data: Uint8Array.from(toDoubles(array), (value) => (value > settings.threshold ? 1 : 0)),
    shape: array.shape,
    dtype: "uint8",
  }));
}

/** @returns {Outputs} */
function mapOutputs(outputs, convert) {
  return new Map([...outputs].map(([name, array]) => [name, convert(array)]));
}

/**
 * Return the probabilities of an output along its class axis.
 *
 * @param {NumberArray} array
 * @returns {NumberArray}
 */
export function applySoftmax(array) {
  const { shape } = array;
  const [axis, last] = [guessClassAxis(shape), Math.max(0, shape.length - 1)];
  const moved = moveAxis(toDoubles(array), shape, axis, last);
  const count = shape.length ? shape[axis] : 1;
  const rows = count ? softmaxRows(moved.data, count) : moved.data;
  return { ...moveAxis(rows, moved.shape, last, axis), dtype: "float64" };
}

/**
 * Return the shorter one of the first and the last axis as that of the classes.
 *
 * @param {readonly number[]} shape
 * @returns {number}
 */
export function guessClassAxis(shape) {
  if (shape.length < 2) return 0;
  const last = shape.length - 1;
  return shape.length > 2 && shape[0] <= shape[last] ? 0 : last;
}
