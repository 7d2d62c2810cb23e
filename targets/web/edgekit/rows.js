/** Rows of numbers as inputs of a model. */

import { castArray, countValues, formatShape } from "./arrays.js";
import { makeSampleError } from "./failures.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 * @typedef {import("./settings.js").ModelSettings} ModelSettings
 */

const MOST_VALUES = 1 << 24;

/**
 * Convert a row to the inputs: numbers by the name of the field, or lists by that of the input.
 *
 * @param {unknown} row
 * @param {ModelSettings} settings
 * @returns {Map<string, NumberArray>}
 */
export function readRow(row, settings) {
  if (typeof row !== "object" || row === null || Array.isArray(row)) {
    throw makeSampleError("this is not a row of values", 'write it as JSON: {"name": 1.5}');
  }
  const { inputs, feeding, fields } = settings;
  const others = new Set([...feeding.constants, ...feeding.states].map(({ name }) => name));
  const named = new Map(fields.map((each) => [each.input, each.fields]));
  const rows = new Map();
  for (const tensor of inputs) {
    if (others.has(tensor.name)) continue;
    const names = named.get(tensor.name);
    const values = names ? names.map((name) => readField(row, name)) : readField(row, tensor.name);
    const axis = feeding.axes?.get(tensor.name) ?? 0;
    rows.set(tensor.name, makeRow(values, tensor, axis));
  }
  return rows;
}

/** Return the value of a field. */
function readField(row, name) {
  if (!Object.hasOwn(row, name)) throw makeSampleError(`the value of "${name}" is missing`);
  return row[name];
}

/** Return values as the row of an input, in the shape that the input has. */
function makeRow(values, tensor, axis) {
  const shape = [];
  for (let level = values; Array.isArray(level); [level] = level) shape.push(level.length);
  const flat = [values].flat(Infinity);
  if (flat.length > MOST_VALUES || flat.length !== countValues(shape)) {
    throw makeSampleError(`the values of ${tensor.name} are not a list of numbers`);
  }
  for (const value of flat) {
    const isNumber =
      typeof value === "number" ? Number.isFinite(value) : typeof value === "boolean";
    if (!isNumber) throw makeSampleError(`${JSON.stringify(value)?.slice(0, 40)} is not a number`);
  }
  const wanted = tensor.shape.filter((_, place) => place !== axis);
  const isFixed = wanted.every((side) => typeof side === "number");
  const sides = isFixed && countValues(wanted) === flat.length ? wanted : shape;
  const array = { data: Float64Array.from(flat, Number), shape: [...sides], dtype: "float64" };
  try {
    return castArray(array, tensor.dtype, tensor.name);
  } catch (error) {
    throw makeSampleError(
      `the values of ${tensor.name} ${formatShape(sides)} are not of type ${tensor.dtype}`,
    );
  }
}
