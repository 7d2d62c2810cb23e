/** Texts as rows of a model's inputs. */

import { makeSampleError } from "../failures.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("../settings.js").TextSettings} TextSettings
 * @typedef {import("./tokenizer.js").Tokenizer} Tokenizer
 */

const MOST_TEXT = 1 << 20;

/** Values of an input for the tokens of a text. */
const ROLES = {
  input_ids: ({ numbers }) => numbers,
  attention_mask: ({ numbers }) => numbers.map(() => 1),
  token_type_ids: ({ types }) => types,
  position_ids: ({ numbers }) => numbers.map((_, place) => place),
};

/**
 * Convert a text to the row of each input.
 *
 * @param {any} sample the text, or `{text, text_pair}`.
 * @param {TextSettings} how
 * @param {Tokenizer} tokenizer
 * @returns {{rows: Map<string, NumberArray>, count: number}} the rows, and the number of tokens.
 */
export function convertText(sample, how, tokenizer) {
  const { text, text_pair: pair = null } =
    typeof sample === "string" ? { text: sample } : (sample ?? {});
  if (typeof text !== "string" || (pair !== null && typeof pair !== "string")) {
    throw makeSampleError("this is not a text");
  }
  if (text.length + (pair?.length ?? 0) > MOST_TEXT) {
    throw makeSampleError(`the text has more than ${MOST_TEXT} characters`);
  }
  const tokens = tokenizer.encode(text, pair, how.length ?? Infinity);
  const count = tokens.numbers.length;
  if (!count && !how.length) throw makeSampleError("the text is empty", "write at least one word");
  const size = how.length ?? count;
  const rows = new Map();
  for (const [name, role] of how.roles ?? []) {
    const data = new Float64Array(size).fill(role === "input_ids" ? how.padId : 0);
    data.set(ROLES[role](tokens));
    rows.set(name, { data, shape: [size], dtype: "float64" });
  }
  return { rows, count };
}
