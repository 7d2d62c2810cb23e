/** Backend of a page that runs its models in the browser. */

import * as ort from "./runtime/ort.wasm.min.mjs";
import { Session } from "./edgekit/session.js";
import { installWorker } from "./offline.js";

/** Where the models run, for the words of the page. */
export const place = "browser";

const state = { config: null, sessions: null, answer: null, isOffline: false };
const check = { state: "unknown", error: null, limit: null, detail: "" };

/**
 * Install the app for use without a network, and load its models.
 *
 * @param {(done: number, total: number) => void} [onProgress] called with bytes.
 */
export async function load(onProgress = () => {}) {
  state.config ??= await readJson("config.json");
  state.isOffline = await installWorker(state.config.worker, onProgress);
  const { models, entry } = state.config;
  const settings = await Promise.all(models.map(({ folder }) => readJson(`${folder}/settings.json`)));
  prepareRuntime(Math.max(...settings.map(({ threads }) => threads ?? 1)));
  const total = models.reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  const sessions = {};
  for (const [number, { name, folder, file }] of models.entries()) {
    const model = await readBytes(`${folder}/${file}`, (bytes) => onProgress((done += bytes), total));
    const parts = await readParts(folder, settings[number]);
    const given = { settings: settings[number], model, ...parts };
    sessions[name] = await Session.load({ ...given, ort, report: pause });
  }
  if (entry) state.answer = (await import(resolve(entry))).answer;
  state.sessions = sessions;
  setTimeout(runCheck);
}

/**
 * Answer one sample.
 *
 * @param {any} sample an image or sound as a Blob, a row as an object, or a text.
 * @param {{signal?: AbortSignal}} [options]
 */
export async function predict(sample, { signal } = {}) {
  const { sessions, answer, config } = state;
  const result = answer
    ? await answer(sessions, sample)
    : await sessions[config.models[0].name].predict(sample);
  signal?.throwIfAborted();
  return result;
}

/** Return the state of the app and of its self-check. */
export async function health() {
  const { config, sessions, isOffline } = state;
  return {
    name: config?.name,
    version: config?.version,
    ready: sessions !== null,
    offline: isOffline,
    threads: ort.env.wasm.numThreads,
    check: { ...check },
  };
}

/** Read the tokenizer of a model of texts, and constants that are too large for the settings. */
async function readParts(folder, { text, feeding }) {
  const isLeftOut = feeding?.constants?.some(({ value }) => !value.data && !value.shape.includes(0));
  return {
    tokenizer: text ? await readJson(`${folder}/${text.tokenizer}`) : undefined,
    golden: isLeftOut ? await readJson(`${folder}/golden.json`) : undefined,
  };
}

/** Set up onnxruntime-web: only files of this app, and threads where the browser allows them. */
function prepareRuntime(threads) {
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = resolve("runtime/");
  const most = Math.min(threads, navigator.hardwareConcurrency || 1);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? most : 1;
}

/** Compare each model with its golden samples; the largest error counts. */
async function runCheck() {
  check.state = "running";
  try {
    for (const { name, folder } of state.config.models) {
      const session = state.sessions[name];
      const found = await session.check(await readJson(`${folder}/golden.json`));
      if (check.error === null || found.error > check.error) {
        check.error = found.error;
        check.limit = session.settings.maxRelativeError;
        check.detail = found.detail;
      }
      if (!found.healthy) check.state = "different";
    }
    if (check.state === "running") check.state = "same";
  } catch (error) {
    check.state = "different";
    check.detail = error.message;
  }
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve));
}

function resolve(path) {
  return new URL(path, document.baseURI).href;
}

async function readJson(path) {
  return (await fetchFile(path)).json();
}

async function fetchFile(path) {
  const response = await fetch(resolve(path));
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}

/** Read a file; `onBytes` is called with the number of bytes of each part. */
async function readBytes(path, onBytes) {
  const response = await fetchFile(path);
  const parts = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    size += value.length;
    onBytes(value.length);
  }
  const bytes = new Uint8Array(size);
  parts.reduce((offset, part) => (bytes.set(part, offset), offset + part.length), 0);
  return bytes;
}
