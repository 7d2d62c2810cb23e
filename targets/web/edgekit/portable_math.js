/**
 * Functions of float64 numbers with the same bits everywhere.
 *
 * `Math.exp` may differ in the last bit between browsers. Range reduction and
 * approximation are those of fdlibm (Sun Microsystems 1993): error below 1 ulp.
 */

// ln 2 in two parts; the low 21 bits of the first are 0, so that k * LN2_HIGH is exact.
const LN2_HIGH = 6.9314718036912381649e-1;
const LN2_LOW = 1.90821492927058770002e-10;
const LOG2_E = 1.442695040888963387;
const EXP_TERMS = [
  1.66666666666666019037e-1, -2.77777777770155933842e-3, 6.61375632143793436117e-5,
  -1.6533902205465251539e-6, 4.13813679705723846039e-8,
];
const WORD = new DataView(new ArrayBuffer(8));

/**
 * Compute the exponential of a number.
 *
 * @param {number} x
 * @returns {number}
 */
export function exp(x) {
  if (Number.isNaN(x)) return x;
  const bounded = Math.min(Math.max(x, -746), 710);
  const k = roundHalfEven(bounded * LOG2_E);
  const high = bounded - k * LN2_HIGH;
  const low = k * LN2_LOW;
  const r = high - low;
  const c = r - evaluate(EXP_TERMS, r * r);
  const power = 1 - (low - (r * c) / (2 - c) - high);
  // Two exact factors: 2 ** k itself may be out of range where the product is not.
  const half = Math.floor(k / 2);
  return power * makePowerOfTwo(half) * makePowerOfTwo(k - half);
}

/**
 * Round half to even, as Python does.
 *
 * @param {number} value
 * @returns {number}
 */
export function roundHalfEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

/**
 * Compute `1 / (1 + exp(-x))` without overflow.
 *
 * @param {number} x
 * @returns {number}
 */
export function sigmoid(x) {
  const small = exp(-Math.abs(x));
  return (x >= 0 ? 1 : small) / (1 + small);
}

/**
 * Compute the probabilities of scores, over rows of `count` values each.
 *
 * @param {Float64Array} scores
 * @param {number} count
 * @returns {Float64Array}
 */
export function softmaxRows(scores, count) {
  const result = new Float64Array(scores.length);
  for (let start = 0; start < scores.length; start += count) {
    let largest = -Infinity;
    for (let k = start; k < start + count; k++) {
      // Not Math.max: a value that is no number must be seen.
      if (scores[k] > largest || Number.isNaN(scores[k])) largest = scores[k];
      if (Number.isNaN(largest)) break;
    }
    for (let k = start; k < start + count; k++) result[k] = exp(scores[k] - largest);
    const total = sumPairwise(result, start, count);
    for (let k = start; k < start + count; k++) result[k] /= total;
  }
  return result;
}

/**
 * Sum values in the order of numpy: eight partial sums, and halves of long rows.
 *
 * @param {Float64Array} values
 * @param {number} start
 * @param {number} count
 * @returns {number}
 */
export function sumPairwise(values, start, count) {
  if (count < 8) {
    let total = 0;
    for (let k = start; k < start + count; k++) total += values[k];
    return total;
  }
  if (count <= 128) {
    const parts = values.slice(start, start + 8);
    const whole = count - (count % 8);
    for (let k = 8; k < whole; k++) parts[k % 8] += values[start + k];
    let total = parts[0] + parts[1] + (parts[2] + parts[3]);
    total += parts[4] + parts[5] + (parts[6] + parts[7]);
    for (let k = whole; k < count; k++) total += values[start + k];
    return total;
  }
  let left = Math.floor(count / 2);
  left -= left % 8;
  return sumPairwise(values, start, left) + sumPairwise(values, start + left, count - left);
}

/** Return `terms[0] z + terms[1] z ** 2 + ...` by Horner's rule. */
function evaluate(terms, z) {
  let total = terms[terms.length - 1];
  for (let k = terms.length - 2; k >= 0; k--) total = total * z + terms[k];
  return total * z;
}

/** Return `2 ** exponent` of a normal number, from its bits. */
function makePowerOfTwo(exponent) {
  WORD.setUint32(0, (exponent + 1023) << 20);
  WORD.setUint32(4, 0);
  return WORD.getFloat64(0);
}
