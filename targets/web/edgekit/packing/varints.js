/** Integers of variable length: small ones take one byte. */

import { EdgekitError } from "../failures.js";

/**
 * Build the error of a packed file that is damaged.
 *
 * @param {string} reason
 * @returns {EdgekitError}
 */
export function makeCorruptError(reason) {
  return new EdgekitError("corrupt", `the model cannot be unpacked: ${reason}`, "load it again");
}

/** A reader of variable-length integers: 7 bits per byte, least significant first. */
export class Varints {
  /**
   * @param {Uint8Array} data
   * @param {number} [offset]
   * @param {number} [most] largest number of integers to read.
   */
  constructor(data, offset = 0, most = Infinity) {
    this.data = data;
    this.at = offset;
    this.left = most;
  }

  /**
   * Read the next number.
   *
   * @returns {number}
   */
  next() {
    this.left -= 1;
    if (this.left < 0) throw makeCorruptError("too many numbers");
    let value = 0;
    for (let factor = 1; factor < 2 ** 56; factor *= 128) {
      if (this.at >= this.data.length) throw makeCorruptError("a number is truncated");
      const byte = this.data[this.at++];
      value += (byte & 127) * factor;
      if (byte < 128) {
        if (!Number.isSafeInteger(value)) break;
        return value;
      }
    }
    throw makeCorruptError("a number is too large");
  }

  /**
   * Read the next signed number: 0, 1, 2, 3 encode 0, -1, 1, -2 (zigzag).
   *
   * @returns {number}
   */
  nextSigned() {
    const value = this.next();
    return value % 2 ? -(value + 1) / 2 : value / 2;
  }

  /**
   * Read the next `count` numbers.
   *
   * @param {number} count
   * @returns {number[]}
   */
  readSeveral(count) {
    if (count > this.data.length - this.at) throw makeCorruptError("numbers are missing");
    return Array.from({ length: count }, () => this.next());
  }

  /**
   * Return the next `count` bytes as they are.
   *
   * @param {number} count
   * @returns {Uint8Array}
   */
  take(count) {
    if (count > this.data.length - this.at) throw makeCorruptError("bytes are missing");
    this.at += count;
    return this.data.subarray(this.at - count, this.at);
  }
}
