/** Special tokens around texts, as in the post-processor of a tokenizer.json. */

import { makeUnsupportedError } from "./token_normalizers.js";

/**
 * Tokens: their numbers, and for each the number of its text, 0 or 1.
 * @typedef {{numbers: number[], types: number[]}} Tokens
 *
 * A part of a template: a text (0 or 1), or special tokens.
 * @typedef {{text: number, type: number} | {numbers: number[], type: number}} Part
 *
 * Templates of one text, and of two.
 * @typedef {{single: Part[], pair: Part[]}} Templates
 */

const PLAIN = {
  single: [{ text: 0, type: 0 }],
  pair: [
    { text: 0, type: 0 },
    { text: 1, type: 1 },
  ],
};

/**
 * Read the templates of a tokenizer.
 *
 * @param {any} settings its part of tokenizer.json; null for none.
 * @returns {Templates}
 */
export function readTemplates(settings) {
  if (!settings || settings.type === "ByteLevel") return PLAIN;
  if (settings.type === "BertProcessing" || settings.type === "RobertaProcessing") {
    return surround(settings, settings.type === "RobertaProcessing");
  }
  if (settings.type === "TemplateProcessing") {
    const read = (parts) => parts.map((part) => readPart(part, settings.special_tokens));
    return { single: read(settings.single), pair: read(settings.pair) };
  }
  if (settings.type === "Sequence") {
    const found = settings.processors.map(readTemplates).filter((each) => each !== PLAIN);
    if (found.length <= 1) return found[0] ?? PLAIN;
  }
  throw makeUnsupportedError(`the post-processor ${settings.type}`);
}

/** Put the first special token before, and the last behind the texts and between them. */
function surround({ sep, cls }, isRoberta) {
  const [first, last] = [cls[1], sep[1]];
  const second = isRoberta ? 0 : 1;
  const single = [
    { numbers: [first], type: 0 },
    { text: 0, type: 0 },
    { numbers: [last], type: 0 },
  ];
  const between = isRoberta ? [{ numbers: [last], type: 0 }] : [];
  const rest = [
    { text: 1, type: second },
    { numbers: [last], type: second },
  ];
  return { single, pair: [...single, ...between, ...rest] };
}

function readPart({ SpecialToken: special, Sequence: sequence }, tokens) {
  if (sequence) return { text: sequence.id === "A" ? 0 : 1, type: sequence.type_id };
  return { numbers: tokens[special.id].ids, type: special.type_id };
}

/**
 * Put texts into their template, cut at their ends so that all tokens are at most `most`.
 *
 * @param {Templates} templates
 * @param {number[][]} texts numbers of the tokens of one text, or of two.
 * @param {number} most
 * @returns {Tokens}
 */
export function fillTemplate(templates, texts, most) {
  const parts = texts.length > 1 ? templates.pair : templates.single;
  const special = parts.reduce(
    (count, part) => count + ("numbers" in part ? part.numbers.length : 0),
    0,
  );
  const cut = cutTexts(texts, Math.max(0, most - special));
  /** @type {Tokens} */
  const tokens = { numbers: [], types: [] };
  for (const part of parts) {
    const numbers = "numbers" in part ? part.numbers : cut[part.text];
    for (const number of numbers) {
      tokens.numbers.push(number);
      tokens.types.push(part.type);
    }
  }
  return tokens;
}

/** Cut the longer text first. */
function cutTexts(texts, most) {
  if (texts.length < 2) return texts.map((text) => text.slice(0, most));
  let [first, second] = texts.map((text) => text.length);
  if (first + second <= most) return texts;
  const isSwapped = first > second;
  if (isSwapped) [first, second] = [second, first];
  second = first > most ? first : Math.max(first, most - first);
  if (first + second > most) {
    first = Math.floor(most / 2);
    second = first + (most % 2);
  }
  if (isSwapped) [first, second] = [second, first];
  return [texts[0].slice(0, first), texts[1].slice(0, second)];
}
