/** The plan of a packed file: its frame, and how to fill each gap in it with a tensor. */

import { countSymbols } from "./packed_numbers.js";
import { computeFrequencies } from "./rans.js";
import { makeCorruptError, Varints } from "./varints.js";

/** Kinds of gap contents; from FIRST_GROUP on, numbers of a group. */
export const PRODUCT = 0;
export const FILL = 1;
export const COPY = 2;
export const SLICES = 3;
export const FIRST_GROUP = 4;

const MOST_GROUPS = 1 << 16;
const MOST_GAPS = 1 << 18;
const MOST_NUMBERS = 1 << 22;
export const MOST_WORD = 1 << 12;

/**
 * @typedef {import("./packed_numbers.js").Group} Group
 *
 * A tensor of `size` bytes that comes after `before` bytes of the frame.
 * @typedef {{before: number, size: number, filling: number, arguments: number[]}} Gap
 * @typedef {{size: number, frame: Uint8Array, groups: Group[], gaps: Gap[]}} Plan
 */

/**
 * Read a plan.
 *
 * @param {Uint8Array} data
 * @returns {Plan}
 */
export function readPlan(data) {
  const numbers = new Varints(data, 0, MOST_NUMBERS);
  const [size, frameSize, groupCount, gapCount] = Array.from({ length: 4 }, () => numbers.next());
  if (groupCount > MOST_GROUPS || gapCount > MOST_GAPS) {
    throw makeCorruptError("the plan has too many groups or tensors");
  }
  const groups = Array.from({ length: groupCount }, () => readGroup(numbers));
  const [befores, sizes, fillings] = Array.from({ length: 3 }, () => numbers.readSeveral(gapCount));
  const gaps = befores.map((before, k) => ({
    before,
    size: sizes[k],
    filling: fillings[k],
    arguments: readArguments(numbers, fillings[k], groups),
  }));
  const frame = numbers.take(frameSize);
  if (numbers.at !== data.length) throw makeCorruptError("the plan has trailing bytes");
  const add = (total, value) => total + value;
  if (befores.reduce(add, 0) > frameSize || sizes.reduce(add, frameSize) !== size) {
    throw makeCorruptError("the sizes of the parts are inconsistent");
  }
  return { size, frame, groups, gaps };
}

/** Read a group. */
function readGroup(numbers) {
  const [form, shift, steps, symbols] = Array.from({ length: 4 }, () => numbers.next());
  const keptBits = form % 8;
  const rest = Math.floor(form / 8) % 16;
  const width = 4 << (rest & 3);
  if (![1, 2, 4, 8].includes(steps) || shift >= width) {
    throw makeCorruptError("a group is out of range");
  }
  const counts = computeFrequencies(numbers.readSeveral(symbols), steps);
  if (symbols > countSymbols(width, keptBits))
    throw makeCorruptError("a group has too many symbols");
  return {
    width,
    rotated: Boolean(rest & 4),
    shift,
    centered: Boolean(rest & 8),
    keptBits,
    counts,
  };
}

/** Read what the contents of a gap need. */
function readArguments(numbers, filling, groups) {
  if (filling === PRODUCT) return [numbers.next(), numbers.next()];
  if (filling === COPY) return [numbers.next()];
  if (filling === FILL) return [...numbers.take(Math.min(numbers.next(), MOST_WORD + 1))];
  if (filling === SLICES) {
    const [slices, inner] = [numbers.next(), numbers.next()];
    return [slices, inner, ...numbers.readSeveral(slices)];
  }
  const group = groups[filling - FIRST_GROUP];
  if (!group) throw makeCorruptError("a tensor refers to an unknown group");
  return group.centered ? [numbers.nextSigned()] : [];
}
