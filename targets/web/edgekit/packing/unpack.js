/**
 * Expansion of a packed model to the exact bytes that it was packed from.
 *
 * A packed file is `MAGIC`, five sizes, and three parts: the compressed plan, the low bits of
 * numbers, and their entropy-coded high bits.
 */

import { EdgekitError } from "../failures.js";
import { inflate } from "./inflate.js";
import { decodeLzma } from "./lzma.js";
import { LowBits, makeWordReader } from "./packed_numbers.js";
import { COPY, FILL, FIRST_GROUP, MOST_WORD, PRODUCT, readPlan, SLICES } from "./packed_plan.js";
import { Decoder } from "./rans.js";
import { makeCorruptError, Varints } from "./varints.js";

/**
 * Called with how many tensors are done, and of how many; the work goes on when it has resolved.
 * @typedef {(done: number, total: number) => void|Promise<void>} Report
 */

const MAGIC = [..."ekp1"].map((letter) => letter.charCodeAt(0));
/** Compression methods of the plan. */
const STORED = 0;
const ZLIB = 1;
const LZMA = 2;
/** A packed file may expand to MOST_EXPANSION times its size plus MOST_SMALL_BYTES. */
const MOST_EXPANSION = 256;
const MOST_SMALL_BYTES = 64 << 20;
const MOST_PLAN_EXCESS = 1 << 20;
const LEAST_SCALE = 2 ** -126;

/**
 * Expand a packed model, and check that it is the right one.
 *
 * @param {Uint8Array} data the packed file.
 * @param {{digest: string, bytes?: number}} file SHA-256 digest of the model, and its size if it
 *   is known.
 * @param {Report} [report]
 * @returns {Promise<Uint8Array>}
 */
export async function expandModel(data, file, report) {
  const result = await unpack(data, file.bytes, report);
  await checkDigest(result, file.digest);
  return result;
}

/**
 * Check that bytes have a SHA-256 digest.
 *
 * @param {Uint8Array} data
 * @param {string} digest in hexadecimal digits.
 */
export async function checkDigest(data, digest) {
  if (!globalThis.crypto?.subtle) {
    throw new EdgekitError(
      "corrupt",
      "the browser cannot check the model",
      "open the page by https, or on this device by localhost",
    );
  }
  const found = new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {any} */ (data)));
  if ([...found].map((byte) => byte.toString(16).padStart(2, "0")).join("") !== digest) {
    throw new EdgekitError("corrupt", "the model is damaged: its digest is wrong", "load it again");
  }
}

/**
 * Return whether a file is packed.
 *
 * @param {Uint8Array} data
 * @returns {boolean}
 */
export function isPacked(data) {
  return MAGIC.every((byte, place) => data[place] === byte);
}

/**
 * Restore a packed file. Only the digest of the result tells whether it is the right one.
 *
 * @param {Uint8Array} data
 * @param {number} [size] bytes of the file it was packed from, if they are known.
 * @param {Report} [report]
 * @returns {Promise<Uint8Array>}
 */
export async function unpack(data, size, report) {
  if (!isPacked(data)) throw makeCorruptError("the file header is missing");
  const most = Math.min(size ?? Infinity, MOST_EXPANSION * data.length + MOST_SMALL_BYTES);
  const head = new Varints(data, MAGIC.length);
  const [method, planSize, packedSize, lowSize, lanes] = head.readSeveral(5);
  if (planSize > most + MOST_PLAN_EXCESS)
    throw makeCorruptError("the plan is larger than the file");
  const plan = readPlan(await decompressPlan(method, head.take(packedSize), planSize));
  if (plan.size > most || plan.size !== (size ?? plan.size)) {
    throw makeCorruptError(`it expands to ${plan.size} bytes, not ${size ?? most}`);
  }
  const low = new LowBits(head.take(lowSize));
  const builder = new FileBuilder(plan, low, new Decoder(data.subarray(head.at), lanes));
  return builder.build(report);
}

/** Decompress the plan to `size` bytes. */
async function decompressPlan(method, packed, size) {
  const methods = {
    [STORED]: () => packed,
    [ZLIB]: () => inflate(packed, size),
    [LZMA]: () => decodeLzma(packed, size),
  };
  if (!Object.hasOwn(methods, method)) throw makeCorruptError(`unknown method ${method}`);
  const plan = await methods[method]();
  if (plan.length !== size) throw makeCorruptError("the plan has a wrong size");
  return plan;
}

/** A builder of the file from its frame and its tensors. */
class FileBuilder {
  constructor(plan, low, decoder) {
    this.plan = plan;
    this.low = low;
    this.decoder = decoder;
    this.out = new Uint8Array(plan.size);
    this.view = new DataView(this.out.buffer);
    this.starts = this.layFrame();
  }

  /** Fill all gaps and return the complete file. */
  async build(report) {
    const { groups, gaps } = this.plan;
    let done = 0;
    for (let number = 0; number < groups.length; number++) {
      const nextSymbol = this.decoder.begin(groups[number].counts);
      for (let index = 0; index < gaps.length; index++) {
        if (!this.fillNumbers(index, number, groups[number], nextSymbol)) continue;
        done += 1;
        if (report) await report(Math.min(done, gaps.length), gaps.length);
      }
    }
    gaps.forEach((gap, index) => {
      if ([PRODUCT, FILL, COPY].includes(gap.filling)) this.fillDerived(index, gap);
    });
    if (!this.low.isAtEnd() || !this.decoder.isAtEnd())
      throw makeCorruptError("it has trailing bytes");
    return this.out;
  }

  /** Copy the frame into the file; return the offset of each gap. */
  layFrame() {
    let [at, place] = [0, 0];
    const starts = this.plan.gaps.map((gap) => {
      this.out.set(this.plan.frame.subarray(at, at + gap.before), place);
      at += gap.before;
      const start = place + gap.before;
      place = start + gap.size;
      return start;
    });
    this.out.set(this.plan.frame.subarray(at), place);
    return starts;
  }

  /** Fill the part of a gap that holds numbers of a group; return whether there is one. */
  fillNumbers(index, number, group, nextSymbol) {
    const gap = this.plan.gaps[index];
    const bytes = Math.max(1, group.width / 8);
    if (gap.filling === FIRST_GROUP + number) {
      const center = group.centered ? gap.arguments[0] : 0;
      const next = makeWordReader(group, this.low, nextSymbol, center);
      this.writeWords(this.starts[index], this.countWords(index, bytes), group, next);
      return true;
    }
    const mine = gap.filling === SLICES && gap.arguments.slice(2).includes(number);
    if (mine) this.fillSlices(index, number, group, nextSymbol);
    return mine;
  }

  /** Fill the slices of a tensor, cut along an axis, that one group fills. */
  fillSlices(index, number, group, nextSymbol) {
    const gap = this.plan.gaps[index];
    const [slices, inner, ...owners] = gap.arguments;
    const bytes = group.width / 8;
    const words = this.countWords(index, Math.max(1, bytes));
    const row = slices * inner;
    if (group.width === 4 || group.centered || !(row > 0 && row <= gap.size) || words % row) {
      throw makeCorruptError("a tensor cannot be split into slices");
    }
    const next = makeWordReader(group, this.low, nextSymbol, 0);
    for (let outer = 0; outer < words / row; outer++) {
      for (let slice = 0; slice < slices; slice++) {
        if (owners[slice] !== number) continue;
        const start = this.starts[index] + bytes * (outer * row + slice * inner);
        this.writeWords(start, inner, group, next);
      }
    }
  }

  /** Return the number of words of a gap. */
  countWords(index, bytes) {
    const { size } = this.plan.gaps[index];
    if (size % bytes) throw makeCorruptError("the size of a tensor is not a whole number of words");
    return size / bytes;
  }

  /** Write little-endian words; 4-bit words in pairs. */
  writeWords(start, count, { width }, next) {
    const { out, view } = this;
    if (width === 4) {
      for (let k = start; k < start + count; k++) out[k] = next() | (next() << 4);
    } else if (width === 8) {
      for (let k = start; k < start + count; k++) out[k] = next();
    } else if (width === 16) {
      for (let k = 0; k < count; k++) view.setUint16(start + 2 * k, next(), true);
    } else {
      for (let k = 0; k < count; k++) view.setUint32(start + 4 * k, next(), true);
    }
  }

  /** Fill a gap that repeats one word, copies another gap, or is the product of two. */
  fillDerived(index, gap) {
    const start = this.starts[index];
    if (gap.filling === FILL) {
      const word = gap.arguments;
      if (!word.length || word.length > MOST_WORD || gap.size % word.length) {
        throw makeCorruptError("the size of a tensor is not a whole number of words");
      }
      for (let k = 0; k < gap.size; k++) this.out[start + k] = word[k % word.length];
      return;
    }
    if (!gap.arguments.every((back) => back > 0 && back <= index)) {
      throw makeCorruptError("a tensor refers to a later one");
    }
    const sources = gap.arguments.map((back) => index - back);
    if (gap.filling === PRODUCT) {
      this.multiplyScales(index, sources);
      return;
    }
    const from = this.starts[sources[0]];
    if (this.plan.gaps[sources[0]].size !== gap.size) {
      throw makeCorruptError("a copy has a wrong size");
    }
    this.out.copyWithin(start, from, from + gap.size);
  }

  /** Compute the scales of a bias: weight scales times input scale, or the least normal number. */
  multiplyScales(index, sources) {
    const counts = sources.map((source) => this.countWords(source, 4));
    const count = this.countWords(index, 4);
    const fits = count === Math.max(...counts) && counts.every((n) => n === 1 || n === count);
    if (!fits) throw makeCorruptError("a matrix product has a wrong size");
    for (let k = 0; k < count; k++) {
      const [left, right] = sources.map((source, side) =>
        this.view.getFloat32(this.starts[source] + (counts[side] > 1 ? 4 * k : 0), true),
      );
      const scale = Math.max(Math.fround(left * right), LEAST_SCALE);
      this.view.setFloat32(this.starts[index] + 4 * k, scale, true);
    }
  }
}
