/** Inputs of a model that samples feed. */

import { WHOLE } from "./feeds.js";

/**
 * @typedef {import("./settings.js").ModelSettings} ModelSettings
 * @typedef {import("./settings.js").Tensor} Tensor
 */

/**
 * Return what a sample of a model is.
 *
 * @param {ModelSettings} settings
 * @returns {"text"|"audio"|"image"|"row"}
 */
export function getInputKind({ text, audio, images, fields }) {
  if (text) return "text";
  if (audio) return "audio";
  return images && !fields.length ? "image" : "row";
}

/**
 * Return the inputs that each sample feeds.
 *
 * @param {ModelSettings} settings
 * @returns {Tensor[]}
 */
export function listSampleInputs({ inputs, feeding }) {
  const others = new Set([...feeding.constants, ...feeding.states].map(({ name }) => name));
  return inputs.filter(({ name }) => !others.has(name));
}

/**
 * Return the axis of the samples of an input.
 *
 * @param {Tensor} tensor
 * @param {ModelSettings} settings
 * @returns {number}
 */
export function getSampleAxis({ name, shape }, { feeding }) {
  return feeding.axes?.get(name) ?? (shape.length ? 0 : WHOLE);
}
