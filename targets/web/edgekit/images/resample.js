/**
 * Resizing of images with the same bits as Pillow.
 *
 * A filter is widened when the image shrinks (antialiasing). Its weights are fixed-point numbers,
 * and each pass, along rows or columns, rounds to 8 bits.
 */

/** Fraction bits of the weights: 32 less 8 of a pixel and 2 of the sum. */
const PRECISION_BITS = 22;
/** Half of the unit, so that sums are rounded. */
const HALF = 1 << (PRECISION_BITS - 1);

/** Filters of resampling: half of the width, and the weight at a distance. */
const FILTERS = {
  bilinear: { support: 1, weigh: weighBilinear },
  bicubic: { support: 2, weigh: weighBicubic },
};

/** @param {number} x */
function weighBilinear(x) {
  const distance = Math.abs(x);
  return distance < 1 ? 1 - distance : 0;
}

/** @param {number} x */
function weighBicubic(x) {
  const a = -0.5;
  const distance = Math.abs(x);
  if (distance < 1) return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
  if (distance < 2) return (((distance - 5) * distance + 8) * distance - 4) * a;
  return 0;
}

/**
 * Resize an image, along rows first unless the height shrinks much more than the width.
 *
 * This is the order of Pillow since version 13; earlier ones always begin along rows, which changes
 * some of those images by a rounding.
 *
 * @param {Uint8Array|Uint8ClampedArray} pixels the image [height, width, channels].
 * @param {number} width
 * @param {number} height
 * @param {number} channels
 * @param {number} newWidth
 * @param {number} newHeight
 * @param {"bilinear"|"bicubic"} filter
 * @returns {Uint8Array|Uint8ClampedArray} the pixels themselves if the size is the same.
 */
export function resizePixels(pixels, width, height, channels, newWidth, newHeight, filter) {
  const shrinksInHeight = newHeight < height && height - newHeight > 2 * (width - newWidth);
  let result = pixels;
  if (shrinksInHeight) {
    result = resizeColumns(result, width * channels, height, newHeight, filter);
  }
  const rows = shrinksInHeight ? newHeight : height;
  if (newWidth !== width) {
    result = resizeRows(result, width, rows, channels, newWidth, filter);
  }
  if (newHeight !== rows) {
    result = resizeColumns(result, newWidth * channels, rows, newHeight, filter);
  }
  return result;
}

/**
 * Compute the fixed-point weights of each output position.
 *
 * @param {number} size size of the input.
 * @param {number} newSize size of the output.
 * @param {{support: number, weigh: (x: number) => number}} filter
 * @returns {{firsts: Int32Array, counts: Int32Array, weights: Int32Array, most: number}}
 */
function computeWeights(size, newSize, filter) {
  const scale = size / newSize;
  const widened = Math.max(scale, 1);
  const support = filter.support * widened;
  const most = Math.ceil(support) * 2 + 1;
  const firsts = new Int32Array(newSize);
  const counts = new Int32Array(newSize);
  const weights = new Int32Array(newSize * most);
  const exact = new Float64Array(most);
  const inverse = 1 / widened;
  for (let place = 0; place < newSize; place++) {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(size, Math.trunc(center + support + 0.5)) - first;
    let total = 0;
    for (let k = 0; k < count; k++) {
      exact[k] = filter.weigh((k + first - center + 0.5) * inverse);
      total += exact[k];
    }
    for (let k = 0; k < count; k++) {
      const share = total !== 0 ? exact[k] / total : exact[k];
      weights[place * most + k] = share * (1 << PRECISION_BITS) + (share < 0 ? -0.5 : 0.5);
    }
    firsts[place] = first;
    counts[place] = count;
  }
  return { firsts, counts, weights, most };
}

/** Resize along rows. Sums are kept to 32 bits, in which they fit, so that they are fast. */
function resizeRows(pixels, width, height, channels, newWidth, filter) {
  const plan = computeWeights(width, newWidth, FILTERS[filter]);
  // Uint8ClampedArray cuts to 0..255, as Pillow does.
  const result = new Uint8ClampedArray(newWidth * height * channels);
  const resizeRow = channels === 3 ? resizeColorRow : resizeGrayRow;
  for (let y = 0; y < height; y++) {
    resizeRow(pixels, y * width * channels, result, y * newWidth * channels, plan);
  }
  return result;
}

/** Resize a row of pixels with three channels. */
function resizeColorRow(pixels, start, result, target, { firsts, counts, weights, most }) {
  for (let x = 0; x < firsts.length; x++) {
    let red = HALF;
    let green = HALF;
    let blue = HALF;
    let source = start + firsts[x] * 3;
    const end = x * most + counts[x];
    for (let k = x * most; k < end; k++, source += 3) {
      const weight = weights[k];
      red = (red + Math.imul(pixels[source], weight)) | 0;
      green = (green + Math.imul(pixels[source + 1], weight)) | 0;
      blue = (blue + Math.imul(pixels[source + 2], weight)) | 0;
    }
    result[target] = red >> PRECISION_BITS;
    result[target + 1] = green >> PRECISION_BITS;
    result[target + 2] = blue >> PRECISION_BITS;
    target += 3;
  }
}

/** Resize a row of pixels with one channel. */
function resizeGrayRow(pixels, start, result, target, { firsts, counts, weights, most }) {
  for (let x = 0; x < firsts.length; x++) {
    let sum = HALF;
    let source = start + firsts[x];
    const end = x * most + counts[x];
    for (let k = x * most; k < end; k++, source++) {
      sum = (sum + Math.imul(pixels[source], weights[k])) | 0;
    }
    result[target + x] = sum >> PRECISION_BITS;
  }
}

/** Resize along columns; a row has `length` values. */
function resizeColumns(pixels, length, height, newHeight, filter) {
  const { firsts, counts, weights, most } = computeWeights(height, newHeight, FILTERS[filter]);
  const result = new Uint8ClampedArray(length * newHeight);
  const sums = new Int32Array(length);
  for (let y = 0; y < newHeight; y++) {
    sums.fill(HALF);
    for (let k = 0; k < counts[y]; k++) {
      addWeighted(sums, pixels, (firsts[y] + k) * length, weights[y * most + k]);
    }
    const target = y * length;
    for (let x = 0; x < length; x++) result[target + x] = sums[x] >> PRECISION_BITS;
  }
  return result;
}

/** Add a row of values to sums. */
function addWeighted(sums, pixels, start, weight) {
  for (let x = 0; x < sums.length; x++) {
    sums[x] = (sums[x] + Math.imul(pixels[start + x], weight)) | 0;
  }
}
