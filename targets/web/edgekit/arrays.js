/** Arrays of numbers with a shape and a type, in C order, as onnxruntime-web takes them. */

import { makeJobError } from "./failures.js";
import { decodeHalf, encodeHalf } from "./half.js";

/**
 * @typedef {Float32Array|Float64Array|Uint8Array|Int8Array|Uint16Array|Int16Array|Uint32Array|
 *   Int32Array|BigInt64Array|BigUint64Array} Numbers
 * @typedef {{data: Numbers, shape: number[], dtype: string}} NumberArray
 */

/** Type of the memory of each type of numbers; float16 is kept as its bits. */
const STORAGE = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  uint8: Uint8Array,
  int8: Int8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

/** Types of floats. */
export const FLOATS = ["float16", "float32", "float64"];

/**
 * Return whether numbers of a type can be held.
 *
 * @param {unknown} dtype
 * @returns {boolean}
 */
export function isKnownType(dtype) {
  return typeof dtype === "string" && Object.hasOwn(STORAGE, dtype);
}

/**
 * Return the number of values of a shape.
 *
 * @param {readonly number[]} shape
 * @returns {number}
 */
export function countValues(shape) {
  return shape.reduce((total, side) => total * side, 1);
}

/**
 * Make an array of zeros.
 *
 * @param {string} dtype
 * @param {readonly number[]} shape
 * @returns {NumberArray}
 */
export function makeZeros(dtype, shape) {
  return { data: new STORAGE[dtype](countValues(shape)), shape: [...shape], dtype };
}

/**
 * Make an array of bytes in little-endian order.
 *
 * @param {string} dtype
 * @param {readonly number[]} shape
 * @param {Uint8Array} bytes
 * @returns {NumberArray}
 */
export function readBytes(dtype, shape, bytes) {
  const Storage = STORAGE[dtype];
  const wanted = countValues(shape) * Storage.BYTES_PER_ELEMENT;
  if (bytes.length !== wanted) {
    throw makeJobError(`an array of ${formatShape(shape)} ${dtype} has ${bytes.length} bytes`);
  }
  return { data: new Storage(bytes.slice().buffer), shape: [...shape], dtype };
}

/**
 * Convert the values of an array to float64.
 *
 * @param {NumberArray} array
 * @returns {Float64Array}
 */
export function toDoubles(array) {
  const { data, dtype } = array;
  if (data instanceof Float64Array) return data;
  if (dtype === "float16" && data instanceof Uint16Array)
    return Float64Array.from(data, decodeHalf);
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    return Float64Array.from(/** @type {any} */ (data), Number);
  }
  return Float64Array.from(/** @type {ArrayLike<number>} */ (data));
}

/**
 * Convert an array to another type; floats may be rounded, nothing else may change.
 *
 * @param {NumberArray} array
 * @param {string} dtype
 * @param {string} name name of the input, for the message.
 * @returns {NumberArray}
 */
export function castArray(array, dtype, name) {
  if (array.dtype === dtype) return array;
  const values = toDoubles(array);
  const cast = { ...array, data: storeDoubles(values, dtype), dtype };
  if (!(FLOATS.includes(array.dtype) && FLOATS.includes(dtype))) {
    const back = toDoubles(cast);
    for (let i = 0; i < values.length; i++) {
      if (back[i] !== values[i]) {
        throw makeJobError(
          `input ${name} has type ${dtype}; converting the data from ${array.dtype} changes values`,
        );
      }
    }
  }
  return cast;
}

/**
 * Store values as numbers of a type, rounded to floats and cut to integers.
 *
 * @param {ArrayLike<number>} values
 * @param {string} dtype
 * @returns {Numbers}
 */
export function storeDoubles(values, dtype) {
  if (dtype === "float16") return Uint16Array.from(values, encodeHalf);
  if (dtype === "bool") return Uint8Array.from(values, (value) => (value ? 1 : 0));
  if (dtype === "int64" || dtype === "uint64") {
    const toInteger = (value) => BigInt(Number.isFinite(value) ? Math.trunc(value) : 0);
    const data = new STORAGE[dtype](values.length);
    for (let i = 0; i < values.length; i++) data[i] = toInteger(values[i]);
    return data;
  }
  return STORAGE[dtype].from(values);
}

/**
 * Move an axis of an array; the others keep their order.
 *
 * @template {Numbers} T
 * @param {T} data
 * @param {readonly number[]} shape
 * @param {number} from
 * @param {number} to
 * @returns {{data: T, shape: number[]}}
 */
export function moveAxis(data, shape, from, to) {
  const order = shape.map((_, axis) => axis).filter((axis) => axis !== from);
  order.splice(to, 0, from);
  const moved = order.map((axis) => shape[axis]);
  if (order.every((axis, place) => axis === place)) return { data, shape: moved };
  const strides = shape.map((_, axis) => countValues(shape.slice(axis + 1)));
  const steps = order.map((axis) => strides[axis]);
  const result = /** @type {T} */ (new /** @type {any} */ (data.constructor)(data.length));
  const index = new Array(moved.length).fill(0);
  let source = 0;
  for (let place = 0; place < result.length; place++) {
    result[place] = data[source];
    for (let axis = moved.length - 1; axis >= 0; axis--) {
      index[axis] += 1;
      source += steps[axis];
      if (index[axis] < moved[axis]) break;
      source -= steps[axis] * moved[axis];
      index[axis] = 0;
    }
  }
  return { data: result, shape: moved };
}

/**
 * Format a shape for a message.
 *
 * @param {readonly unknown[]} shape
 * @returns {string}
 */
export function formatShape(shape) {
  return `[${shape.map((side) => (side === null ? "None" : String(side))).join(", ")}]`;
}
