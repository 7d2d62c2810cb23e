/** A model that is ready for samples: it prepares them, runs the model, and returns answers. */

import { choosePositions, makeAnswer } from "./answers.js";
import { makeJobError } from "./failures.js";
import { readGoldenSamples } from "./golden_samples.js";
import { checkHealth } from "./health.js";
import { Model } from "./model_runs.js";
import { getInputKind, prepareSample } from "./samples.js";
import { getLabel, readSettings } from "./settings.js";
import { checkDigest, expandModel, isPacked } from "./unpack.js";

/**
 * @typedef {import("./settings.js").ModelSettings} ModelSettings
 * @typedef {import("./answers.js").Answer & {ms: number, timings: Timings}} Prediction
 *
 * Milliseconds of each step.
 * @typedef {{preprocess: number, run: number, postprocess: number}} Timings
 */

/** A model with its settings. */
export class Session {
  /**
   * @param {Model} model
   * @param {ModelSettings} settings
   */
  constructor(model, settings) {
    this.model = model;
    this.settings = settings;
  }

  /**
   * Load a model, which may be packed.
   *
   * @param {object} files
   * @param {unknown} files.settings settings.json, as text or as values.
   * @param {Uint8Array|ArrayBuffer} files.model
   * @param {any} files.ort onnxruntime-web.
   * @param {object} [files.options] options of `ort.InferenceSession.create`.
   * @param {import("./unpack.js").Report} [files.report] called while the model is expanded.
   * @returns {Promise<Session>}
   */
  static async load({ settings: given, model, ort, options, report }) {
    const settings = readSettings(given);
    let bytes = model instanceof ArrayBuffer ? new Uint8Array(model) : model;
    if (!(bytes instanceof Uint8Array) || !bytes.length) throw makeJobError("the model is empty");
    if (isPacked(bytes)) {
      bytes = await expandModel(bytes, { digest: settings.digest }, report);
    } else if (globalThis.crypto?.subtle) {
      await checkDigest(bytes, settings.digest);
    }
    return new Session(await Model.load(ort, bytes, settings, options), settings);
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
    const { runs, letterbox } = await prepareSample(sample, this.settings);
    const prepared = performance.now();
    const found = [];
    let states = this.model.makeStates();
    for (const rows of runs) {
      const { outputs, all } = await this.model.run(rows, states);
      states = this.model.nextStates(all);
      found.push(outputs);
    }
    const ran = performance.now();
    const answer =
      this.settings.answer.kind === "decisions"
        ? this.decide(found)
        : makeAnswer(found[found.length - 1], this.settings, letterbox);
    const ended = performance.now();
    const timings = {
      preprocess: prepared - started,
      run: ran - prepared,
      postprocess: ended - ran,
    };
    return { ...answer, ms: ended - started, timings };
  }

  /** Return decisions over time from the outputs of all steps. */
  decide(found) {
    const { audio, answer } = this.settings;
    const decisions = [];
    found.forEach((outputs, step) => {
      const output = outputs.get(answer.output) ?? [...outputs.values()][0];
      const { classes, confidences } = choosePositions(output, this.settings);
      const length = audio ? (audio.step ?? audio.samples ?? 0) / audio.rate : 0;
      const each = length / classes.data.length;
      classes.data.forEach((index, place) => {
        const from = step * length + place * each;
        decisions.push({
          from_s: from,
          to_s: from + each,
          label: getLabel(this.settings, index),
          confidence: confidences[place],
        });
      });
    });
    return { kind: "decisions", result: decisions, confidence: null };
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
