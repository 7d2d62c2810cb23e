/** Tokenizers in the format of Hugging Face, tokenizer.json: texts as numbers of tokens. */

import { makeJobError } from "../failures.js";
import { makeTokenModel } from "./token_models.js";
import { makeNormalizer, makeUnsupportedError, stripSpaces } from "./token_normalizers.js";
import { decodeByteLevel, makeSplit } from "./token_splits.js";
import { fillTemplate, readTemplates } from "./token_templates.js";

/**
 * @typedef {import("./token_templates.js").Tokens} Tokens
 *
 * A token that is found in texts as it is.
 * @typedef {{id: number, content: string, lstrip: boolean, rstrip: boolean, special: boolean,
 *   normalized: boolean, single_word: boolean}} AddedToken
 *
 * A part of a text, or a token in it.
 * @typedef {string | AddedToken} Piece
 */

const MOST_CHARACTERS = 1 << 26;

/** A tokenizer. */
export class Tokenizer {
  /** @param {any} settings the values of tokenizer.json. */
  constructor(settings) {
    this.normalize = makeNormalizer(settings.normalizer);
    this.split = makeSplit(settings.pre_tokenizer);
    this.model = makeTokenModel(settings.model);
    this.templates = readTemplates(settings.post_processor);
    this.isByteLevel = JSON.stringify(settings.decoder ?? "").includes('"ByteLevel"');
    /** @type {AddedToken[]} */
    this.added = settings.added_tokens ?? [];
    if (this.added.some((token) => token.single_word)) throw makeUnsupportedError("single_word");
    this.texts = new Map([...this.model.vocabulary].map(([text, number]) => [number, text]));
    for (const { id, content } of this.added) this.texts.set(id, content);
  }

  /**
   * Read a tokenizer.
   *
   * @param {unknown} given tokenizer.json, as text or as values.
   * @returns {Tokenizer}
   */
  static read(given) {
    try {
      if (typeof given !== "string") return new Tokenizer(given);
      if (given.length > MOST_CHARACTERS) throw makeUnsupportedError("its size");
      return new Tokenizer(JSON.parse(given));
    } catch (error) {
      if (error instanceof TypeError || error instanceof SyntaxError) {
        throw makeJobError("tokenizer.json cannot be read", "package the app again");
      }
      throw error;
    }
  }

  /**
   * Return the tokens of a text, and of a second one if there is one.
   *
   * @param {string} text
   * @param {string|null} [pair]
   * @param {number} [most] largest number of tokens.
   * @returns {Tokens}
   */
  encode(text, pair = null, most = Infinity) {
    const texts = pair === null ? [text] : [text, pair];
    return fillTemplate(
      this.templates,
      texts.map((each) => this.encodeText(each)),
      most,
    );
  }

  /**
   * Return the text of a token.
   *
   * @param {number} number
   * @returns {string}
   */
  decode(number) {
    if (this.added.some(({ id, special }) => special && id === number)) return "";
    const text = this.texts.get(number) ?? "";
    if (this.added.some(({ id }) => id === number)) return text;
    return this.isByteLevel ? decodeByteLevel(text) : text;
  }

  /** @param {string} text @returns {number[]} */
  encodeText(text) {
    const raw = this.added.filter((token) => !token.normalized);
    const others = this.added.filter((token) => token.normalized);
    const pieces = splitAtTokens(text, raw).flatMap((piece) =>
      typeof piece === "string"
        ? splitAtTokens(this.normalize(piece), others, this.normalize)
        : [piece],
    );
    return pieces.flatMap((piece, place) =>
      typeof piece === "string"
        ? this.split([piece], place === 0).flatMap(this.model.encode)
        : [piece.id],
    );
  }
}

/**
 * Split a text where it has tokens; the first one, and of these the longest one, is taken.
 *
 * @param {string} text
 * @param {readonly AddedToken[]} tokens
 * @param {(text: string) => string} [normalize] applied to the tokens.
 * @returns {Piece[]}
 */
function splitAtTokens(text, tokens, normalize = (content) => content) {
  const known = tokens
    .map((token) => ({ token, content: normalize(token.content) }))
    .filter(({ content }) => content);
  const pieces = [];
  let start = 0;
  for (;;) {
    const next = findToken(text, start, known);
    if (!next) break;
    const before = text.slice(start, next.at);
    pieces.push(next.token.lstrip ? stripSpaces(before, false, true) : before, next.token);
    start = next.at + next.length;
    if (next.token.rstrip) start = text.length - stripSpaces(text.slice(start), true, false).length;
  }
  return [...pieces, text.slice(start)].filter((piece) => piece !== "");
}

/** Find the first token from a place on. */
function findToken(text, start, known) {
  let best = null;
  for (const { token, content } of known) {
    const at = text.indexOf(content, start);
    if (at < 0) continue;
    const isBetter = !best || at < best.at || (at === best.at && content.length > best.length);
    if (isBetter) best = { at, length: content.length, token };
  }
  return best;
}
