/**
 * Letterbox: an image scaled to fit the model's input, with its aspect ratio kept, and the inverse.
 *
 * A pixel of the input is `original * (scaleX, scaleY) + (left, top)`.
 */

import { roundHalfEven } from "../portable_math.js";

/**
 * Where an image of a width and height is in the input.
 * @typedef {object} Letterbox
 * @property {number} scaleX
 * @property {number} scaleY
 * @property {number} left
 * @property {number} top
 * @property {number} width
 * @property {number} height
 */

/**
 * Compute scale, left and top of an image in the model's input.
 *
 * @param {number} width width of the image.
 * @param {number} height its height.
 * @param {readonly number[]} size height and width of the input.
 * @param {boolean} centered whether the image is in the center, else in the top left corner.
 * @returns {{scale: number, left: number, top: number}}
 */
export function computeLetterbox(width, height, size, centered) {
  const scale = Math.min(size[0] / height, size[1] / width);
  if (!centered) return { scale, left: 0, top: 0 };
  return {
    scale,
    left: Math.floor((size[1] - scaleSide(width, scale)) / 2),
    top: Math.floor((size[0] - scaleSide(height, scale)) / 2),
  };
}

/**
 * Return the scaled length of a side in whole pixels, at least one.
 *
 * @param {number} side
 * @param {number} scale
 * @returns {number}
 */
export function scaleSide(side, scale) {
  return Math.max(1, roundHalfEven(side * scale));
}

/**
 * Convert boxes from pixels of the input to those of the original, and clip them to it.
 *
 * @param {Float64Array} boxes four numbers a box: left, top, right, bottom.
 * @param {Letterbox} letterbox
 * @returns {Float64Array}
 */
export function restoreBoxes(boxes, letterbox) {
  const { scaleX, scaleY, left, top, width, height } = letterbox;
  const restored = boxes.map((value, place) =>
    place % 2 ? (value - top) / scaleY : (value - left) / scaleX,
  );
  return clipBoxes(restored, width, height);
}

/**
 * Return the corners of the input in pixels of the original: left, top, right, bottom.
 *
 * They are outside of the image where the input has a border, inside where the image was cropped.
 * `null`: the input is the whole image.
 *
 * @param {{shape: readonly number[], letterbox: Letterbox}} pixels
 * @returns {number[]|null}
 */
export function findRegion({ shape, letterbox }) {
  const { scaleX, scaleY, left, top, width, height } = letterbox;
  const region = [0 - left, 0 - top, shape[1] - left, shape[0] - top].map(
    (value, place) => value / (place % 2 ? scaleY : scaleX),
  );
  const whole = [0, 0, width, height];
  return region.every((value, place) => value === whole[place]) ? null : region;
}

/**
 * Clip boxes to an image.
 *
 * @param {Float64Array} boxes
 * @param {number} width
 * @param {number} height
 * @returns {Float64Array}
 */
export function clipBoxes(boxes, width, height) {
  return boxes.map((value, place) => Math.min(Math.max(value, 0), place % 2 ? height : width));
}
