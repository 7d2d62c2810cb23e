/** A model that is ready for samples: it prepares them, runs the model, and returns answers. */

import { cutWindows } from "./audio/audio.js";
import { makeAnswer } from "./outputs/answers.js";
import { makeJobError } from "./failures.js";
import { addConstants, readGoldenSamples } from "./golden_samples.js";
import { checkHealth } from "./health.js";
import { Model } from "./model_runs.js";
import { getInputKind } from "./sample_inputs.js";
import { prepareSample, prepareWindows, readSound } from "./samples.js";
import { readSettings } from "./settings.js";
import { Tokenizer } from "./texts/tokenizer.js";
import { checkDigest, expandModel, isPacked } from "./packing/unpack.js";

/**
 * @typedef {import("./settings.js").ModelSettings} ModelSettings
 * @typedef {import("./samples.js").PreparedSample} PreparedSample
 * @typedef {Map<string, import("./arrays.js").NumberArray>} States
 * @typedef {import("./outputs/answers.js").Answer & {ms: number, timings: Timings}} Prediction
 *
 * Milliseconds of each step.
 * @typedef {{preprocess: number, run: number, postprocess: number}} Timings
 */

/** A model with its settings. */
export class Session {
  /**
   * @param {Model} model
   * @param {ModelSettings} settings
   * @param {Tokenizer|null} tokenizer
   */
  constructor(model, settings, tokenizer) {
    this.model = model;
    this.settings = settings;
    this.tokenizer = tokenizer;
  }

  /**
   * Load a model, which may be packed.
   *
   * @param {object} files
   * @param {unknown} files.settings settings.json, as text or as values.
   * @param {Uint8Array|ArrayBuffer} files.model
   * @param {unknown} [files.golden] golden.json, which holds constants that are too large for the
   *   settings.
   * @param {unknown} [files.tokenizer] tokenizer.json of a model of texts, as text or as values.
   * @param {any} files.ort onnxruntime-web.
   * @param {object} [files.options] options of `ort.InferenceSession.create`.
   * @param {import("./packing/unpack.js").Report} [files.report] called while it is expanded.
   * @returns {Promise<Session>}
   */
  static async load({ settings: given, model, golden, tokenizer, ort, options, report }) {
    const settings = readSettings(given);
    if (golden) addConstants(settings, readGoldenSamples(golden, settings));
    const reader = settings.text && tokenizer ? Tokenizer.read(tokenizer) : null;
    if (settings.text && !reader) {
      throw makeJobError("the model takes texts, and there is no tokenizer.json");
    }
    let bytes = model instanceof ArrayBuffer ? new Uint8Array(model) : model;
    if (!(bytes instanceof Uint8Array) || !bytes.length) throw makeJobError("the model is empty");
    if (isPacked(bytes)) {
      bytes = await expandModel(bytes, { digest: settings.digest }, report);
    } else if (globalThis.crypto?.subtle) {
      await checkDigest(bytes, settings.digest);
    }
    return new Session(await Model.load(ort, bytes, settings, options), settings, reader);
  }

  /**
   * Return what a sample is.
   *
   * @returns {"text"|"audio"|"image"|"row"}
   */
  get inputKind() {
    return getInputKind(this.settings);
  }

  /**
   * Answer a sample.
   *
   * @param {any} sample see `prepareSample`.
   * @returns {Promise<Prediction>}
   */
  async predict(sample) {
    const started = performance.now();
    const prepared = await prepareSample(sample, this.settings, this.tokenizer);
    const { prediction } = await this.answer(prepared, started, this.model.makeStates(), 0);
    return prediction;
  }

  /**
   * Begin a stream, whose states are carried from one sample to the next.
   *
   * @returns {Stream}
   */
  stream() {
    return new Stream(this);
  }

  /**
   * Run the model on a prepared sample.
   *
   * @param {PreparedSample} prepared
   * @param {number} started time at which the work on the sample began.
   * @param {States} states states before the sample.
   * @param {number} beginS time at which the sample begins in its stream, in seconds.
   * @returns {Promise<{prediction: Prediction, states: States}>}
   */
  async answer(prepared, started, states, beginS) {
    const ready = performance.now();
    const steps = [];
    let current = states;
    for (const rows of prepared.runs) {
      const found = await this.model.run(rows, current);
      current = found.states;
      steps.push(found.outputs);
    }
    const ran = performance.now();
    const answer = this.describe(steps, prepared, beginS);
    const ended = performance.now();
    const timings = { preprocess: ready - started, run: ran - ready, postprocess: ended - ran };
    return { prediction: { ...answer, ms: ended - started, timings }, states: current };
  }

  /** Return the answer; the names of tokens are their texts. */
  describe(steps, prepared, beginS) {
    const answer = makeAnswer(steps, prepared, this.settings, beginS);
    if (!this.settings.text?.nextTokens || answer.kind !== "class") return answer;
    for (const each of answer.classes)
      each.label = this.tokenizer?.decode(each.index) ?? each.label;
    return { ...answer, result: answer.classes[0].label };
  }

  /**
   * Check whether this browser computes as the machine did where the model was built.
   *
   * @param {unknown} golden golden.json, as text or as values.
   * @param {number} [limit] largest relative error; that of the settings unless given.
   * @returns {Promise<import("./health.js").Health>}
   */
  async check(golden, limit = this.settings.maxRelativeError) {
    return checkHealth(this.model, readGoldenSamples(golden, this.settings), limit);
  }

  /** Free the memory of the model. */
  async close() {
    await this.model.close();
  }
}

/** A sequence of samples of a model with states, such as the blocks of a microphone. */
export class Stream {
  /** @param {Session} session */
  constructor(session) {
    this.session = session;
    /** @type {States} */
    this.states = session.model.makeStates();
    this.seconds = 0;
    const { audio } = session.settings;
    /** Values that no step has taken yet, after the last ones of the step before. */
    this.held = new Float32Array(audio?.step ? (audio.samples ?? audio.step) - audio.step : 0);
    /** @type {Promise<unknown>} */
    this.last = Promise.resolve();
  }

  /**
   * Answer the next sample, after those before it.
   *
   * A sound may have any length: what is left of it after the last whole step is kept for the next
   * one. An answer of a block without a whole step has no decisions.
   *
   * @param {any} sample as `Session.predict`.
   * @returns {Promise<Prediction>}
   */
  predict(sample) {
    const answer = this.last.then(() => this.predictNow(sample));
    this.last = answer.catch(() => {});
    return answer;
  }

  /** @param {any} sample */
  async predictNow(sample) {
    const started = performance.now();
    const { settings } = this.session;
    const { audio } = settings;
    let prepared;
    let seconds = 0;
    if (audio?.step) {
      const windows = this.takeWindows(await readSound(sample, settings), audio);
      prepared = prepareWindows(windows, settings);
      seconds = (windows.length * audio.step) / audio.rate;
    } else {
      prepared = await prepareSample(sample, settings, this.session.tokenizer);
    }
    const found = await this.session.answer(prepared, started, this.states, this.seconds);
    this.states = found.states;
    this.seconds += seconds;
    return found.prediction;
  }

  /** Add values; return the window of each step that is complete. */
  takeWindows(wave, { step, samples }) {
    const values = new Float32Array(this.held.length + wave.length);
    values.set(this.held);
    values.set(wave, this.held.length);
    const windows = cutWindows(values, samples ?? step, step);
    this.held = values.slice(windows.length * step);
    return windows;
  }
}
