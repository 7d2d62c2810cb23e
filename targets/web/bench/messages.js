/**
 * Messages exchanged with the host: the length of a JSON text (uint32, little-endian), the text,
 * and the bytes of arrays, each at a multiple of eight bytes.
 */

const ALIGNMENT = 8;
const ARRAYS = {
  float16: globalThis.Float16Array ?? Uint16Array,
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};

/** Types of the arrays that a message can hold. */
export const TYPES = Object.keys(ARRAYS);

/** Return the facts and the arrays of a message. */
export function decodeMessage(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const { arrays, ...facts } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const read = ({ name, dtype, shape, offset, bytes }) => {
    const kind = ARRAYS[dtype];
    const data = new kind(buffer, 4 + size + offset, bytes / kind.BYTES_PER_ELEMENT);
    return { name, dtype, shape, data };
  };
  return { facts, arrays: arrays.map(read) };
}

/** Return the bytes of a message. */
export function encodeMessage({ facts, arrays = [] }) {
  let offset = 0;
  const listed = arrays.map(({ name, dtype, shape, data }) => {
    const each = { name, dtype, shape, offset, bytes: data.byteLength };
    offset += align(data.byteLength);
    return each;
  });
  const text = new TextEncoder().encode(JSON.stringify({ ...facts, arrays: listed }));
  const start = align(4 + text.length);
  const message = new Uint8Array(start + offset).fill(32, 0, start);
  new DataView(message.buffer).setUint32(0, start - 4, true);
  message.set(text, 4);
  arrays.forEach(({ data }, i) => {
    message.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), start + listed[i].offset);
  });
  return message;
}

/** Return the next multiple of ALIGNMENT. */
function align(size) {
  return Math.ceil(size / ALIGNMENT) * ALIGNMENT;
}
