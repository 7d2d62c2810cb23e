/** Golden samples: a few inputs with the outputs that every device must reproduce. */

import { makeJobError } from "./failures.js";
import { integer, makeFieldError, optional, parseText, record, table } from "./settings_fields.js";
import { readStoredArray } from "./stored_arrays.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 *
 * @typedef {object} GoldenSamples
 * @property {Map<string, NumberArray>} inputs samples of each input, their axis first.
 * @property {Map<string, number>} axes axis of the samples in an input, where it is not the first.
 * @property {Map<string, NumberArray>} constants values of inputs that are the same in every run.
 * @property {Map<string, NumberArray>} outputs complete outputs.
 * @property {Map<string, NumberArray>} picked outputs at evenly spaced positions.
 */

const MOST_TENSORS = 1000;
const ARRAYS = table(readStoredArray, MOST_TENSORS);
const GOLDEN = record({
  inputs: [ARRAYS],
  axes: [optional(table(integer(-1, 64), MOST_TENSORS)), null],
  constants: [optional(ARRAYS), null],
  outputs: [optional(ARRAYS), null],
  picked: [optional(ARRAYS), null],
});

/**
 * Read golden samples.
 *
 * @param {unknown} given the values of golden.json, or its text.
 * @param {import("./settings.js").ModelSettings} settings
 * @returns {GoldenSamples}
 */
export function readGoldenSamples(given, settings) {
  const golden = GOLDEN(parseText(given, "golden.json"), "golden.json");
  for (const name of ["axes", "constants", "outputs", "picked"]) golden[name] ??= new Map();
  const expected = new Map([...golden.outputs, ...golden.picked]);
  const arrays = [...golden.inputs.values(), ...expected.values()];
  if (
    !golden.inputs.size ||
    !expected.size ||
    arrays.some((each) => !each.data.length || !each.shape.length)
  ) {
    throw makeFieldError("golden.json", "has no samples");
  }
  const counts = new Set(arrays.map((each) => each.shape[0]));
  if (counts.size > 1)
    throw makeFieldError("golden.json", "its arrays have different numbers of samples");
  checkNames(golden, expected, settings);
  return golden;
}

/**
 * Add the constants that the settings name but do not hold.
 *
 * @param {import("./settings.js").ModelSettings} settings
 * @param {GoldenSamples} golden
 */
export function addConstants({ feeding }, golden) {
  for (const constant of feeding.constants)
    constant.value ??= golden.constants.get(constant.name) ?? null;
}

function checkNames(golden, expected, { inputs, outputs, feeding }) {
  const others = [...feeding.constants, ...feeding.states].map(({ name }) => name);
  const given = new Set([...golden.inputs.keys(), ...golden.constants.keys(), ...others]);
  const inputNames = inputs.map(({ name }) => name);
  const outputNames = outputs.map(({ name }) => name);
  const wrong = [
    ...inputNames.filter((name) => !given.has(name)),
    ...[...given].filter((name) => !inputNames.includes(name)),
    ...[...expected.keys()].filter((name) => !outputNames.includes(name)),
  ];
  if (wrong.length) {
    throw makeJobError(
      `golden.json: these golden samples belong to another model: ${wrong.join(", ")}`,
      "package the app again",
    );
  }
}
