// Values of JSON documents with arrays of numbers: {"dtype", "shape", "data"} with base64 data.

import { readStoredArray } from "../../targets/web/edgekit/stored_arrays.js";

const TYPES = {
  Float32Array: "float32",
  Float64Array: "float64",
  Uint8Array: "uint8",
  Int8Array: "int8",
  Uint8ClampedArray: "uint8",
  Int32Array: "int32",
  Uint16Array: "uint16",
  BigInt64Array: "int64",
};

/** Encode the values that a function returns; a Map becomes a list of pairs. */
export function encode(value) {
  const type = TYPES[value?.constructor?.name];
  if (type) return encodeNumbers(value, [value.length], type);
  if (value?.data?.BYTES_PER_ELEMENT && value.dtype) {
    return encodeNumbers(value.data, value.shape, value.dtype);
  }
  if (value instanceof Map) return { map: [...value].map(encode) };
  if (Array.isArray(value)) return value.map(encode);
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, encode(each)]));
  }
  return value;
}

function encodeNumbers(data, shape, dtype) {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return { dtype, shape, data: bytes.toString("base64") };
}

/** Decode an argument: {"map": pairs}, {"numbers": array} for its data alone, or an array. */
export function decode(value) {
  if (Array.isArray(value)) return value.map(decode);
  if (typeof value !== "object" || value === null) return value;
  if ("map" in value) return new Map(decode(value.map));
  if ("numbers" in value) return readStoredArray(value.numbers, "argument").data;
  if ("dtype" in value && "data" in value) return readStoredArray(value, "argument");
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, decode(each)]));
}

/** Return {"result"} of a function, or {"error"} with what the user would read. */
export async function toResult(run) {
  try {
    return { result: (await run()) ?? null };
  } catch ({ name, message, kind, hint, stack }) {
    return { error: { name, message, kind, hint, stack } };
  }
}
