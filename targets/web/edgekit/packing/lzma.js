/** Decompression of LZMA data without a header (Pavlov 2015, "LZMA specification"). */

import { makeCorruptError } from "./varints.js";

const STATES = 12;
const MOST_POSITION_BITS = 4;
const LENGTH_STATES = 4;
const SLOT_BITS = 6;
const ALIGN_BITS = 4;
const FIRST_MODEL_SLOT = 4;
const END_MODEL_SLOT = 14;
const FULL_DISTANCES = 1 << (END_MODEL_SLOT / 2);
const LEAST_MATCH = 2;
/** Probabilities of 11 bits, and how fast they follow what was read. */
const PROBABILITY_BITS = 11;
const MOVE_BITS = 5;
const TOP = 2 ** 24;

/**
 * Decompress the plan of a packed file.
 *
 * @param {Uint8Array} packed a byte of settings (lc + 9 lp + 45 pb), then the data.
 * @param {number} size size of the result.
 * @returns {Uint8Array}
 */
export function decodeLzma(packed, size) {
  if (!packed.length) throw makeCorruptError("the plan is missing");
  const lc = packed[0] % 9;
  const lp = Math.floor(packed[0] / 9) % 5;
  const pb = Math.floor(packed[0] / 45);
  if (lc + lp > 4 || pb > 4) throw makeCorruptError("the settings of the plan are out of range");
  return new Lzma(new RangeDecoder(packed.subarray(1)), { lc, lp, pb }, size).decode();
}

/** A decoder of single bits. */
class RangeDecoder {
  constructor(data) {
    this.data = data;
    this.at = 1;
    this.range = 0xffffffff;
    this.code = 0;
    if (data[0] !== 0) throw makeCorruptError("the plan is damaged");
    for (let k = 0; k < 4; k++) this.code = ((this.code << 8) | this.readByte()) >>> 0;
  }

  readByte() {
    if (this.at >= this.data.length) throw makeCorruptError("the plan is truncated");
    return this.data[this.at++];
  }

  normalize() {
    if (this.range >= TOP) return;
    this.range = (this.range << 8) >>> 0;
    this.code = ((this.code << 8) | this.readByte()) >>> 0;
  }

  /** Decode a bit with the probability at a place, which follows it. */
  decodeBit(probabilities, place) {
    this.normalize();
    const probability = probabilities[place];
    const bound = (this.range >>> PROBABILITY_BITS) * probability;
    if (this.code < bound) {
      this.range = bound;
      probabilities[place] += ((1 << PROBABILITY_BITS) - probability) >> MOVE_BITS;
      return 0;
    }
    this.range -= bound;
    this.code -= bound;
    probabilities[place] -= probability >> MOVE_BITS;
    return 1;
  }

  /** Decode a number of bits that are 0 or 1 alike. */
  decodeDirect(count) {
    let result = 0;
    for (let k = 0; k < count; k++) {
      this.normalize();
      this.range >>>= 1;
      const bit = this.code >= this.range ? 1 : 0;
      if (bit) this.code -= this.range;
      result = result * 2 + bit;
    }
    return result;
  }

  /** Decode a number of bits with a tree of probabilities, highest bit first. */
  decodeTree(probabilities, bits, offset = 0) {
    let node = 1;
    for (let k = 0; k < bits; k++) node = node * 2 + this.decodeBit(probabilities, offset + node);
    return node - (1 << bits);
  }

  /** Decode a number of bits with a tree of probabilities, lowest bit first. */
  decodeReverse(probabilities, bits, offset = 0) {
    let [node, result] = [1, 0];
    for (let k = 0; k < bits; k++) {
      const bit = this.decodeBit(probabilities, offset + node);
      node = node * 2 + bit;
      result |= bit << k;
    }
    return result;
  }
}

/** A decoder of the lengths of matches. */
class LengthDecoder {
  constructor() {
    this.choice = makeProbabilities(2);
    this.low = makeProbabilities(1 << (MOST_POSITION_BITS + 3));
    this.middle = makeProbabilities(1 << (MOST_POSITION_BITS + 3));
    this.high = makeProbabilities(1 << 8);
  }

  decode(coder, position) {
    if (!coder.decodeBit(this.choice, 0)) return coder.decodeTree(this.low, 3, position * 8);
    if (!coder.decodeBit(this.choice, 1)) return 8 + coder.decodeTree(this.middle, 3, position * 8);
    return 16 + coder.decodeTree(this.high, 8);
  }
}

/** A decoder of the whole data. */
class Lzma {
  constructor(coder, { lc, lp, pb }, size) {
    this.coder = coder;
    this.lc = lc;
    this.lp = lp;
    this.pb = pb;
    this.out = new Uint8Array(size);
    this.at = 0;
    this.state = 0;
    this.distances = [0, 0, 0, 0];
    this.literals = makeProbabilities(0x300 << (lc + lp));
    this.isMatch = makeProbabilities(STATES << MOST_POSITION_BITS);
    this.isRepeat = [0, 1, 2, 3].map(() => makeProbabilities(STATES));
    this.isLong = makeProbabilities(STATES << MOST_POSITION_BITS);
    this.slots = Array.from({ length: LENGTH_STATES }, () => makeProbabilities(1 << SLOT_BITS));
    this.near = makeProbabilities(1 + FULL_DISTANCES - END_MODEL_SLOT);
    this.align = makeProbabilities(1 << ALIGN_BITS);
    this.lengths = new LengthDecoder();
    this.repeatLengths = new LengthDecoder();
  }

  decode() {
    const { coder, out } = this;
    while (this.at < out.length) {
      const position = this.at & ((1 << this.pb) - 1);
      const place = (this.state << MOST_POSITION_BITS) + position;
      if (!coder.decodeBit(this.isMatch, place)) {
        this.decodeLiteral();
        continue;
      }
      const length = coder.decodeBit(this.isRepeat[0], this.state)
        ? this.decodeRepeat(position, place)
        : this.decodeMatch(position);
      if (length === 0) break; // the end is marked
      this.copy(length);
    }
    return out.subarray(0, this.at);
  }

  /** Decode a byte, after a match with the help of the byte that would follow it. */
  decodeLiteral() {
    const { coder, out, at, lc, lp } = this;
    const before = at ? out[at - 1] : 0;
    const context = ((at & ((1 << lp) - 1)) << lc) + (before >> (8 - lc));
    const offset = 0x300 * context;
    let symbol = 1;
    if (this.state >= 7) {
      let match = this.readBack(this.distances[0]);
      while (symbol < 0x100) {
        const expected = (match >> 7) & 1;
        match <<= 1;
        const bit = coder.decodeBit(this.literals, offset + ((1 + expected) << 8) + symbol);
        symbol = (symbol << 1) | bit;
        if (bit !== expected) break;
      }
    }
    while (symbol < 0x100) {
      symbol = (symbol << 1) | coder.decodeBit(this.literals, offset + symbol);
    }
    out[this.at++] = symbol;
    this.state = this.state < 4 ? 0 : this.state - (this.state < 10 ? 3 : 6);
  }

  /** Decode a match at one of the last four distances; return its length. */
  decodeRepeat(position, place) {
    const { coder, distances, state } = this;
    let index = 0;
    if (!coder.decodeBit(this.isRepeat[1], state)) {
      if (!coder.decodeBit(this.isLong, place)) {
        this.state = state < 7 ? 9 : 11;
        return 1;
      }
    } else if (!coder.decodeBit(this.isRepeat[2], state)) {
      index = 1;
    } else {
      index = 2 + coder.decodeBit(this.isRepeat[3], state);
    }
    distances.unshift(...distances.splice(index, 1));
    this.state = state < 7 ? 8 : 11;
    return LEAST_MATCH + this.repeatLengths.decode(coder, position);
  }

  /** Decode a match at a new distance; return its length, 0 at the end. */
  decodeMatch(position) {
    const length = this.lengths.decode(this.coder, position);
    this.state = this.state < 7 ? 7 : 10;
    const distance = this.decodeDistance(length);
    if (distance === 0xffffffff) return 0;
    this.distances = [distance, ...this.distances.slice(0, 3)];
    return LEAST_MATCH + length;
  }

  decodeDistance(length) {
    const { coder } = this;
    const slot = coder.decodeTree(this.slots[Math.min(length, LENGTH_STATES - 1)], SLOT_BITS);
    if (slot < FIRST_MODEL_SLOT) return slot;
    const bits = (slot >> 1) - 1;
    const base = (2 | (slot & 1)) * 2 ** bits;
    if (slot < END_MODEL_SLOT) return base + coder.decodeReverse(this.near, bits, base - slot);
    const direct = coder.decodeDirect(bits - ALIGN_BITS) * 2 ** ALIGN_BITS;
    return base + direct + coder.decodeReverse(this.align, ALIGN_BITS);
  }

  /** Repeat bytes from the last distance. */
  copy(length) {
    const end = Math.min(this.at + length, this.out.length);
    while (this.at < end) {
      const byte = this.readBack(this.distances[0]);
      this.out[this.at++] = byte;
    }
  }

  readBack(distance) {
    if (distance >= this.at) throw makeCorruptError("the plan is damaged");
    return this.out[this.at - distance - 1];
  }
}

/** @param {number} count */
function makeProbabilities(count) {
  return new Uint16Array(count).fill(1 << (PROBABILITY_BITS - 1));
}
