/** Arrays in JSON: a type, a shape, and bytes as base64. */

import { countValues, makeZeros, readBytes } from "./arrays.js";
import { dtype, integer, list, makeFieldError, record, text } from "./settings_fields.js";

const MOST_BYTES = 1 << 26;
const MOST_AXES = 64;
const ARRAY = record({
  dtype: [dtype],
  shape: [list(integer(0, 2 ** 31 - 1), MOST_AXES)],
  data: [text(2 * MOST_BYTES)],
});

/**
 * Read an array. One of equal values may hold one of them alone.
 *
 * @param {unknown} value
 * @param {string} path path of the value, for messages.
 * @returns {import("./arrays.js").NumberArray}
 */
export function readStoredArray(value, path) {
  const stored = ARRAY(value, path);
  const count = countValues(stored.shape);
  const one = makeZeros(stored.dtype, [1]);
  if (!(count * one.data.BYTES_PER_ELEMENT <= MOST_BYTES)) {
    throw makeFieldError(path, `larger than ${MOST_BYTES >> 20} MiB`);
  }
  const bytes = decodeBase64(stored.data, path);
  if (count !== 1 && bytes.length === one.data.BYTES_PER_ELEMENT) {
    const { data } = readBytes(stored.dtype, [1], bytes);
    const filled = makeZeros(stored.dtype, stored.shape);
    filled.data.fill(/** @type {never} */ (data[0]));
    return filled;
  }
  if (bytes.length !== count * one.data.BYTES_PER_ELEMENT) {
    throw makeFieldError(path, `has ${bytes.length} bytes, which are not its shape`);
  }
  return readBytes(stored.dtype, stored.shape, bytes);
}

/**
 * Read the value of a constant.
 *
 * @param {any} value
 * @param {string} path
 * @returns {import("./arrays.js").NumberArray|null} null if it is too large for the settings, which
 *   then hold its type and shape alone.
 */
export function readConstant(value, path) {
  const stored = ARRAY(value, path);
  const isLeftOut = stored.data === "" && countValues(stored.shape) > 0;
  return isLeftOut ? null : readStoredArray(value, path);
}

function decodeBase64(encoded, path) {
  try {
    return Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  } catch (error) {
    throw makeFieldError(path, "not base64");
  }
}
