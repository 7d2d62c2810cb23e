/** Errors that the user can read. */

/** An expected failure: what happened, where, and what to do. */
export class EdgekitError extends Error {
  /**
   * @param {string} kind one or two lower-case words; programs tell failures apart by it.
   * @param {string} message the problem and its place, in one line.
   * @param {string} [hint] a way to solve it; empty when there is nothing to add.
   */
  constructor(kind, message, hint = "") {
    super(message);
    this.name = "EdgekitError";
    this.kind = kind;
    this.hint = hint;
  }
}

/**
 * Build the error of a wrong file of the app: settings, golden samples or model.
 *
 * @param {string} message
 * @param {string} [hint]
 * @returns {EdgekitError}
 */
export function makeJobError(message, hint) {
  return new EdgekitError("bad_job", message, hint);
}

/**
 * Build the error of a sample that the model cannot take.
 *
 * @param {string} message
 * @param {string} [hint]
 * @returns {EdgekitError}
 */
export function makeSampleError(message, hint) {
  return new EdgekitError("bad_sample", message, hint);
}
