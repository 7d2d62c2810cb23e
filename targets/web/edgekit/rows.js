/** Rows of numbers as inputs of a model. */

import { castArray, countValues, formatShape, toDoubles } from "./arrays.js";
import { EdgekitError, makeSampleError } from "./failures.js";
import { getSampleAxis, listSampleInputs } from "./sample_inputs.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 * @typedef {import("./settings.js").ModelSettings} ModelSettings
 */

const MOST_VALUES = 1 << 24;
const MOST_CHARACTERS = 16 << 20;
const MOST_DIGITS = 40;
const SHOWN_FIELDS = 12;
/** A number as people write it; `Number` would take an empty text, or 0x10. */
const NUMBER = /^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$/;

/**
 * Parse a row.
 *
 * @param {string} text
 * @returns {unknown}
 */
export function parseRow(text) {
  if (text.length > MOST_CHARACTERS) throw makeSampleError("the row is too long");
  try {
    const row = JSON.parse(text);
    return typeof row === "number" ? [row] : row;
  } catch (error) {
    throw makeSampleError("this is not a row of values", 'write it as JSON: {"name": 1.5}');
  }
}

/**
 * Convert a row to the inputs.
 *
 * @param {unknown} row numbers by field, numbers in the order of the fields, or lists of numbers by
 *   input.
 * @param {ModelSettings} settings
 * @returns {Map<string, NumberArray>}
 */
export function readRow(row, settings) {
  if (typeof row !== "object" || row === null) {
    throw makeSampleError("this is not a row of values", 'write it as JSON: {"name": 1.5}');
  }
  const inputs = listSampleInputs(settings);
  if (Array.isArray(row)) return readList(row, inputs, settings);
  const names = Object.keys(row);
  const isByInput =
    names.length === inputs.length && inputs.every(({ name }) => names.includes(name));
  if (isByInput) {
    return new Map(
      inputs.map((input) => [input.name, readValues(row[input.name], input, settings)]),
    );
  }
  return readFields(row, inputs, settings);
}

/** Read numbers in the order of the fields, or the values of the only input. */
function readList(row, inputs, settings) {
  const fields = settings.fields.flatMap((each) => each.fields);
  if (settings.fields.length > 1) {
    if (row.length !== fields.length) throw makeCountError(row.length, fields.length);
    return readFields(
      Object.fromEntries(fields.map((name, k) => [name, row[k]])),
      inputs,
      settings,
    );
  }
  if (inputs.length !== 1) {
    throw makeSampleError(`the model has ${inputs.length} inputs, and the row is one`);
  }
  return new Map([[inputs[0].name, readValues(row, inputs[0], settings)]]);
}

/** Read a row of fields. */
function readFields(row, inputs, settings) {
  const { fields } = settings;
  const names = fields.length
    ? fields.flatMap((each) => each.fields)
    : inputs.map(({ name }) => name);
  const unknown = Object.keys(row).find((name) => !names.includes(name));
  const missing = names.find((name) => !Object.hasOwn(row, name));
  if (unknown !== undefined || missing !== undefined || !fields.length) {
    const told =
      unknown !== undefined ? `there is no "${unknown.slice(0, 60)}"` : `"${missing}" is missing`;
    const more = names.length > SHOWN_FIELDS ? ", ..." : "";
    throw makeSampleError(
      `the row: ${told}`,
      `it has ${names.slice(0, SHOWN_FIELDS).join(", ")}${more}`,
    );
  }
  return new Map(
    fields.map((each) => {
      const input = inputs.find(({ name }) => name === each.input);
      const values = each.fields.map((name) => readNumber(row[name], name));
      return [each.input, makeRow(values, [values.length], input, settings)];
    }),
  );
}

/** Return a number, which may be written as text; true and false are none. */
function readNumber(value, name) {
  if (typeof value === "boolean") {
    throw makeSampleError(
      `${name} is ${value}, not a number`,
      "give the number that the model was trained with, such as 1 or 0",
    );
  }
  const isText = typeof value === "string" && value.length <= MOST_DIGITS && NUMBER.test(value);
  const number = isText || typeof value === "number" ? Number(value) : NaN;
  if (Number.isFinite(number)) return number;
  const told = value === null || value === "" ? "is empty" : "is not a number";
  throw makeSampleError(`${name} ${told}`, "give a number");
}

/** Read numbers, lists of numbers and so on. */
function readValues(values, input, settings) {
  const shape = [];
  for (let level = values; Array.isArray(level); [level] = level) shape.push(level.length);
  const flat = [values].flat(Infinity);
  if (!flat.length || flat.length > MOST_VALUES || !hasShape(values, shape)) {
    throw makeSampleError(`${input.name}: not an array of numbers`);
  }
  const numbers = flat.map((value) => {
    if (typeof value === "string") throw makeSampleError(`${input.name}: not an array of numbers`);
    if (typeof value === "boolean" && input.dtype === "bool") return Number(value);
    return readNumber(value, input.name);
  });
  return makeRow(numbers, shape, input, settings);
}

/** Return whether nested lists have the same length at each level. */
function hasShape(/** @type {any} */ values, /** @type {number[]} */ [side, ...rest]) {
  if (side === undefined) return !Array.isArray(values);
  return (
    values.length === side &&
    values.every((each) => Array.isArray(each) === rest.length > 0 && hasShape(each, rest))
  );
}

/** Return numbers in the type of an input, and in the shape of its row if that is fixed. */
function makeRow(numbers, given, input, settings) {
  const axis = getSampleAxis(input, settings);
  const sizes = input.shape.filter((_, place) => place !== axis);
  let shape = given;
  if (given.length === 1 && sizes.every((side) => typeof side === "number")) {
    if (countValues(sizes) !== numbers.length)
      throw makeCountError(numbers.length, countValues(sizes));
    shape = sizes;
  } else if (axis >= 0 && given.length === input.shape.length && given[axis] === 1) {
    shape = given.filter((_, place) => place !== axis);
  }
  const array = { data: Float64Array.from(numbers), shape, dtype: "float64" };
  let cast = null;
  try {
    cast = castArray(array, input.dtype, input.name);
  } catch (error) {
    if (!(error instanceof EdgekitError)) throw error;
  }
  if (cast && toDoubles(cast).every(Number.isFinite)) return cast;
  throw makeSampleError(
    `${input.name}: ${formatShape(shape)} has values that are not of ${input.dtype}`,
  );
}

function makeCountError(found, wanted) {
  return makeSampleError(`the row has ${found} numbers, but the model takes ${wanted}`);
}
