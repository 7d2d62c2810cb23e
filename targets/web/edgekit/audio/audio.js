/** Sounds as rows of a model's input: signals or spectrograms, whole or step by step. */

import { makeSampleError } from "../failures.js";
import { computeSpectrogram, countFrames } from "./spectrogram.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("../settings.js").AudioSettings} AudioSettings
 */

/**
 * Convert a signal to the row of an input.
 *
 * @param {Float32Array} wave
 * @param {AudioSettings} how
 * @param {readonly (number|string)[]} sizes shape of the input without the axis of the samples.
 * @returns {NumberArray}
 */
export function convertWave(wave, how, sizes) {
  const shape = chooseShape(wave.length, how, sizes);
  if (how.spectrogram === null) return { data: wave, shape, dtype: "float32" };
  const { data, frames, bins } = computeSpectrogram(wave, how);
  const rows = Float32Array.from(data);
  if (how.layout === "frames-bins") return { data: rows, shape, dtype: "float32" };
  const turned = new Float32Array(rows.length);
  for (let frame = 0; frame < frames; frame++) {
    for (let bin = 0; bin < bins; bin++) turned[bin * frames + frame] = rows[frame * bins + bin];
  }
  return { data: turned, shape, dtype: "float32" };
}

/** Return the shape of a row, with the axes of size 1 that the model's input has. */
function chooseShape(length, how, sizes) {
  let shape = [length];
  if (how.spectrogram !== null) {
    const frames = countFrames(length, how);
    if (!frames || (how.center && length <= Math.floor(how.nFft / 2))) {
      throw makeSampleError("the sound is too short", "record a longer one");
    }
    const bins = how.spectrogram === "magnitude" ? Math.floor(how.nFft / 2) + 1 : how.mels;
    shape = how.layout === "frames-bins" ? [frames, bins] : [bins, frames];
  }
  const others = sizes.filter((size) => size !== 1).length;
  if (others !== shape.length) return shape;
  return sizes.map((size) => (size === 1 ? 1 : shape.shift()));
}

/**
 * Cut a signal at its end, or fill it with zeros.
 *
 * @param {Float32Array} wave
 * @param {number} length
 * @returns {Float32Array}
 */
export function fitWave(wave, length) {
  if (wave.length >= length) return wave.subarray(0, length);
  const result = new Float32Array(length);
  result.set(wave);
  return result;
}

/**
 * Return the values of each step of a stream: new ones, after the last ones of the step before.
 *
 * Zeros come before the first step. Values behind the last whole step are left out.
 *
 * @param {Float32Array} wave
 * @param {number} window
 * @param {number} step
 * @returns {Float32Array[]}
 */
export function listWindows(wave, window, step) {
  const padded = new Float32Array(wave.length + window - step);
  padded.set(wave, window - step);
  return cutWindows(padded, window, step);
}

/**
 * Return the values of each whole step.
 *
 * @param {Float32Array} values those before the first step, and those of the steps.
 * @param {number} window
 * @param {number} step
 * @returns {Float32Array[]}
 */
export function cutWindows(values, window, step) {
  const count = Math.max(0, Math.floor((values.length - window) / step) + 1);
  return Array.from({ length: count }, (_, k) => values.subarray(k * step, k * step + window));
}
