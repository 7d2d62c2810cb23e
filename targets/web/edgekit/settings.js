/** Settings of a model: how to feed it, run it and read its answers. */

import { makeJobError } from "./failures.js";
import { MOST_PIXELS } from "./images/images.js";
import { POSTPROCESS_KINDS } from "./outputs/postprocess.js";
import {
  dimension,
  dtype,
  flag,
  integer,
  list,
  makeFieldError,
  number,
  optional,
  parseText,
  record,
  table,
  text,
  word,
} from "./settings_fields.js";
import { readConstant, readStoredArray } from "./stored_arrays.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 *
 * An input or output of the model; a free dimension is its name.
 * @typedef {{name: string, dtype: string, shape: (number|string)[]}} Tensor
 *
 * Normalization of float inputs: `(x * scale - mean) / std` over the last axis.
 * @typedef {{scale: number, mean: number[], std: number[], channelsFirst: boolean}} Normalization
 *
 * Settings of sounds; the names are those of `[data.audio]` in edgekit.toml.
 * @typedef {object} AudioSettings
 * @property {number} rate
 * @property {number|null} samples
 * @property {number|null} step
 * @property {"log-mel"|"mel"|"magnitude"|null} spectrogram
 * @property {number} nFft
 * @property {number} hop
 * @property {"hann"|"hamming"|"ones"} window
 * @property {number|null} windowLength
 * @property {boolean} center
 * @property {number} power
 * @property {number} mels
 * @property {"htk"|"slaney"} melScale
 * @property {number} lowHz
 * @property {number|null} highHz
 * @property {"ln"|"db"} log
 * @property {number} floor
 * @property {"frames-bins"|"bins-frames"} layout
 *
 * @typedef {object} TextSettings
 * @property {string} tokenizer
 * @property {number|null} length
 * @property {number} padId
 * @property {Map<string, string>|null} roles what each input takes.
 * @property {boolean} nextTokens
 *
 * @typedef {{input: string, fields: string[]}} RowFields
 * @typedef {{name: string, value: NumberArray|null}} ConstantInput null: in the golden samples.
 * @typedef {{name: string, output: string, axis: number, initial: NumberArray}} StateInput
 *
 * @typedef {object} Postprocess
 * @property {string} kind
 * @property {string[]} outputs
 * @property {number[]} size
 * @property {number[]} strides
 * @property {number} scoreMin
 * @property {number} nmsIou
 * @property {number} most
 * @property {string} boxFormat
 * @property {string} boxUnit
 * @property {number} firstClass
 * @property {number} background
 * @property {number} threshold
 * @property {string[]} charset
 * @property {number} blank
 *
 * @typedef {object} Answer
 * @property {string} kind
 * @property {string|null} output
 * @property {boolean} logits
 * @property {number} threshold
 * @property {number|null} classAxis
 * @property {number|null} ignore
 *
 * @typedef {object} ModelSettings
 * @property {string} name
 * @property {string} model
 * @property {string} digest
 * @property {number} threads
 * @property {number} maxRelativeError
 * @property {Tensor[]} inputs
 * @property {Tensor[]} outputs
 * @property {(import("./images/images.js").ImageSettings & {keepsSizes: boolean})|null} images
 * @property {Normalization|null} preprocess
 * @property {AudioSettings|null} audio
 * @property {TextSettings|null} text
 * @property {RowFields[]} fields
 * @property {{axes: Map<string, number>|null, constants: ConstantInput[], states: StateInput[]}}
 *   feeding
 * @property {Postprocess|null} postprocess
 * @property {Answer} answer
 * @property {string[]} classNames
 */

const MOST_TENSORS = 1000;
const MOST_AXES = 64;
const MOST_NAMES = 1 << 20;
const MOST_SIDE = 1 << 14;
const MOST_COUNT = 1 << 24;
const LARGE = 1e30;
const INTEGER = integer(-(2 ** 53), 2 ** 53);
const NO_FEEDING = { axes: null, constants: [], states: [] };

const TENSOR = record({ name: [text()], dtype: [dtype], shape: [list(dimension, MOST_AXES)] });

const IMAGES = record({
  resize: [optional(integer(1, MOST_SIDE))],
  crop: [optional(integer(1, MOST_SIDE))],
  mode: [optional(word(["letterbox", "stretch"]))],
  size: [optional(checkSize)],
  pad: [integer(0, 255)],
  centered: [flag],
  reversed_channels: [flag],
  gray: [flag],
  keeps_sizes: [flag, false],
});

const PREPROCESS = record({
  scale: [number(-LARGE, LARGE), 1],
  mean: [list(number(-LARGE, LARGE), MOST_NAMES), [0]],
  std: [list(number(-LARGE, LARGE), MOST_NAMES), [1]],
  channels_first: [flag, false],
});

const AUDIO = record({
  rate: [integer(1, 1_000_000)],
  samples: [optional(integer(1, MOST_COUNT)), null],
  step: [optional(integer(1, MOST_COUNT)), null],
  spectrogram: [optional(word(["log-mel", "mel", "magnitude"])), null],
  n_fft: [integer(2, 1 << 16), 512],
  hop: [integer(1, MOST_COUNT), 160],
  window: [word(["hann", "hamming", "ones"]), "hann"],
  window_length: [optional(integer(1, 1 << 16)), null],
  center: [flag, false],
  power: [number(1e-9, 4), 2],
  mels: [integer(1, 1024), 40],
  mel_scale: [word(["htk", "slaney"]), "htk"],
  low_hz: [number(0, 1e6), 0],
  high_hz: [optional(number(0, 1e6)), null],
  log: [word(["ln", "db"]), "ln"],
  floor: [number(1e-300, LARGE), 1e-10],
  layout: [word(["frames-bins", "bins-frames"]), "frames-bins"],
});

const TEXT = record({
  tokenizer: [text()],
  length: [optional(integer(1, 1 << 20)), null],
  pad_id: [integer(0, 2 ** 31 - 1), 0],
  roles: [
    optional(
      table(word(["input_ids", "attention_mask", "token_type_ids", "position_ids"]), MOST_TENSORS),
    ),
    null,
  ],
  next_tokens: [flag, false],
});

const FEEDING = record({
  axes: [optional(table(integer(-1, MOST_AXES), MOST_TENSORS)), null],
  constants: [list(record({ name: [text()], value: [readConstant] }), MOST_TENSORS), []],
  states: [
    list(
      record({
        name: [text()],
        output: [text()],
        axis: [integer(-1, MOST_AXES)],
        initial: [readStoredArray],
      }),
      MOST_TENSORS,
    ),
    [],
  ],
});

const POSTPROCESS = record({
  kind: [word(POSTPROCESS_KINDS)],
  outputs: [list(text(), MOST_TENSORS), []],
  size: [list(integer(0, MOST_SIDE), 2), []],
  strides: [list(integer(0, MOST_SIDE), 100), [8, 16, 32]],
  score_min: [number(-LARGE, LARGE), 0.01],
  nms_iou: [number(-LARGE, LARGE), 0.65],
  most: [integer(0, 10_000), 100],
  box_format: [word(["xyxy", "yxyx", "cxcywh", "xywh"]), "xyxy"],
  box_unit: [word(["pixels", "share"]), "pixels"],
  first_class: [INTEGER, 0],
  background: [INTEGER, -1],
  threshold: [number(-LARGE, LARGE), 0.5],
  charset: [list(text(), MOST_NAMES), []],
  blank: [INTEGER, 0],
});

const ANSWER = record({
  kind: [word(["class", "labels", "boxes", "mask", "text", "decisions", "values"]), "values"],
  output: [optional(text()), null],
  logits: [flag, false],
  threshold: [number(-LARGE, LARGE), 0.5],
  class_axis: [optional(integer(0, MOST_AXES)), null],
  ignore: [optional(INTEGER), null],
});

const SETTINGS = record({
  name: [text()],
  model: [text()],
  digest: [text()],
  threads: [integer(1, 1024), 1],
  max_relative_error: [number(0, 1), 0.1],
  inputs: [list(TENSOR, MOST_TENSORS)],
  outputs: [list(TENSOR, MOST_TENSORS)],
  images: [optional(IMAGES), null],
  preprocess: [optional(PREPROCESS), null],
  audio: [optional(AUDIO), null],
  text: [optional(TEXT), null],
  fields: [list(record({ input: [text()], fields: [list(text(), MOST_NAMES)] }), MOST_TENSORS), []],
  feeding: [FEEDING, NO_FEEDING],
  postprocess: [optional(POSTPROCESS), null],
  answer: [ANSWER, ANSWER({}, "")],
  class_names: [list(text(), MOST_NAMES), []],
});

/** Check height and width. */
function checkSize(value, path) {
  const size = list(integer(1, MOST_SIDE), 2)(value, path);
  if (size.length !== 2) throw makeFieldError(path, "not height and width");
  if (size[0] * size[1] > MOST_PIXELS) throw makeFieldError(path, "too many pixels");
  return size;
}

/**
 * Read the settings of a model.
 *
 * @param {unknown} given the values of settings.json, or its text.
 * @returns {ModelSettings}
 */
export function readSettings(given) {
  const settings = /** @type {ModelSettings} */ (SETTINGS(parseText(given, "settings.json"), "settings.json"));
  checkNames(settings);
  return settings;
}

/** Check that fields name inputs and outputs of the model. */
function checkNames({ inputs, outputs, feeding, text: texts, fields, answer }) {
  const inputNames = new Set(inputs.map((tensor) => tensor.name));
  const outputNames = new Set(outputs.map((tensor) => tensor.name));
  if (!inputs.length || !outputs.length)
    throw makeJobError("settings.json: a model without inputs or outputs");
  const named = [
    ...feeding.constants.map((each) => each.name),
    ...feeding.states.map((each) => each.name),
    ...(feeding.axes?.keys() ?? []),
    ...(texts?.roles?.keys() ?? []),
    ...fields.map((each) => each.input),
  ];
  const wrong = named.find((name) => !inputNames.has(name));
  if (wrong !== undefined) throw makeFieldError("settings.json", `there is no input "${wrong}"`);
  const read = [...feeding.states.map((each) => each.output), answer.output ?? outputs[0].name];
  const missing = read.find((name) => !outputNames.has(name));
  if (missing !== undefined) {
    throw makeFieldError("settings.json", `there is no output "${missing}"`);
  }
}

/**
 * Return the name of a class, else its number.
 *
 * @param {ModelSettings} settings
 * @param {number} index
 * @returns {string}
 */
export function getLabel(settings, index) {
  return settings.classNames[index] || String(index);
}
