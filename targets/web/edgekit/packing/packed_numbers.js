/** Numbers of a packed file: words of a tensor, restored from symbols and low bits. */

import { makeCorruptError } from "./varints.js";

/**
 * Numbers that share a table of frequencies.
 *
 * A number is the signed difference of a word from the center of its tensor: 0, 1, 2, 3 encode 0,
 * -1, 1, -2. A number below `2 ** (keptBits + 1)` is its own symbol. The symbol of a larger one
 * holds its length and the `keptBits` bits after its highest; its other bits are stored as they
 * are.
 *
 * @typedef {object} Group
 * @property {number} width bits of a word: 4, 8, 16 or 32.
 * @property {boolean} rotated words are floats, with the sign moved to the lowest bit.
 * @property {number} shift low bits that are zero in all words, and left out.
 * @property {boolean} centered each tensor has a center in the plan; otherwise it is zero.
 * @property {number} keptBits
 * @property {number[]} counts frequency of each symbol.
 */

/**
 * Return the number of symbols that numbers of `width` bits can have.
 *
 * @param {number} width
 * @param {number} keptBits
 * @returns {number}
 */
export function countSymbols(width, keptBits) {
  return (2 << keptBits) + (Math.max(0, width - keptBits - 1) << keptBits);
}

/** A reader of numbers of different lengths from one string of bits, lowest bit first. */
export class LowBits {
  /** @param {Uint8Array} data */
  constructor(data) {
    this.data = data;
    this.at = 0;
  }

  /**
   * Read a number.
   *
   * @param {number} length bits of the number, at most 32.
   * @returns {number}
   */
  take(length) {
    const end = this.at + length;
    if (end > 8 * this.data.length) throw makeCorruptError("low bits are missing");
    let value = 0;
    let read = 0;
    while (read < length) {
      const place = this.at + read;
      const bits = Math.min(8 - (place % 8), length - read);
      const part = (this.data[place >>> 3] >> (place % 8)) & ((1 << bits) - 1);
      value |= part << read;
      read += bits;
    }
    this.at = end;
    return value >>> 0;
  }

  /**
   * Return whether all was read but the rest of the last byte.
   *
   * @returns {boolean}
   */
  isAtEnd() {
    return 8 * this.data.length - this.at < 8;
  }
}

/**
 * Return a function that reads the next word of a tensor.
 *
 * @param {Group} group
 * @param {LowBits} low
 * @param {() => number} nextSymbol
 * @param {number} center center of the tensor.
 * @returns {() => number}
 */
export function makeWordReader(group, low, nextSymbol, center) {
  const { width, rotated, shift, keptBits, counts } = group;
  const { leasts, missings } = computeSymbolValues(counts.length, keptBits);
  const mask = width === 32 ? -1 : (1 << width) - 1;
  const offset = Number(BigInt.asIntN(32, BigInt(center)));
  return () => {
    const symbol = nextSymbol();
    let number = leasts[symbol];
    if (missings[symbol]) number = (number | low.take(missings[symbol])) >>> 0;
    let word = (number >>> 1) ^ -(number & 1);
    word = ((word + offset) << shift) & mask;
    return rotated ? (word >>> 1) | (word << (width - 1)) : word;
  };
}

/** Return, for each symbol, its least number and how many low bits it lacks. */
function computeSymbolValues(count, keptBits) {
  const leasts = new Uint32Array(count);
  const missings = new Uint8Array(count);
  const plain = 2 << keptBits;
  for (let symbol = 0; symbol < count; symbol++) {
    const beyond = symbol - plain;
    missings[symbol] = beyond < 0 ? 0 : (beyond >> keptBits) + 1;
    const highest = (1 << keptBits) + (beyond & ((1 << keptBits) - 1));
    leasts[symbol] = beyond < 0 ? symbol : highest * 2 ** missings[symbol];
  }
  return { leasts, missings };
}
