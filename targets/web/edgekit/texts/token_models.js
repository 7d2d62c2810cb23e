/** Models that turn words into tokens: WordPiece, byte pair encoding (BPE), and whole words. */

import { makeSampleError } from "../failures.js";
import { makeUnsupportedError } from "./token_normalizers.js";

/**
 * A model: the numbers of tokens of a word, and all tokens.
 * @typedef {{encode: (word: string) => number[], vocabulary: Map<string, number>}} TokenModel
 */

const MOST_WORD = 4096;
const MOST_CACHED = 10_000;

/** Makers of models by type. @type {Record<string, (settings: any) => TokenModel>} */
const MODELS = { WordPiece: makeWordPiece, BPE: makePairs, WordLevel: makeWordLevel };

/**
 * Make the model of a tokenizer.
 *
 * @param {any} settings its part of tokenizer.json.
 * @returns {TokenModel}
 */
export function makeTokenModel(settings) {
  const type = settings?.type ?? (settings?.merges ? "BPE" : undefined);
  if (!Object.hasOwn(MODELS, type)) throw makeUnsupportedError(`the model ${type}`);
  const { encode, vocabulary } = MODELS[type](settings);
  const known = new Map();
  return {
    vocabulary,
    encode: (word) => {
      if (known.has(word)) return known.get(word);
      if (word.length > MOST_WORD) throw makeSampleError("the text has a word that is too long");
      const numbers = encode(word);
      if (known.size < MOST_CACHED) known.set(word, numbers);
      return numbers;
    },
  };
}

function readVocabulary({ vocab }) {
  const vocabulary = new Map(Object.entries(vocab ?? {}));
  if (![...vocabulary.values()].every((number) => Number.isInteger(number) && number >= 0)) {
    throw makeUnsupportedError("its vocabulary");
  }
  return vocabulary;
}

function makeWordLevel(settings) {
  const vocabulary = readVocabulary(settings);
  const unknown = vocabulary.get(settings.unk_token);
  return {
    vocabulary,
    encode: (word) => [vocabulary.get(word) ?? unknown].filter((number) => number !== undefined),
  };
}

/** Take the longest token that a word begins with, and go on behind it. */
function makeWordPiece(settings) {
  const vocabulary = readVocabulary(settings);
  const prefix = settings.continuing_subword_prefix ?? "##";
  const most = settings.max_input_chars_per_word ?? 100;
  const unknown = vocabulary.get(settings.unk_token);
  const unknowns = unknown === undefined ? [] : [unknown];
  const encode = (word) => {
    const letters = [...word];
    if (letters.length > most) return unknowns;
    const numbers = [];
    for (let start = 0; start < letters.length;) {
      let end = letters.length;
      let number;
      for (; end > start; end--) {
        const part = letters.slice(start, end).join("");
        number = vocabulary.get(start ? prefix + part : part);
        if (number !== undefined) break;
      }
      if (number === undefined) return unknowns;
      numbers.push(number);
      start = end;
    }
    return numbers;
  };
  return { vocabulary, encode };
}

/** Join neighbors, the most frequent pair first. */
function makePairs(settings) {
  const vocabulary = readVocabulary(settings);
  const ranks = new Map();
  (settings.merges ?? []).forEach((merge, rank) => {
    const [left, right] = Array.isArray(merge) ? merge : merge.split(" ");
    ranks.set(`${left} ${right}`, rank);
  });
  const prefix = settings.continuing_subword_prefix ?? "";
  const suffix = settings.end_of_word_suffix ?? "";
  const toNumbers = makeLookup(settings, vocabulary);
  const encode = (word) => {
    if (settings.ignore_merges && vocabulary.has(word)) return [vocabulary.get(word)];
    const letters = [...word];
    const parts = letters.map(
      (letter, k) => (k ? prefix : "") + letter + (k === letters.length - 1 ? suffix : ""),
    );
    return toNumbers(joinPairs(parts, ranks, prefix));
  };
  return { vocabulary, encode };
}

/** Join the pair with the lowest rank until there is none. */
function joinPairs(parts, ranks, prefix) {
  for (;;) {
    let best = Infinity;
    let place = -1;
    for (let k = 0; k + 1 < parts.length; k++) {
      const rank = ranks.get(`${parts[k]} ${parts[k + 1]}`) ?? Infinity;
      if (rank < best) [best, place] = [rank, k];
    }
    if (place < 0) return parts;
    parts.splice(place, 2, parts[place] + parts[place + 1].slice(prefix.length));
  }
}

/** Return the function from parts of a word to numbers; unknown ones become bytes, or unknown. */
function makeLookup(settings, vocabulary) {
  const unknown = vocabulary.get(settings.unk_token);
  const toBytes = (part) => {
    const names = Array.from(
      new TextEncoder().encode(part),
      (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
    );
    return names.every((name) => vocabulary.has(name)) ? names : null;
  };
  return (parts) => {
    const numbers = [];
    let wasUnknown = false;
    for (const part of parts) {
      const number = vocabulary.get(part);
      const bytes = number === undefined && settings.byte_fallback ? toBytes(part) : null;
      if (number !== undefined) numbers.push(number);
      else if (bytes) numbers.push(...bytes.map((name) => vocabulary.get(name)));
      else if (unknown !== undefined && !(wasUnknown && settings.fuse_unk)) numbers.push(unknown);
      wasUnknown = number === undefined && !bytes;
    }
    return numbers;
  };
}
