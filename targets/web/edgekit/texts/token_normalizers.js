/** Normalization of texts before they are split into tokens, as in a tokenizer.json. */

import { EdgekitError } from "../failures.js";

/**
 * A function from text to text.
 * @typedef {(text: string) => string} Normalize
 */

const CHINESE = [
  [0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f], [0x2b740, 0x2b81f],
  [0x2b920, 0x2ceaf], [0xf900, 0xfaff], [0x2f800, 0x2fa1f],
]; // prettier-ignore
const CONTROL = /^[\p{Cc}\p{Cf}\p{Cn}\p{Co}]$/u;
const SPACE = /^\p{White_Space}$/u;

/**
 * Build the error of a tokenizer whose parts are not known here.
 *
 * @param {string} part
 * @returns {EdgekitError}
 */
export function makeUnsupportedError(part) {
  return new EdgekitError(
    "unsupported",
    `tokenizer.json: ${part} is not supported in browsers`,
    "package the app for Linux",
  );
}

/**
 * Remove white space of any kind at the ends of a text.
 *
 * @param {string} text
 * @param {boolean} left
 * @param {boolean} right
 * @returns {string}
 */
export function stripSpaces(text, left, right) {
  const letters = [...text];
  let [start, end] = [0, letters.length];
  while (left && start < end && SPACE.test(letters[start])) start++;
  while (right && start < end && SPACE.test(letters[end - 1])) end--;
  return letters.slice(start, end).join("");
}

/** Makers of normalizers by type. @type {Record<string, (settings: any) => Normalize>} */
const NORMALIZERS = {
  Sequence: ({ normalizers }) => {
    const steps = normalizers.map(makeNormalizer);
    return (text) => steps.reduce((before, step) => step(before), text);
  },
  BertNormalizer: makeBertNormalizer,
  Lowercase: () => lowerCase,
  NFC: () => (text) => text.normalize("NFC"),
  NFD: () => (text) => text.normalize("NFD"),
  NFKC: () => (text) => text.normalize("NFKC"),
  NFKD: () => (text) => text.normalize("NFKD"),
  StripAccents: () => (text) => text.replace(/\p{M}/gu, ""),
  Strip: ({ strip_left: left, strip_right: right }) => {
    return (text) => stripSpaces(text, left, right);
  },
  Prepend:
    ({ prepend }) =>
    (text) =>
      text ? prepend + text : text,
  Replace: ({ pattern, content }) => {
    if (typeof pattern?.String !== "string") throw makeUnsupportedError("a pattern of Replace");
    return (text) => text.replaceAll(pattern.String, () => content);
  },
};

/**
 * Make the normalizer of a tokenizer.
 *
 * @param {any} settings its part of tokenizer.json; null for none.
 * @returns {Normalize}
 */
export function makeNormalizer(settings) {
  if (!settings) return (text) => text;
  if (!Object.hasOwn(NORMALIZERS, settings.type)) {
    throw makeUnsupportedError(`the normalizer ${settings.type}`);
  }
  return NORMALIZERS[settings.type](settings);
}

/** Lower each character alone, so that its place in the word does not matter. */
function lowerCase(text) {
  return Array.from(text, (letter) => letter.toLowerCase()).join("");
}

function makeBertNormalizer(settings) {
  const { clean_text: clean, handle_chinese_chars: isolate, lowercase } = settings;
  const strip = settings.strip_accents ?? lowercase;
  return (text) => {
    let result = text;
    if (clean) result = cleanText(result);
    if (isolate) result = Array.from(result, isolateChinese).join("");
    if (strip) result = result.normalize("NFD").replace(/\p{Mn}/gu, "");
    return lowercase ? lowerCase(result) : result;
  };
}

/** Drop control characters, and replace white space of any kind by spaces. */
function cleanText(text) {
  return Array.from(text, (letter) => {
    if (SPACE.test(letter)) return " ";
    return letter === "\0" || letter === "\ufffd" || CONTROL.test(letter) ? "" : letter;
  }).join("");
}

function isolateChinese(letter) {
  const point = /** @type {number} */ (letter.codePointAt(0));
  return CHINESE.some(([first, last]) => point >= first && point <= last) ? ` ${letter} ` : letter;
}
