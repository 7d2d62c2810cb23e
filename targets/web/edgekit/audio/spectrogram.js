/** Spectrograms of audio: magnitudes of short-time Fourier transforms, and mel filters. */

import { makeJobError } from "../failures.js";
import { planTransform } from "./fourier.js";

/**
 * @typedef {import("../settings.js").AudioSettings} AudioSettings
 *
 * A filter: its weights from the bin `first` on.
 * @typedef {{first: number, weights: Float64Array}} MelFilter
 */

/** Largest number of values of all frames together. */
const MOST_STEPS = 1 << 27;
// Slaney's scale is linear up to this frequency, and logarithmic above (Auditory Toolbox, 1998).
const SLANEY_BREAK_HZ = 1000;
const SLANEY_HZ = 200 / 3;
const SLANEY_STEP = Math.log(6.4) / 27;
const SLANEY_BREAK = SLANEY_BREAK_HZ / SLANEY_HZ;

/**
 * Compute the spectrogram of a signal.
 *
 * @param {Float32Array} wave
 * @param {AudioSettings} how settings with a spectrogram.
 * @returns {{data: Float64Array, frames: number, bins: number}} a row for each frame.
 */
export function computeSpectrogram(wave, how) {
  const frames = countFrames(wave.length, how);
  const spectrumBins = Math.floor(how.nFft / 2) + 1;
  const filters = how.spectrogram === "magnitude" ? null : buildMelFilters(how);
  const bins = filters ? filters.length : spectrumBins;
  if (frames * how.nFft > MOST_STEPS) {
    throw makeJobError(`a spectrogram of ${frames} frames of ${how.nFft} values is too large`);
  }
  const data = new Float64Array(frames * bins);
  const signal = how.center ? reflectEnds(wave, Math.floor(how.nFft / 2)) : wave;
  const window = buildWindow(how);
  const transform = planTransform(how.nFft);
  const frame = new Float64Array(how.nFft);
  const powers = new Float64Array(spectrumBins);
  for (let number = 0; number < frames; number++) {
    const start = number * how.hop;
    for (let k = 0; k < how.nFft; k++) frame[k] = signal[start + k] * window[k];
    const { real, imaginary } = transform(frame);
    for (let bin = 0; bin < spectrumBins; bin++) {
      powers[bin] = Math.hypot(real[bin], imaginary[bin]) ** how.power;
    }
    const row = data.subarray(number * bins, (number + 1) * bins);
    if (filters) applyFilters(filters, powers, row, how);
    else row.set(powers);
  }
  return { data, frames, bins };
}

/** Sum the powers under each filter, and take their logarithms. */
function applyFilters(filters, powers, row, how) {
  filters.forEach(({ first, weights }, mel) => {
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += weights[k] * powers[first + k];
    row[mel] = sum;
  });
  if (how.spectrogram !== "log-mel") return;
  const unit = how.log === "db" ? 10 / Math.LN10 : 1;
  for (let mel = 0; mel < row.length; mel++)
    row[mel] = Math.log(Math.max(row[mel], how.floor)) * unit;
}

/**
 * Return the number of frames of a signal.
 *
 * @param {number} samples
 * @param {AudioSettings} how
 * @returns {number}
 */
export function countFrames(samples, how) {
  const padded = samples + (how.center ? 2 * Math.floor(how.nFft / 2) : 0);
  return Math.max(0, 1 + Math.floor((padded - how.nFft) / how.hop));
}

/**
 * Build triangular filters.
 *
 * `htk`: triangles of height 1 at `2595 log10(1 + f / 700)`. `slaney`: triangles of equal area on
 * Slaney's scale.
 *
 * @param {AudioSettings} how
 * @returns {MelFilter[]}
 */
export function buildMelFilters(how) {
  const isHtk = how.melScale === "htk";
  const [toMel, toHertz] = isHtk ? [toHtk, fromHtk] : [toSlaney, fromSlaney];
  const low = toMel(how.lowHz);
  const high = toMel(how.highHz || how.rate / 2);
  const edges = spread(low, high, how.mels + 2).map(toHertz);
  const hertz = spread(0, how.rate / 2, Math.floor(how.nFft / 2) + 1);
  return Array.from({ length: how.mels }, (_, mel) => {
    const [left, middle, right] = edges.slice(mel, mel + 3);
    const area = isHtk ? 1 : 2 / (right - left);
    const weights = hertz.map((f) => {
      const height = Math.min((f - left) / (middle - left), (right - f) / (right - middle));
      return Math.max(0, height) * area;
    });
    const first = Math.max(
      0,
      weights.findIndex((weight) => weight !== 0),
    );
    const end =
      weights.length -
      weights
        .slice()
        .reverse()
        .findIndex((weight) => weight !== 0);
    return { first, weights: Float64Array.from(weights.slice(first, end)) };
  });
}

/** Return evenly spaced numbers from `first` to `last`. */
function spread(first, last, count) {
  const step = (last - first) / (count - 1);
  return Array.from({ length: count }, (_, k) => (k === count - 1 ? last : first + k * step));
}

function toHtk(hertz) {
  return 2595 * Math.log10(1 + hertz / 700);
}

function fromHtk(mel) {
  return 700 * (10 ** (mel / 2595) - 1);
}

function toSlaney(hertz) {
  if (hertz < SLANEY_BREAK_HZ) return hertz / SLANEY_HZ;
  return SLANEY_BREAK + Math.log(hertz / SLANEY_BREAK_HZ) / SLANEY_STEP;
}

function fromSlaney(mel) {
  if (mel < SLANEY_BREAK) return mel * SLANEY_HZ;
  return SLANEY_BREAK_HZ * Math.exp(SLANEY_STEP * (mel - SLANEY_BREAK));
}

/** Add `count` values at both ends, the neighbors in reverse order. */
function reflectEnds(wave, count) {
  const result = new Float64Array(wave.length + 2 * count);
  result.set(wave, count);
  for (let k = 1; k <= count; k++) {
    result[count - k] = wave[k];
    result[count + wave.length - 1 + k] = wave[wave.length - 1 - k];
  }
  return result;
}

/** Build the periodic window, with zeros on both sides up to the size of the transform. */
function buildWindow(how) {
  const length = how.windowLength ?? how.nFft;
  const before = Math.floor((how.nFft - length) / 2);
  const window = new Float64Array(how.nFft);
  for (let k = 0; k < length; k++) {
    const cosine = Math.cos((2 * Math.PI * k) / length);
    const shapes = { hann: 0.5 - 0.5 * cosine, hamming: 0.54 - 0.46 * cosine, ones: 1 };
    window[before + k] = shapes[how.window];
  }
  return window;
}
