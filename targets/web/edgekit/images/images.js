/** Pixels of one image: resized, cropped or letterboxed, in the model's channel order. */

import { makeSampleError } from "../failures.js";
import { computeLetterbox, scaleSide } from "./letterbox.js";
import { resizePixels } from "./resample.js";
import { roundHalfEven } from "../portable_math.js";

/** Largest number of pixels of an image. */
export const MOST_PIXELS = 1 << 26;

/**
 * How images become the model's input.
 *
 * @typedef {object} ImageSettings
 * @property {number|null} resize length of the short side, bicubic.
 * @property {number|null} crop side of the square cut from the center.
 * @property {"letterbox"|"stretch"|null} mode how an image becomes `size`, bilinear.
 * @property {readonly number[]|null} size height and width of the result if there is a mode.
 * @property {number} pad value of the padding.
 * @property {boolean} centered whether padding is on both sides, else below and to the right.
 * @property {boolean} reversedChannels whether channels are stored as blue, green, red.
 * @property {boolean} gray whether images have one channel.
 *
 * An image as `ImageData` holds it: four bytes a pixel.
 * @typedef {{width: number, height: number, data: Uint8Array|Uint8ClampedArray}} RgbaImage
 *
 * Pixels [height, width, channels] and where they come from.
 * @typedef {object} Pixels
 * @property {Uint8Array} data
 * @property {number[]} shape
 * @property {import("./letterbox.js").Letterbox} letterbox
 */

/**
 * Convert an image to the model's pixels. The alpha channel is left out.
 *
 * @param {RgbaImage} image
 * @param {ImageSettings} how
 * @returns {Pixels}
 */
export function preparePixels(image, how) {
  checkImage(image);
  const channels = how.gray ? 1 : 3;
  // Width and height of ImageData are not properties of its own, so that no spread copies them.
  const plain = {
    width: image.width,
    height: image.height,
    data: how.gray ? toGray(image) : dropAlpha(image),
  };
  if (how.mode === "letterbox" && how.size) return addLetterbox(plain, channels, how, how.size);
  const scaled = scaleImage(plain, channels, how);
  const { data, width, height, left, top } = cropImage(scaled, channels, how.crop);
  const scales = { scaleX: scaled.width / image.width, scaleY: scaled.height / image.height };
  return {
    data: orderChannels(data, how),
    shape: [height, width, channels],
    letterbox: { ...scales, left: -left, top: -top, width: image.width, height: image.height },
  };
}

/**
 * Cut out the part of an image that a box covers, such as an object that a detector has found.
 *
 * @param {RgbaImage} image
 * @param {readonly number[]} box left, top, right, bottom in pixels; what is outside is left out.
 * @returns {RgbaImage} whole pixels that the box touches, at least one.
 */
export function cutImage(image, box) {
  checkImage(image);
  const { width, height, data } = image;
  const [left, top] = [box[0], box[1]].map((side, axis) =>
    Math.min(Math.max(Math.floor(side), 0), (axis ? height : width) - 1),
  );
  const right = Math.max(left + 1, Math.min(Math.ceil(box[2]), width));
  const bottom = Math.max(top + 1, Math.min(Math.ceil(box[3]), height));
  const cut = { width: right - left, height: bottom - top };
  const pixels = new Uint8ClampedArray(4 * cut.width * cut.height);
  for (let y = 0; y < cut.height; y++) {
    const start = 4 * ((top + y) * width + left);
    pixels.set(data.subarray(start, start + 4 * cut.width), 4 * y * cut.width);
  }
  return { ...cut, data: pixels };
}

/** @param {RgbaImage} image */
function checkImage(image) {
  const { width, height, data } = image ?? {};
  const isImage = Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0;
  if (!isImage || data?.length !== 4 * width * height) {
    throw makeSampleError("this is not an image: it has no pixels");
  }
  checkPixelCount(width, height);
}

/**
 * Refuse an image of too many pixels.
 *
 * @param {number} width
 * @param {number} height
 */
export function checkPixelCount(width, height) {
  if (width * height > MOST_PIXELS) {
    throw makeSampleError(
      `the image is too large: ${width} x ${height} pixels`,
      `use one of at most ${Math.floor(MOST_PIXELS / 1_000_000)} million pixels`,
    );
  }
}

/** Drop the alpha channel. @param {RgbaImage} image */
function dropAlpha({ width, height, data }) {
  const count = width * height;
  const result = new Uint8Array(3 * count);
  for (let pixel = 0, source = 0, target = 0; pixel < count; pixel++, source += 4, target += 3) {
    result[target] = data[source];
    result[target + 1] = data[source + 1];
    result[target + 2] = data[source + 2];
  }
  return result;
}

/** Convert to the luminance of ITU-R 601-2, with Pillow's integers. @param {RgbaImage} image */
function toGray({ width, height, data }) {
  const result = new Uint8Array(width * height);
  for (let pixel = 0, source = 0; pixel < result.length; pixel++, source += 4) {
    const sum = data[source] * 19595 + data[source + 1] * 38470 + data[source + 2] * 7471;
    result[pixel] = (sum + 0x8000) >> 16;
  }
  return result;
}

/** Stretch or resize an image. */
function scaleImage(image, channels, how) {
  let { width, height, data } = image;
  const resize = (newWidth, newHeight, filter) => {
    data = resizePixels(data, width, height, channels, newWidth, newHeight, filter);
    [width, height] = [newWidth, newHeight];
  };
  if (how.mode === "stretch" && how.size) resize(how.size[1], how.size[0], "bilinear");
  if (how.resize) {
    const ratio = how.resize / Math.min(width, height);
    const sides = [roundHalfEven(width * ratio), roundHalfEven(height * ratio)];
    checkImageSize(sides[0], sides[1]);
    resize(sides[0], sides[1], "bicubic");
  }
  return { width, height, data };
}

/** Cut the square from the center. */
function cropImage({ width, height, data }, channels, side) {
  if (!side) return { width, height, data, left: 0, top: 0 };
  if (Math.min(width, height) < side) {
    throw makeSampleError(
      `the image is too small: ${width} x ${height} pixels, but ${side} are needed`,
    );
  }
  const left = Math.floor((width - side) / 2);
  const top = Math.floor((height - side) / 2);
  const square = cropPixels(data, width, channels, left, top, side);
  return { width: side, height: side, data: square, left, top };
}

/** Refuse a long thin image that would grow without bound. */
function checkImageSize(width, height) {
  if (width * height > MOST_PIXELS) {
    throw makeSampleError("the image is too long and thin to be resized", "cut it first");
  }
}

/** Cut out a square. */
function cropPixels(data, width, channels, left, top, side) {
  const result = new Uint8Array(side * side * channels);
  const length = side * channels;
  for (let y = 0; y < side; y++) {
    const start = ((top + y) * width + left) * channels;
    result.set(data.subarray(start, start + length), y * length);
  }
  return result;
}

/** Scale an image to fit the input, and pad the rest. */
function addLetterbox(image, channels, how, size) {
  const { width, height } = image;
  const { scale, left, top } = computeLetterbox(width, height, size, how.centered);
  const [newWidth, newHeight] = [scaleSide(width, scale), scaleSide(height, scale)];
  const inner = orderChannels(
    resizePixels(image.data, width, height, channels, newWidth, newHeight, "bilinear"),
    how,
  );
  const data = new Uint8Array(size[0] * size[1] * channels).fill(how.pad);
  const length = newWidth * channels;
  for (let y = 0; y < newHeight; y++) {
    const target = ((top + y) * size[1] + left) * channels;
    data.set(inner.subarray(y * length, (y + 1) * length), target);
  }
  return {
    data,
    shape: [size[0], size[1], channels],
    letterbox: { scaleX: scale, scaleY: scale, left, top, width, height },
  };
}

/** Store channels as blue, green, red where the model wants it so. */
function orderChannels(data, how) {
  const result = new Uint8Array(data.buffer, data.byteOffset, data.length);
  if (!how.reversedChannels || how.gray) return result;
  for (let place = 0; place < result.length; place += 3) {
    [result[place], result[place + 2]] = [result[place + 2], result[place]];
  }
  return result;
}
