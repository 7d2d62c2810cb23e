/**
 * Resizing of images with the same bits as Pillow.
 *
 * A filter is widened when the image shrinks (antialiasing). Its weights are fixed-point numbers,
 * and each pass, along rows or columns, rounds to 8 bits.
 */

/** Fraction bits of the weights: 32 less 8 of a pixel and 2 of the sum. */
const PRECISION_BITS = 22;

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

/** Resize along rows. */
function resizeRows(pixels, width, height, channels, newWidth, filter) {
  const { firsts, counts, weights, most } = computeWeights(width, newWidth, FILTERS[filter]);
  // Uint8ClampedArray cuts to 0..255, as Pillow does.
  const result = new Uint8ClampedArray(newWidth * height * channels);
  let target = 0;
  for (let y = 0; y < height; y++) {
    const row = y * width * channels;
    for (let x = 0; x < newWidth; x++) {
      const start = row + firsts[x] * channels;
      const count = counts[x];
      const weight = x * most;
      for (let channel = 0; channel < channels; channel++) {
        let sum = 1 << (PRECISION_BITS - 1);
        let source = start + channel;
        for (let k = 0; k < count; k++, source += channels) {
          sum += pixels[source] * weights[weight + k];
        }
        result[target++] = sum >> PRECISION_BITS;
      }
    }
  }
  return result;
}

/** Resize along columns; a row has `length` values. */
function resizeColumns(pixels, length, height, newHeight, filter) {
  const { firsts, counts, weights, most } = computeWeights(height, newHeight, FILTERS[filter]);
  const result = new Uint8ClampedArray(length * newHeight);
  const sums = new Int32Array(length);
  for (let y = 0; y < newHeight; y++) {
    sums.fill(1 << (PRECISION_BITS - 1));
    for (let k = 0; k < counts[y]; k++) {
      const weight = weights[y * most + k];
      const row = (firsts[y] + k) * length;
      for (let x = 0; x < length; x++) sums[x] += pixels[row + x] * weight;
    }
    const target = y * length;
    for (let x = 0; x < length; x++) result[target + x] = sums[x] >> PRECISION_BITS;
  }
  return result;
}
