/** Inputs of a model from one sample: normalized, cast, and repeated to the model's batch. */

import { castArray, countValues, FLOATS, formatShape, moveAxis, toDoubles } from "./arrays.js";
import { makeJobError } from "./failures.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 * @typedef {import("./settings.js").Normalization} Normalization
 * @typedef {import("./settings.js").Tensor} Tensor
 */

/** Largest number of values of an input. */
const MOST_VALUES = 1 << 28;
/** Axis of an input without one for the samples: each sample is a whole input. */
export const WHOLE = -1;

/**
 * Return the batch size that the inputs demand, 1 if any size will do.
 *
 * @param {ReadonlyMap<string, number>} axes axis of the samples, by input that has one.
 * @param {readonly Tensor[]} inputs
 * @returns {number}
 */
export function findBatchSize(axes, inputs) {
  for (const { name, shape } of inputs) {
    const axis = axes.get(name);
    if (axis === undefined || axis >= shape.length) continue;
    if (axis === WHOLE) return 1;
    const size = shape[axis];
    if (typeof size === "number") return size;
  }
  return 1;
}

/**
 * Convert a row to the array of one input.
 *
 * @param {NumberArray} row one sample, without the axis of the samples.
 * @param {Tensor} tensor the input.
 * @param {Normalization|null} normalization
 * @param {number} axis axis of the samples; WHOLE to feed the row alone.
 * @param {number} batch how often the row is repeated.
 * @returns {NumberArray}
 */
export function makeInput(row, tensor, normalization, axis, batch) {
  const wanted = tensor.shape.filter((_, place) => place !== axis);
  if (axis >= Math.max(1, tensor.shape.length)) {
    throw makeJobError(`input ${tensor.name} has no axis ${axis}, which should be the sample axis`);
  }
  const isFloat = FLOATS.includes(tensor.dtype);
  const normalized = normalization && isFloat ? normalizeRow(row, normalization, tensor.name) : row;
  const cast = castArray(normalized, tensor.dtype, tensor.name);
  const { shape } = cast;
  const fits =
    shape.length === wanted.length &&
    wanted.every((side, place) => typeof side === "string" || side === shape[place]);
  if (!fits) {
    throw makeJobError(
      `input ${tensor.name} has shape ${formatShape(tensor.shape)}, the sample ` +
        `${formatShape(shape)}`,
    );
  }
  if (axis === WHOLE) return cast;
  const stacked = repeatRow(cast, batch);
  const moved = moveAxis(stacked.data, stacked.shape, 0, axis);
  return { ...moved, dtype: tensor.dtype };
}

/** Repeat a row along a new first axis. */
function repeatRow({ data, shape, dtype }, batch) {
  const stacked = { data, shape: [batch, ...shape], dtype };
  if (batch === 1) return stacked;
  if (data.length * batch > MOST_VALUES) {
    throw makeJobError(`a batch of ${batch} samples is too large`);
  }
  const repeated = new data.constructor(data.length * batch);
  for (let k = 0; k < batch; k++) repeated.set(data, k * data.length);
  return { ...stacked, data: repeated };
}

/**
 * Compute `(x * scale - mean) / std` over the last axis in float32, then channels first.
 *
 * @param {NumberArray} row
 * @param {Normalization} how
 * @param {string} name name of the input, for messages.
 * @returns {NumberArray}
 */
function normalizeRow(row, how, name) {
  const channels = row.shape.length ? row.shape[row.shape.length - 1] : 1;
  const scale = Math.fround(how.scale);
  const [mean, std] = [how.mean, how.std].map((values) => {
    if (values.length !== 1 && values.length !== channels) {
      throw makeJobError(
        `${name}: ${values.length} values of mean or std for ${channels} channels`,
      );
    }
    return Float32Array.from({ length: channels }, (_, k) => values[values.length > 1 ? k : 0]);
  });
  const convert = (value, channel) => {
    const scaled = Math.fround(Math.fround(value) * scale);
    return Math.fround(scaled - mean[channel]) / std[channel];
  };
  const data =
    row.dtype === "uint8"
      ? convertBytes(row.data, channels, convert)
      : Float32Array.from(toDoubles(row), (value, place) => convert(value, place % channels));
  if (!how.channelsFirst || row.shape.length !== 3) {
    return { data, shape: row.shape, dtype: "float32" };
  }
  return { ...moveAxis(data, row.shape, 2, 0), dtype: "float32" };
}

/** Convert bytes by a table of the values of each channel. */
function convertBytes(bytes, channels, convert) {
  const table = Float32Array.from({ length: 256 * channels }, (_, place) =>
    convert(Math.floor(place / channels), place % channels),
  );
  const data = new Float32Array(bytes.length);
  for (let place = 0, channel = 0; place < data.length; place++) {
    data[place] = table[bytes[place] * channels + channel];
    channel = channel + 1 === channels ? 0 : channel + 1;
  }
  return data;
}

/**
 * Return the part of an array that belongs to one sample.
 *
 * @param {NumberArray} array samples along the first axis.
 * @param {number} row number of the sample.
 * @returns {NumberArray}
 */
export function takeRow(array, row) {
  const shape = array.shape.slice(1);
  const count = countValues(shape);
  return { ...array, data: array.data.subarray(row * count, (row + 1) * count), shape };
}

/**
 * Return the part of each output that belongs to the first sample of a run.
 *
 * @param {import("./outputs/postprocess.js").Outputs} outputs
 * @param {number} batch number of samples in the run.
 * @returns {import("./outputs/postprocess.js").Outputs} without outputs that have no axis of the
 *   samples, unless there is a single sample.
 */
export function takeFirstRows(outputs, batch) {
  const rows = new Map();
  for (const [name, output] of outputs) {
    if (output.shape[0] === batch) rows.set(name, takeRow(output, 0));
    else if (batch === 1) rows.set(name, output);
  }
  return rows;
}
