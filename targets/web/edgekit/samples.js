/** Samples of any kind as rows of the model's inputs. */

import { convertWave, fitWave, listWindows } from "./audio.js";
import { decodeImage } from "./decode_image.js";
import { EdgekitError, makeSampleError } from "./failures.js";
import { preparePixels } from "./images.js";
import { readRow } from "./rows.js";
import { readWav } from "./wav.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 * @typedef {import("./settings.js").ModelSettings} ModelSettings
 *
 * Sound of a microphone.
 * @typedef {{wave: Float32Array, rate: number}} Sound
 *
 * Rows of the inputs for each run that a sample needs, and where an image is in the input.
 * @typedef {object} PreparedSample
 * @property {Map<string, NumberArray>[]} runs
 * @property {import("./letterbox.js").Letterbox|null} letterbox
 */

/**
 * Return what a sample of a model is.
 *
 * @param {ModelSettings} settings
 * @returns {"text"|"audio"|"image"|"row"}
 */
export function getInputKind({ text, audio, images, fields }) {
  if (text) return "text";
  if (audio) return "audio";
  return images && !fields.length ? "image" : "row";
}

/**
 * Convert a sample to rows of the model's inputs.
 *
 * @param {any} sample an image (`ImageData` or a file), a sound (`{wave, rate}` or a `.wav` file),
 *   a text, or a row; files are a `Blob`, an `ArrayBuffer` or bytes.
 * @param {ModelSettings} settings
 * @returns {Promise<PreparedSample>}
 */
export async function prepareSample(sample, settings) {
  const kind = getInputKind(settings);
  if (kind === "image") return prepareImage(sample, settings);
  if (kind === "audio") return prepareSound(sample, settings);
  if (kind === "row") return { runs: [readRow(await parseRow(sample), settings)], letterbox: null };
  throw new EdgekitError(
    "unsupported",
    "models of texts do not run in the browser yet",
    "package the app for Linux",
  );
}

/** Return the inputs that each sample feeds. */
function listSampleInputs({ inputs, feeding }) {
  const others = new Set([...feeding.constants, ...feeding.states].map(({ name }) => name));
  return inputs.filter(({ name }) => !others.has(name));
}

async function prepareImage(sample, settings) {
  const image = isFile(sample) ? await decodeImage(new Blob([sample])) : sample;
  const pixels = preparePixels(image, settings.images);
  const [input] = listSampleInputs(settings);
  const row = { data: pixels.data, shape: pixels.shape, dtype: "uint8" };
  return { runs: [new Map([[input.name, row]])], letterbox: pixels.letterbox };
}

async function prepareSound(sample, settings) {
  const { audio } = settings;
  const { wave, rate } = isFile(sample) ? readWav(await readBytes(sample)) : (sample ?? {});
  if (!(wave instanceof Float32Array) || !wave.length) throw makeSampleError("the sound is empty");
  if (rate !== audio.rate) {
    throw makeSampleError(
      `the sound has ${rate} values per second, but the model needs ${audio.rate}`,
      `record it with ${audio.rate} Hz`,
    );
  }
  const [input] = listSampleInputs(settings);
  const axis = settings.feeding.axes?.get(input.name) ?? 0;
  const sizes = input.shape.filter((_, place) => place !== axis);
  const windows = audio.step
    ? listWindows(wave, audio.samples ?? audio.step, audio.step)
    : [fitWave(wave, audio.samples ?? wave.length)];
  if (!windows.length) throw makeSampleError("the sound is too short", "record a longer one");
  return {
    runs: windows.map((values) => new Map([[input.name, convertWave(values, audio, sizes)]])),
    letterbox: null,
  };
}

async function parseRow(sample) {
  if (typeof sample !== "string" && !isFile(sample)) return sample;
  const text =
    typeof sample === "string" ? sample : new TextDecoder().decode(await readBytes(sample));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw makeSampleError("this is not a row of values", 'write it as JSON: {"name": 1.5}');
  }
}

function isFile(sample) {
  return sample instanceof Blob || sample instanceof ArrayBuffer || sample instanceof Uint8Array;
}

/** @returns {Promise<Uint8Array>} */
async function readBytes(sample) {
  if (sample instanceof Uint8Array) return sample;
  return new Uint8Array(sample instanceof Blob ? await sample.arrayBuffer() : sample);
}
