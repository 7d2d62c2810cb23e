/** Checks of the fields of settings, which come from a file and may be damaged. */

import { isKnownType } from "./arrays.js";
import { makeJobError } from "./failures.js";

/**
 * A check of one value: it returns the value to keep, or throws with the path of the value.
 * @typedef {(value: any, path: string) => any} Check
 *
 * Checks by the name of the field, and what stands for a missing one, if it may be missing.
 * @typedef {Record<string, [Check] | [Check, any]>} Fields
 */

const MOST_TEXT = 200;
const MOST_SIZE = 2 ** 31;

/**
 * Build the error of a wrong value.
 *
 * @param {string} path
 * @param {string} problem
 * @returns {Error}
 */
export function makeFieldError(path, problem) {
  return makeJobError(`${path}: ${problem}`, "package the app again");
}

/**
 * Parse the text of a file; values that were parsed already are returned as they are.
 *
 * @param {unknown} given
 * @param {string} file name of the file, for the message.
 * @returns {unknown}
 */
export function parseText(given, file) {
  if (typeof given !== "string") return given;
  try {
    return JSON.parse(given);
  } catch (error) {
    throw makeFieldError(file, "not JSON");
  }
}

/**
 * Format a value for a message, cut to a few characters.
 *
 * @param {unknown} value
 * @returns {string}
 */
export function quote(value) {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 40 ? `${text.slice(0, 40)}...` : text;
}

/**
 * Check a number within limits.
 *
 * @param {number} least
 * @param {number} most
 * @returns {Check}
 */
export function number(least, most) {
  return (value, path) => {
    if (typeof value !== "number" || !(value >= least && value <= most)) {
      throw makeFieldError(path, `${quote(value)} must be ${least} to ${most}`);
    }
    return value;
  };
}

/**
 * Check a whole number within limits.
 *
 * @param {number} least
 * @param {number} most
 * @returns {Check}
 */
export function integer(least, most) {
  const check = number(least, most);
  return (value, path) => {
    if (!Number.isInteger(check(value, path))) {
      throw makeFieldError(path, `${quote(value)} is not a whole number`);
    }
    return value;
  };
}

/** @type {Check} */
export function flag(value, path) {
  if (typeof value !== "boolean")
    throw makeFieldError(path, `${quote(value)} is not true or false`);
  return value;
}

/**
 * Check a text.
 *
 * @param {number} [most] largest number of characters.
 * @returns {Check}
 */
export function text(most = MOST_TEXT) {
  return (value, path) => {
    if (typeof value !== "string" || value.length > most) {
      throw makeFieldError(path, `${quote(value)} is not a text of up to ${most} characters`);
    }
    return value;
  };
}

/**
 * Check one of several words.
 *
 * @param {readonly string[]} words
 * @returns {Check}
 */
export function word(words) {
  return (value, path) => {
    if (!words.includes(value)) {
      throw makeFieldError(path, `${quote(value)} is not one of ${words.join(", ")}`);
    }
    return value;
  };
}

/**
 * Check a value that may be null.
 *
 * @param {Check} check
 * @returns {Check}
 */
export function optional(check) {
  return (value, path) => (value === null || value === undefined ? null : check(value, path));
}

/**
 * Check a list.
 *
 * @param {Check} check check of each element.
 * @param {number} most largest number of elements.
 * @returns {Check}
 */
export function list(check, most) {
  return (value, path) => {
    if (!Array.isArray(value) || value.length > most) {
      throw makeFieldError(path, `not a list of up to ${most} values`);
    }
    return value.map((each, place) => check(each, `${path}[${place}]`));
  };
}

/**
 * Check an object with any keys; it becomes a Map.
 *
 * @param {Check} check check of each value.
 * @param {number} most largest number of keys.
 * @returns {Check}
 */
export function table(check, most) {
  return (value, path) => {
    checkObject(value, path);
    const entries = Object.entries(value);
    if (entries.length > most) throw makeFieldError(path, `more than ${most} entries`);
    return new Map(entries.map(([key, each]) => [key, check(each, `${path}.${key.slice(0, 40)}`)]));
  };
}

/**
 * Check an object with given fields, unknown ones left out; its keys become camelCase.
 *
 * @param {Fields} fields
 * @returns {Check}
 */
export function record(fields) {
  return (value, path) => {
    checkObject(value, path);
    const result = {};
    for (const [name, [check, ...fallback]] of Object.entries(fields)) {
      const key = name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
      const isGiven = Object.hasOwn(value, name);
      if (!isGiven && !fallback.length) throw makeFieldError(`${path}.${name}`, "is missing");
      result[key] = isGiven ? check(value[name], `${path}.${name}`) : fallback[0];
    }
    return result;
  };
}

/** @type {Check} */
export function dtype(value, path) {
  if (!isKnownType(value)) throw makeFieldError(path, `${quote(value)} is not a type of numbers`);
  return value;
}

/** Check a size, or the name of a free dimension. @type {Check} */
export function dimension(value, path) {
  if (value === null) return "?";
  if (typeof value === "string") return value;
  return integer(0, MOST_SIZE - 1)(value, path);
}

function checkObject(value, path) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw makeFieldError(path, `${quote(value)} is not a table`);
  }
}
