/** Samples of any kind as rows of the model's inputs. */

import { convertWave, fitWave, listWindows } from "./audio/audio.js";
import { decodeImage } from "./images/decode_image.js";
import { makeJobError, makeSampleError } from "./failures.js";
import { WHOLE } from "./feeds.js";
import { preparePixels } from "./images/images.js";
import { parseRow, readRow } from "./rows.js";
import { getInputKind, getSampleAxis, listSampleInputs } from "./sample_inputs.js";
import { convertText } from "./texts/texts.js";
import { readWav } from "./audio/wav.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 * @typedef {import("./settings.js").ModelSettings} ModelSettings
 *
 * A sample as rows of the model's inputs.
 * @typedef {object} PreparedSample
 * @property {Map<string, NumberArray>[]} runs rows by input, for each step of a stream.
 * @property {import("./images/images.js").Pixels} [pixels] the image, if the sample is one.
 * @property {number} [seconds] duration of what the rows cover, if the sample is a sound: also of zeros
 *   behind it.
 * @property {number} [tokens] number of tokens, if the sample is a text.
 */

/**
 * Convert a sample to rows of the model's inputs.
 *
 * @param {any} sample an image (`ImageData` or a file), a sound (`{wave, rate}` or a `.wav` file),
 *   a text, or a row; files are a `Blob`, an `ArrayBuffer` or bytes.
 * @param {ModelSettings} settings
 * @param {import("./texts/tokenizer.js").Tokenizer|null} [tokenizer] that of a model of texts.
 * @returns {Promise<PreparedSample>}
 */
export async function prepareSample(sample, settings, tokenizer = null) {
  const kind = getInputKind(settings);
  if (kind === "image") return prepareImage(sample, settings);
  if (kind === "audio") return prepareSound(await readSound(sample, settings), settings);
  if (kind === "text") return prepareText(sample, settings, tokenizer);
  const row = isFile(sample) ? new TextDecoder().decode(await readBytes(sample)) : sample;
  return { runs: [readRow(typeof row === "string" ? parseRow(row) : row, settings)] };
}

/** Return the only input, which takes images or sounds. */
function getOnlyInput(settings) {
  const inputs = listSampleInputs(settings);
  if (inputs.length === 1) return inputs[0];
  throw makeSampleError(`the model has ${inputs.length} inputs, and the sample is one`);
}

/** @returns {Promise<PreparedSample>} */
async function prepareImage(sample, settings) {
  const image = isFile(sample)
    ? await decodeImage(new Blob([/** @type {any} */ (sample)]))
    : sample;
  const pixels = preparePixels(image, settings.images);
  const input = getOnlyInput(settings);
  const isWhole = input.shape[0] === 1 && getSampleAxis(input, settings) === WHOLE;
  const shape = isWhole ? [1, ...pixels.shape] : pixels.shape;
  const row = { data: pixels.data, shape, dtype: "uint8" };
  return { runs: [new Map([[input.name, row]])], pixels };
}

/**
 * Return the values of a sound, at the sampling rate of the model.
 *
 * @param {any} sample `{wave, rate}`, or a `.wav` file.
 * @param {ModelSettings} settings
 * @returns {Promise<Float32Array>}
 */
export async function readSound(sample, { audio }) {
  if (!audio) throw makeSampleError("this model does not take sounds");
  const { wave, rate } = isFile(sample) ? readWav(await readBytes(sample)) : (sample ?? {});
  if (!(wave instanceof Float32Array)) throw makeSampleError("this is not a sound");
  if (rate !== audio.rate) {
    throw makeSampleError(
      `the sound has ${rate} values per second, but the model takes ${audio.rate}`,
      `record it at ${audio.rate} Hz`,
    );
  }
  if (!wave.every(Number.isFinite)) {
    throw makeSampleError("the sound has values that are no numbers");
  }
  return wave;
}

/** Convert a whole sound. @returns {PreparedSample} */
function prepareSound(wave, settings) {
  const { audio } = settings;
  if (!wave.length) throw makeSampleError("the sound is empty");
  if (audio.step) {
    if (wave.length < audio.step) {
      throw makeSampleError("the sound is too short", "record a longer one");
    }
    const windows = listWindows(wave, audio.samples ?? audio.step, audio.step);
    return { ...prepareWindows(windows, settings), seconds: wave.length / audio.rate };
  }
  const length = audio.samples ?? wave.length;
  return { ...prepareWindows([fitWave(wave, length)], settings), seconds: length / audio.rate };
}

/**
 * Convert the values of each step of a sound to rows.
 *
 * @param {readonly Float32Array[]} windows
 * @param {ModelSettings} settings
 * @returns {PreparedSample}
 */
export function prepareWindows(windows, settings) {
  const input = getOnlyInput(settings);
  const axis = getSampleAxis(input, settings);
  const sizes = input.shape.filter((_, place) => place !== axis);
  const audio = /** @type {import("./settings.js").AudioSettings} */ (settings.audio);
  return { runs: windows.map((wave) => new Map([[input.name, convertWave(wave, audio, sizes)]])) };
}

/** @returns {Promise<PreparedSample>} */
async function prepareText(sample, { text: how }, tokenizer) {
  if (!tokenizer) throw makeJobError("the model takes texts, and there is no tokenizer.json");
  const text = isFile(sample) ? new TextDecoder().decode(await readBytes(sample)) : sample;
  const { rows, count } = convertText(text, how, tokenizer);
  return { runs: [rows], tokens: count };
}

function isFile(sample) {
  return sample instanceof Blob || sample instanceof ArrayBuffer || sample instanceof Uint8Array;
}

/** @returns {Promise<Uint8Array>} */
async function readBytes(sample) {
  if (sample instanceof Uint8Array) return sample;
  return new Uint8Array(sample instanceof Blob ? await sample.arrayBuffer() : sample);
}
