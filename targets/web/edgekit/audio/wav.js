/** Samples of `.wav` files: integers of 8 to 32 bits and floats, mixed to one channel. */

import { makeSampleError } from "../failures.js";

const INTEGERS = 1;
const FLOATS = 3;
const EXTENSIBLE = 0xfffe;
const BITS = { [INTEGERS]: [8, 16, 24, 32], [FLOATS]: [32, 64] };
const OTHERS = { 2: "ADPCM", 6: "A-law", 7: "mu-law", 0x55: "MP3" };
const MOST_CHANNELS = 256;
const MOST_BYTES = 1 << 28;
const MOST_CHUNKS = 1000;
/** Size of the data that programs state if they cannot know it. */
const UNKNOWN_SIZE = 0xffffffff;

/**
 * Read the mean of all channels, integers scaled to -1..1.
 *
 * @param {Uint8Array} bytes the file.
 * @returns {{wave: Float32Array, rate: number}} the values and their number in a second.
 */
export function readWav(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 12 || readName(bytes, 0) !== "RIFF" || readName(bytes, 8) !== "WAVE") {
    throw makeSampleError("this is not a .wav file", "convert it with: ffmpeg -i FILE OUT.wav");
  }
  const { format, offset, size } = findData(bytes, view);
  if (size > MOST_BYTES) {
    throw makeSampleError(`the sound has more than ${MOST_BYTES >> 20} MiB of samples`, "cut it");
  }
  return { wave: mixChannels(view, format, offset, size), rate: format.rate };
}

/** Find the format and the place of the samples. */
function findData(bytes, view) {
  let format = null;
  let place = 12;
  for (let chunk = 0; chunk < MOST_CHUNKS && place + 8 <= bytes.length; chunk++) {
    const name = readName(bytes, place);
    const told = view.getUint32(place + 4, true);
    if (name === "fmt ") format = parseFormat(view, place + 8, Math.min(told, 40));
    if (name === "data" && format) {
      const left = bytes.length - place - 8;
      const size = told === UNKNOWN_SIZE ? left : told;
      if (size > left) {
        throw makeSampleError(`the .wav file is truncated: ${left} of ${size} bytes of samples`);
      }
      return { format, offset: place + 8, size };
    }
    place += 8 + told + (told % 2);
  }
  throw makeSampleError(`the .wav file is damaged: it has no ${format ? "data" : "format"}`);
}

/** Parse kind, bits, channels and rate. */
function parseFormat(view, place, told) {
  const size = Math.min(told, view.byteLength - place);
  if (size < 16) throw makeSampleError("the .wav file is damaged: its format is incomplete");
  let kind = view.getUint16(place, true);
  const channels = view.getUint16(place + 2, true);
  const rate = view.getUint32(place + 4, true);
  const bits = view.getUint16(place + 14, true);
  if (kind === EXTENSIBLE && size >= 26) kind = view.getUint16(place + 24, true);
  if (!BITS[kind]?.includes(bits)) {
    throw makeSampleError(
      `the sound is ${OTHERS[kind] ?? `format ${kind}`} of ${bits} bits, which is not read`,
      "convert it to 16-bit PCM: ffmpeg -i FILE -c:a pcm_s16le OUT.wav",
    );
  }
  if (channels < 1 || channels > MOST_CHANNELS || !rate) {
    throw makeSampleError(`the .wav file is damaged: ${channels} channels at ${rate} Hz`);
  }
  return { kind, bits, channels, rate };
}

/** Return the mean of the channels. */
function mixChannels(view, { kind, bits, channels }, offset, size) {
  const step = bits / 8;
  const read = chooseReader(view, kind, bits);
  const wave = new Float32Array(Math.floor(size / (channels * step)));
  for (let k = 0, place = offset; k < wave.length; k++) {
    let sum = 0;
    for (let channel = 0; channel < channels; channel++, place += step) sum += read(place);
    wave[k] = sum / channels;
    if (!Number.isFinite(wave[k])) throw makeSampleError(`value ${k} of the sound is not finite`);
  }
  return wave;
}

/** Return the function that reads the value at a place. */
function chooseReader(view, kind, bits) {
  if (kind === FLOATS) {
    return bits === 32 ? (at) => view.getFloat32(at, true) : (at) => view.getFloat64(at, true);
  }
  if (bits === 8) return (at) => (view.getUint8(at) - 128) / 128; // the only unsigned type
  if (bits === 16) return (at) => view.getInt16(at, true) / 2 ** 15;
  if (bits === 24) {
    return (at) => (view.getInt8(at + 2) * 65536 + view.getUint16(at, true)) / 2 ** 23;
  }
  return (at) => view.getInt32(at, true) / 2 ** 31;
}

function readName(bytes, place) {
  return String.fromCharCode(...bytes.subarray(place, place + 4));
}
