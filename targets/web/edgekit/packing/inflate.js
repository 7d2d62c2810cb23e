/** Decompression of deflated bytes by the browser. */

import { makeCorruptError } from "./varints.js";

/**
 * Decompress bytes that were deflated without a header.
 *
 * @param {Uint8Array} packed
 * @param {number} most largest size of the result.
 * @returns {Promise<Uint8Array>}
 */
export async function inflate(packed, most) {
  const stream = new Blob([/** @type {any} */ (packed)])
    .stream()
    .pipeThrough(new DecompressionStream("deflate-raw"));
  const reader = stream.getReader();
  const result = new Uint8Array(most);
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return result.subarray(0, size);
      if (size + value.length > most) break;
      result.set(value, size);
      size += value.length;
    }
  } catch (error) {
    throw makeCorruptError("the plan is damaged");
  }
  await reader.cancel().catch(() => {});
  throw makeCorruptError("the plan has a wrong size");
}
