/** Runs of a model by onnxruntime-web. */

import { EdgekitError, makeJobError, makeSampleError } from "./failures.js";
import { findBatchSize, makeInput, takeFirstRows, WHOLE } from "./feeds.js";
import { getSampleAxis } from "./sample_inputs.js";

/**
 * @typedef {import("./arrays.js").NumberArray} NumberArray
 * @typedef {import("./outputs/postprocess.js").Outputs} Outputs
 * @typedef {import("./settings.js").ModelSettings} ModelSettings
 * @typedef {import("./settings.js").Tensor} Tensor
 */

/** A loaded model: one run at a time. */
export class Model {
  /**
   * @param {any} ort onnxruntime-web.
   * @param {any} session
   * @param {ModelSettings} settings
   */
  constructor(ort, session, settings) {
    this.ort = ort;
    this.session = session;
    this.settings = settings;
    this.axes = listAxes(settings);
    this.batch = findBatchSize(this.axes, settings.inputs);
    /** @type {Promise<unknown>} */
    this.last = Promise.resolve();
  }

  /**
   * Load a model.
   *
   * @param {any} ort
   * @param {Uint8Array} bytes
   * @param {ModelSettings} settings
   * @param {object} [options] options of `ort.InferenceSession.create`.
   * @returns {Promise<Model>}
   */
  static async load(ort, bytes, settings, options = {}) {
    let session;
    try {
      session = await ort.InferenceSession.create(bytes, {
        executionProviders: ["wasm"],
        ...options,
      });
    } catch (error) {
      throw makeModelError("the model cannot be loaded", error);
    }
    const model = new Model(ort, session, settings);
    const pairs = [
      [settings.inputs, session.inputNames],
      [settings.outputs, session.outputNames],
    ];
    for (const [tensors, names] of pairs) {
      const known = tensors.map((tensor) => tensor.name).sort();
      if (known.join("\n") !== [...names].sort().join("\n")) {
        await model.close();
        throw makeJobError(
          `the model has ${[...names].join(", ")}, but settings.json ${known.join(", ")}`,
          "package the app again",
        );
      }
    }
    return model;
  }

  /**
   * Run the model on one sample.
   *
   * @param {ReadonlyMap<string, NumberArray>} rows the sample's row of each input.
   * @param {ReadonlyMap<string, NumberArray>} [states] complete inputs that are states.
   * @returns {Promise<{outputs: Outputs, states: Map<string, NumberArray>}>} the sample's part of
   *   each output, and the states of the next run.
   */
  async run(rows, states = this.makeStates()) {
    const { inputs, feeding, preprocess } = this.settings;
    const constants = new Map(feeding.constants.map(({ name, value }) => [name, value]));
    const feeds = new Map();
    for (const tensor of inputs) {
      const { name } = tensor;
      const row = rows.get(name);
      const given = states.get(name) ?? constants.get(name);
      if (!row && !given) throw makeJobError(`the sample has no values for the input ${name}`);
      const axis = this.axes.get(name) ?? 0;
      feeds.set(
        name,
        given
          ? makeInput(given, tensor, null, WHOLE, 1)
          : makeSampleInput(/** @type {NumberArray} */ (row), tensor, preprocess, axis, this.batch),
      );
    }
    const all = await this.runFeeds(feeds);
    return { outputs: takeFirstRows(all, this.batch), states: this.getNextStates(all) };
  }

  /**
   * Return the first values of all states, as complete inputs.
   *
   * @returns {Map<string, NumberArray>}
   */
  makeStates() {
    return new Map(
      this.settings.feeding.states.map(({ name, axis, initial }) => {
        const tensor = /** @type {Tensor} */ (this.findInput(name));
        return [name, makeInput(initial, tensor, null, axis, this.batch)];
      }),
    );
  }

  /**
   * Return the states of the next run from the complete outputs of this one.
   *
   * @param {Outputs} all
   * @returns {Map<string, NumberArray>}
   */
  getNextStates(all) {
    return new Map(
      this.settings.feeding.states.map(({ name, output }) => {
        const value = /** @type {NumberArray} */ (all.get(output));
        const tensor = /** @type {Tensor} */ (this.findInput(name));
        const fits = tensor.shape.every(
          (side, axis) => typeof side === "string" || side === value.shape[axis],
        );
        if (!fits || tensor.shape.length !== value.shape.length || tensor.dtype !== value.dtype) {
          throw makeJobError(
            `the output ${output} does not fit the input ${name} that it is fed to`,
          );
        }
        return [name, value];
      }),
    );
  }

  /** @param {string} name */
  findInput(name) {
    return this.settings.inputs.find((each) => each.name === name);
  }

  /**
   * Run the model on complete inputs, after the runs before it.
   *
   * @param {ReadonlyMap<string, NumberArray>} feeds
   * @returns {Promise<Outputs>}
   */
  runFeeds(feeds) {
    const run = this.last.then(() => this.runNow(feeds));
    this.last = run.catch(() => {});
    return run;
  }

  /** @param {ReadonlyMap<string, NumberArray>} feeds */
  async runNow(feeds) {
    const { Tensor } = this.ort;
    let results;
    try {
      results = await this.session.run(
        Object.fromEntries(
          [...feeds].map(([name, { dtype, data, shape }]) => [
            name,
            new Tensor(dtype, data, shape),
          ]),
        ),
      );
    } catch (error) {
      throw makeModelError("the model failed", error);
    }
    return new Map(
      this.settings.outputs.map(({ name }) => {
        const { data, dims, type } = results[name];
        return [name, { data, shape: [...dims], dtype: type }];
      }),
    );
  }

  /** Free the memory of the model. */
  async close() {
    await this.last;
    await this.session.release?.();
  }
}

/** Convert a sample's row as `makeInput`; a row that does not fit is an error of the sample. */
function makeSampleInput(row, tensor, normalization, axis, batch) {
  try {
    return makeInput(row, tensor, normalization, axis, batch);
  } catch (error) {
    throw error instanceof EdgekitError ? makeSampleError(error.message, error.hint) : error;
  }
}

/** Return the axis of the samples of each input that is fed by them, or is a state. */
function listAxes(settings) {
  const { inputs, feeding } = settings;
  const constants = new Set(feeding.constants.map(({ name }) => name));
  const states = new Map(feeding.states.map(({ name, axis }) => [name, axis]));
  return new Map(
    inputs
      .filter(({ name }) => !constants.has(name))
      .map((tensor) => [
        tensor.name,
        states.get(tensor.name) ?? getSampleAxis(tensor, settings),
      ]),
  );
}

/**
 * @param {string} what
 * @param {unknown} error
 */
function makeModelError(what, error) {
  const text = error instanceof Error ? error.message : String(error);
  return new EdgekitError("model_failed", `${what}: ${text.trim().split("\n")[0].slice(0, 300)}`);
}
