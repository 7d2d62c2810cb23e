/** Decoding of image files by the browser. */

import { makeSampleError } from "../failures.js";
import { checkPixelCount } from "./images.js";

/** Largest size of an image file in bytes. */
export const MOST_IMAGE_BYTES = 64 << 20;

/** Pixels that are read at a time: tablets limit the size of a canvas. */
const MOST_CANVAS_PIXELS = 1 << 22;
const OPTIONS = /** @type {const} */ ({
  colorSpaceConversion: "none",
  imageOrientation: "from-image",
  premultiplyAlpha: "none",
});

/**
 * Decode an image file to pixels, upright, without conversion to the screen's colors.
 *
 * Semi-transparent pixels are rounded by the browser; other pixels are exact.
 *
 * @param {Blob} blob
 * @returns {Promise<import("./images.js").RgbaImage>}
 */
export async function decodeImage(blob) {
  if (blob.size > MOST_IMAGE_BYTES) {
    throw makeSampleError(
      `the image file is too large: ${Math.ceil(blob.size / 2 ** 20)} MiB`,
      `use one of at most ${MOST_IMAGE_BYTES >> 20} MiB`,
    );
  }
  const bitmap = await openBitmap(blob);
  try {
    const { width, height } = bitmap;
    checkPixelCount(width, height);
    return { width, height, data: readPixels(bitmap, width, height) };
  } finally {
    bitmap.close();
  }
}

/** @param {Blob} blob */
async function openBitmap(blob) {
  try {
    return await createImageBitmap(blob, OPTIONS).catch((error) => {
      // Older browsers do not know all options; their defaults are the same for photos.
      if (error instanceof TypeError) return createImageBitmap(blob);
      throw error;
    });
  } catch (error) {
    throw makeSampleError(
      "this file is not an image that the browser can read",
      "use a JPEG, PNG or WebP file",
    );
  }
}

/**
 * @param {ImageBitmap} bitmap
 * @param {number} width
 * @param {number} height
 */
function readPixels(bitmap, width, height) {
  const rows = Math.min(height, Math.max(1, Math.floor(MOST_CANVAS_PIXELS / width)));
  try {
    const data = new Uint8ClampedArray(4 * width * height);
    const context = makeCanvas(width, rows).getContext("2d", { willReadFrequently: true });
    for (let top = 0; top < height; top += rows) {
      context.clearRect(0, 0, width, rows);
      context.drawImage(bitmap, 0, -top);
      const count = Math.min(rows, height - top);
      data.set(context.getImageData(0, 0, width, count).data, 4 * width * top);
    }
    return data;
  } catch (error) {
    throw makeSampleError("the browser has no memory for an image of this size");
  }
}

/**
 * @param {number} width
 * @param {number} height
 * @returns {any} a canvas; older tablets have those of a page only.
 */
function makeCanvas(width, height) {
  if (typeof OffscreenCanvas !== "undefined") return new OffscreenCanvas(width, height);
  return Object.assign(document.createElement("canvas"), { width, height });
}
