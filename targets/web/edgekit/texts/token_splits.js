/** Splits of texts into words before they become tokens, as in a tokenizer.json. */

import { makeUnsupportedError } from "./token_normalizers.js";

/**
 * A function from parts of a text to smaller parts; `isFirst` tells that the text begins with them.
 * @typedef {(parts: string[], isFirst: boolean) => string[]} Split
 */

const WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";
const NO_WORD = "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}\\p{White_Space}]";
const PUNCTUATION = "[\\p{P}!-/:-@\\[-`{-~]";
const BYTE_LEVEL = new RegExp(
  [
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+",
    "\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+",
  ].join("|"),
  "gu",
);

/** Makers of splits by type. @type {Record<string, (settings: any) => Split>} */
const SPLITS = {
  Sequence: ({ pretokenizers }) => {
    const steps = pretokenizers.map(makeSplit);
    return (parts, isFirst) => steps.reduce((before, step) => step(before, isFirst), parts);
  },
  BertPreTokenizer: () => splitBy(isolate(PUNCTUATION, "\\P{White_Space}")),
  Whitespace: () => splitBy(new RegExp(`${WORD}+|${NO_WORD}+`, "gu")),
  WhitespaceSplit: () => splitBy(/\P{White_Space}+/gu),
  Punctuation: ({ behavior = "Isolated" }) => {
    if (behavior !== "Isolated") throw makeUnsupportedError(`${behavior} of Punctuation`);
    return splitBy(isolate(PUNCTUATION, "[^]"));
  },
  Digits: ({ individual_digits: isSingle }) => {
    return splitBy(isSingle ? /\p{N}|[^\p{N}]+/gu : /\p{N}+|[^\p{N}]+/gu);
  },
  ByteLevel: makeByteLevel,
  Metaspace: makeMetaspace,
};

/**
 * Make the split of a tokenizer.
 *
 * @param {any} settings its part of tokenizer.json; null for none.
 * @returns {Split}
 */
export function makeSplit(settings) {
  if (!settings) return (parts) => parts;
  if (!Object.hasOwn(SPLITS, settings.type)) {
    throw makeUnsupportedError(`the pre-tokenizer ${settings.type}`);
  }
  return SPLITS[settings.type](settings);
}

/** Return a pattern of single characters of a kind, and of runs of others. */
function isolate(kind, others) {
  return new RegExp(`${kind}|(?:(?!${kind})${others})+`, "gu");
}

/** Return the split into all matches of a pattern. */
function splitBy(pattern) {
  return (parts) => parts.flatMap((part) => part.match(pattern) ?? []);
}

/** Split as GPT-2 does, and write each byte as a visible character. */
function makeByteLevel({ add_prefix_space: addsSpace, use_regex: isSplit = true }) {
  return (parts) =>
    parts
      .map((part) => (addsSpace && part && !part.startsWith(" ") ? ` ${part}` : part))
      .flatMap((part) => (isSplit ? (part.match(BYTE_LEVEL) ?? []) : [part]))
      .map((part) => Array.from(new TextEncoder().encode(part), (byte) => LETTERS[byte]).join(""));
}

/** Write spaces as a visible character, and split before each. */
function makeMetaspace({ replacement = "\u2581", prepend_scheme: scheme, split = true, ...more }) {
  const when = scheme ?? ((more.add_prefix_space ?? true) ? "always" : "never");
  return (parts, isFirst) =>
    parts.flatMap((part, place) => {
      let result = part.replaceAll(" ", replacement);
      const prepends = when === "always" || (when === "first" && isFirst && place === 0);
      if (prepends && !result.startsWith(replacement)) result = replacement + result;
      return split ? splitBefore(result, replacement) : [result];
    });
}

function splitBefore(text, mark) {
  const parts = [];
  let start = 0;
  for (let at = text.indexOf(mark, 1); at > 0; at = text.indexOf(mark, at + mark.length)) {
    parts.push(text.slice(start, at));
    start = at;
  }
  return [...parts, text.slice(start)];
}

/** Character of each byte: itself where it is visible, else one from 256 on. */
const LETTERS = (() => {
  const isVisible = (byte) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) =>
    String.fromCharCode(isVisible(byte) ? byte : next++),
  );
})();

/**
 * Return the text of visible characters that stand for bytes.
 *
 * @param {string} letters
 * @returns {string}
 */
export function decodeByteLevel(letters) {
  const bytes = Array.from(letters, (letter) => LETTERS.indexOf(letter)).filter((b) => b >= 0);
  return new TextDecoder().decode(Uint8Array.from(bytes));
}
