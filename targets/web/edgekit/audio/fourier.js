/** Fourier transform of signals of any length, in float64. */

import { makeJobError } from "../failures.js";

const MOST_PRIME = 1000;

/**
 * Plan the transform of signals of a length (Cooley and Tukey 1965, one factor at a time).
 *
 * @param {number} size
 * @returns {(signal: Float64Array) => {real: Float64Array, imaginary: Float64Array}} a function
 *   that returns the complete spectrum, in memory that the next call uses again.
 */
export function planTransform(size) {
  const factors = factorize(size);
  if (factors.some((factor) => factor > MOST_PRIME)) {
    throw makeJobError(`audio.n_fft: ${size} has a prime factor above ${MOST_PRIME}`);
  }
  const largest = Math.max(1, ...factors);
  const plan = {
    size,
    factors,
    cosines: Float64Array.from({ length: size }, (_, k) => Math.cos((2 * Math.PI * k) / size)),
    sines: Float64Array.from({ length: size }, (_, k) => -Math.sin((2 * Math.PI * k) / size)),
    real: new Float64Array(size),
    imaginary: new Float64Array(size),
    held: [new Float64Array(largest), new Float64Array(largest)],
  };
  return (signal) => {
    transform(plan, signal, { offset: 0, step: 1, target: 0, size, level: 0 });
    return { real: plan.real, imaginary: plan.imaginary };
  };
}

/** @param {number} size */
function factorize(size) {
  const factors = [];
  let rest = size;
  for (let factor = 2; factor * factor <= rest; factor++) {
    while (rest % factor === 0) {
      factors.push(factor);
      rest /= factor;
    }
  }
  return rest > 1 ? [...factors, rest] : factors;
}

/** Transform every `step`-th value of a signal from `offset` on, to the place `target`. */
function transform(plan, signal, { offset, step, target, size, level }) {
  const { real, imaginary } = plan;
  if (size === 1) {
    real[target] = signal[offset];
    imaginary[target] = 0;
    return;
  }
  const parts = plan.factors[level];
  const part = size / parts;
  for (let k = 0; k < parts; k++) {
    transform(plan, signal, {
      offset: offset + k * step,
      step: step * parts,
      target: target + k * part,
      size: part,
      level: level + 1,
    });
  }
  joinParts(plan, target, part, parts);
}

/** Join the spectra of interleaved parts to the spectrum of the whole. */
function joinParts({ size, cosines, sines, real, imaginary, held }, target, part, parts) {
  const [heldReal, heldImaginary] = held;
  const turn = size / (part * parts);
  for (let k = 0; k < part; k++) {
    for (let r = 0; r < parts; r++) {
      heldReal[r] = real[target + r * part + k];
      heldImaginary[r] = imaginary[target + r * part + k];
    }
    for (let q = 0; q < parts; q++) {
      let sumReal = heldReal[0];
      let sumImaginary = heldImaginary[0];
      const place = k + q * part;
      for (let r = 1; r < parts; r++) {
        const angle = (r * place * turn) % size;
        sumReal += heldReal[r] * cosines[angle] - heldImaginary[r] * sines[angle];
        sumImaginary += heldReal[r] * sines[angle] + heldImaginary[r] * cosines[angle];
      }
      real[target + place] = sumReal;
      imaginary[target + place] = sumImaginary;
    }
  }
}
