/** Self-check: whether this browser computes as the machine did where the model was built. */

import { countValues, formatShape, toDoubles } from "./arrays.js";
import { makeJobError } from "./failures.js";
import { findBatchSize, makeInput, takeRow, WHOLE } from "./feeds.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 * @typedef {import("./golden_samples.js").GoldenSamples} GoldenSamples
 *
 * Result of the check: `error` is the largest relative RMS error of an output, `output` its name.
 * @typedef {{healthy: boolean, error: number, output: string, samples: number, detail: string}}
 *   Health
 */

/** Error of an output of another shape or with non-finite numbers; JSON has no infinity. */
const INCOMPARABLE = 1e9;

/**
 * Compare the outputs of the golden samples with those expected; the largest error counts.
 *
 * @param {import("./model_runs.js").Model} model
 * @param {GoldenSamples} golden
 * @param {number} limit largest relative error.
 * @returns {Promise<Health>}
 */
export async function checkHealth(model, golden, limit) {
  const samples = [...golden.inputs.values()][0].shape[0];
  const found = await runSamples(model, golden, samples);
  let worst = { error: -1, detail: "", output: "" };
  const compare = (name, /** @type {any[]} */ [error, detail]) => {
    if (error > worst.error) worst = { error, detail, output: name };
  };
  for (const [name, expected] of golden.outputs) {
    compare(name, compareValues(found.get(name), expected));
  }
  for (const [name, expected] of golden.picked) {
    compare(name, comparePicked(found.get(name), expected));
  }
  const healthy = worst.error <= limit;
  const told = `output ${worst.output} ${worst.detail}, the limit is ${limit}`;
  return {
    healthy,
    error: worst.error,
    output: worst.output,
    samples,
    detail: healthy ? "" : told,
  };
}

/** Compute the outputs of all samples, one after the other. */
async function runSamples(model, golden, samples) {
  const { inputs, feeding } = model.settings;
  const axes = new Map(
    inputs
      .filter(({ name }) => golden.inputs.has(name))
      .map(({ name }) => [name, golden.axes.get(name) ?? 0]),
  );
  const batch = findBatchSize(axes, inputs);
  const constants = new Map(feeding.constants.map(({ name, value }) => [name, value]));
  const states = model.makeStates();
  const rows = new Map();
  for (let sample = 0; sample < samples; sample++) {
    const feeds = new Map();
    for (const tensor of inputs) {
      const { name } = tensor;
      const stack = golden.inputs.get(name);
      if (stack) {
        const row = takeRow(stack, sample);
        feeds.set(name, makeInput(row, tensor, null, axes.get(name) ?? 0, batch));
        continue;
      }
      const given = golden.constants.get(name) ?? states.get(name) ?? constants.get(name);
      if (!given) throw makeJobError(`golden.json: the constant ${name} is missing`);
      feeds.set(name, makeInput(given, tensor, null, WHOLE, 1));
    }
    for (const [name, output] of await model.runFeeds(feeds)) {
      const row = output.shape[0] === batch ? takeRow(output, 0) : output;
      rows.set(name, [
        ...(rows.get(name) ?? []),
        { shape: row.shape, values: toDoubles(row).slice() },
      ]);
    }
  }
  return rows;
}

/** Return the error of an output, and how it differs. */
function compareValues(/** @type {any} */ rows, /** @type {NumberArray} */ expected) {
  const shape = expected.shape.slice(1);
  const count = countValues(shape);
  const differs = rows.find((row) => String(row.shape) !== String(shape));
  if (differs) {
    return [
      INCOMPARABLE,
      `has shape ${formatShape(differs.shape)} instead of ${formatShape(shape)}`,
    ];
  }
  const found = new Float64Array(rows.length * count);
  rows.forEach((row, place) => found.set(row.values, place * count));
  return computeError(found, toDoubles(expected));
}

/** Return the error of an output at evenly spaced positions, and how it differs. */
function comparePicked(/** @type {any} */ rows, /** @type {NumberArray} */ expected) {
  const count = countValues(expected.shape.slice(1));
  const found = new Float64Array(rows.length * count);
  for (const [place, { shape, values }] of rows.entries()) {
    if (values.length < count) return [INCOMPARABLE, `has shape ${formatShape(shape)}`];
    for (let k = 0; k < count; k++) {
      found[place * count + k] = values[Math.floor((k * values.length) / count)];
    }
  }
  return computeError(found, toDoubles(expected));
}

/** Return the relative RMS error of finite values; others must be the same. */
function computeError(found, expected) {
  const finite = [...expected.keys()].filter((place) => Number.isFinite(expected[place]));
  if (!finite.every((place) => Number.isFinite(found[place])))
    return [INCOMPARABLE, "is not finite"];
  if (!expected.every((value, place) => Number.isFinite(value) || Object.is(value, found[place]))) {
    return [INCOMPARABLE, "differs where the expected output is not finite"];
  }
  if (!finite.length) return [0, ""];
  const size = computeRms(finite.map((place) => expected[place]));
  const error = computeRms(finite.map((place) => found[place] - expected[place]));
  const relative = Math.min(size > 0 ? error / size : error, INCOMPARABLE);
  return [relative, `has a relative RMS error of ${relative.toPrecision(3)}`];
}

/** Compute the root mean square, also of numbers whose squares overflow. */
function computeRms(values) {
  const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  if (largest === 0 || !Number.isFinite(largest)) return largest;
  const sum = values.reduce((total, value) => total + (value / largest) ** 2, 0);
  return largest * Math.sqrt(sum / values.length);
}
