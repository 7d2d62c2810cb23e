/**
 * Entropy-coded symbols: interleaved range asymmetric numeral systems.
 *
 * Source: Duda 2013, "Asymmetric numeral systems"; Giesen 2014, "Interleaved entropy coders".
 */

import { makeCorruptError } from "./varints.js";

/** Probabilities are multiples of 2 ** -PRECISION; states lie in [FLOOR, 2 ** 32). */
const PRECISION = 14;
const FLOOR = 1 << 16;
const MOST_SYMBOLS = 256;

/** 2 ** (24 - i / 8) as integers: every machine must compute the same table from them. */
const EIGHTHS = [16777216, 15384775, 14107901, 12937002, 11863283, 10878679, 9975792, 9147842];

/**
 * Compute the frequencies of symbols 0, 1, ..., which add up to `2 ** PRECISION`.
 *
 * @param {readonly number[]} levels 0 for a symbol that does not occur, else 1 + its distance below
 *   the most frequent symbol, in `1 / steps` powers of two.
 * @param {number} steps 1, 2, 4 or 8.
 * @returns {number[]}
 */
export function computeFrequencies(levels, steps) {
  const used = levels.filter((level) => level).length;
  if (!used || levels.length > MOST_SYMBOLS) {
    throw makeCorruptError(`a symbol table of ${used} entries`);
  }
  const shares = levels.map((level) => (level ? computeShare((level - 1) * (8 / steps)) : 0));
  const spread = (1 << PRECISION) - used;
  const total = shares.reduce((sum, share) => sum + share, 0);
  const counts = levels.map((level, k) =>
    level ? 1 + Math.floor((shares[k] * spread) / total) : 0,
  );
  const sum = counts.reduce((before, count) => before + count, 0);
  counts[counts.indexOf(Math.max(...counts))] += (1 << PRECISION) - sum;
  return counts;
}

function computeShare(eighths) {
  return Math.max(1, Math.floor(EIGHTHS[eighths % 8] / 2 ** Math.floor(eighths / 8)));
}

/** A decoder of symbols, run by run, in the order in which they were written. */
export class Decoder {
  /**
   * @param {Uint8Array} data a little-endian 32-bit state per lane, then 16-bit words.
   * @param {number} lanes number of interleaved states.
   */
  constructor(data, lanes) {
    if (lanes < 1 || data.length < 4 * lanes || data.length % 2) {
      throw makeCorruptError("the entropy-coded data is truncated");
    }
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.states = Uint32Array.from({ length: lanes }, (_, lane) => view.getUint32(4 * lane, true));
    this.data = data;
    this.at = 4 * lanes;
  }

  /**
   * Begin a run of symbols with given frequencies, at the first lane.
   *
   * @param {readonly number[]} counts
   * @returns {() => number} a function that returns the next symbol.
   */
  begin(counts) {
    const { states, data } = this;
    const lanes = states.length;
    const { symbols, widths, withins } = buildSlots(counts);
    const mask = (1 << PRECISION) - 1;
    let lane = 0;
    return () => {
      const state = states[lane];
      const slot = state & mask;
      let next = (state >>> PRECISION) * widths[slot] + withins[slot];
      if (next < FLOOR) {
        if (this.at >= data.length) throw makeCorruptError("the entropy-coded data is truncated");
        next = next * 65536 + data[this.at] + 256 * data[this.at + 1];
        this.at += 2;
      }
      states[lane] = next;
      lane = lane + 1 === lanes ? 0 : lane + 1;
      return symbols[slot];
    };
  }

  /**
   * Return whether all words were read and every lane is back in its initial state.
   *
   * @returns {boolean}
   */
  isAtEnd() {
    return this.at === this.data.length && this.states.every((state) => state === FLOOR);
  }
}

/** Return symbol, frequency and place within its symbol of each slot. */
function buildSlots(counts) {
  const size = 1 << PRECISION;
  const slots = {
    symbols: new Uint8Array(size),
    widths: new Uint32Array(size),
    withins: new Uint32Array(size),
  };
  let slot = 0;
  counts.forEach((count, symbol) => {
    for (let within = 0; within < count; within++, slot++) {
      slots.symbols[slot] = symbol;
      slots.widths[slot] = count;
      slots.withins[slot] = within;
    }
  });
  return slots;
}
