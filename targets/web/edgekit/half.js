/** Floats of 16 bits, as their bits. */

import { roundHalfEven } from "./portable_math.js";

const WORD = new DataView(new ArrayBuffer(8));

/**
 * Convert the bits of a float16 to a number.
 *
 * @param {number} bits
 * @returns {number}
 */
export function decodeHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/**
 * Convert a number to the bits of the nearest float16; halves go to the even one.
 *
 * @param {number} value
 * @returns {number}
 */
export function encodeHalf(value) {
  WORD.setFloat64(0, value);
  const sign = (WORD.getUint16(0) >> 15) << 15;
  if (Number.isNaN(value)) return sign | 0x7e00;
  const size = Math.abs(value);
  if (size >= 65520) return sign | 0x7c00;
  // The distance of neighbors: 2 ** -24 below the least normal number, then one per power of two.
  const exponent = Math.max(-14, ((WORD.getUint16(0) >> 4) & 2047) - 1023);
  const units = roundHalfEven(size * 2 ** (10 - exponent));
  return sign | (units + ((exponent + 14) << 10));
}
