// Errors whose words a user can act on.

/** An error with a code of the page's own words, or with words of its own and a hint. */
export class Failure extends Error {
  constructor(code, { message = "", hint = "", values = {} } = {}) {
    super(message || code);
    this.code = code;
    this.words = message;
    this.hint = hint;
    this.values = values;
  }
}

// The page's own words say better what to do than those of a backend.
const OWN_WORDS = new Set(["unreachable", "busy", "timeout", "not_ready"]);
// Words of a program, which the person who made the app may need.
const WITH_DETAIL = new Set(["failed", "no_model"]);

/** Say what happened and what to do: the page's words for its codes, else those of the backend. */
export function describeFailure(error, words) {
  const code = error?.code ?? error?.kind;
  const own = `error_${code}`;
  const given = error instanceof Failure ? error.words : typeof code === "string" ? error.message : "";
  if (words.has(own) && (OWN_WORDS.has(code) || !given)) return [words.fill(own, error.values)];
  if (WITH_DETAIL.has(code)) return [words.fill(own), endSentence(given)];
  if (given) return [given, error.hint].filter(Boolean).map(endSentence);
  return [words.fill("error_unexpected", { detail: error?.message || String(error) })];
}

function endSentence(text) {
  const line = text.trim();
  const first = line.charAt(0).toLocaleUpperCase() + line.slice(1);
  return /[.!?…]$/.test(first) ? first : `${first}.`;
}
