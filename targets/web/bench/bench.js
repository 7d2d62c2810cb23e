/** Page of `edgekit bench BUNDLE web`: runs the commands of the host on one model. */

import * as ort from "./runtime/ort.wasm.min.mjs";
import { decodeMessage, encodeMessage, TYPES } from "./messages.js";

// Two windows of runs in a row that differ by less than this end the warm-up.
const STEADY = 0.05;
const WINDOW_RUNS = 5;
const WINDOW_MS = 50;
// A window of a slow model ends here even with fewer runs, so that two fit in the warm-up.
const WINDOW_SHARE = 0.25;

let session = null;

/** Load the model with a number of threads; return its inputs and outputs and the time it took. */
async function load({ facts }) {
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? facts.threads : 1;
  const bytes = new Uint8Array(await (await fetch("model.onnx")).arrayBuffer());
  const start = performance.now();
  session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  return {
    facts: {
      load_ms: performance.now() - start,
      threads: ort.env.wasm.numThreads,
      inputs: session.inputMetadata.map(describeTensor),
      outputs: session.outputMetadata.map(describeTensor),
    },
  };
}

function describeTensor(metadata) {
  if (!metadata.isTensor || !TYPES.includes(metadata.type)) {
    throw new Error(`${metadata.name}: inputs and outputs of this type are not supported`);
  }
  const shape = metadata.shape.map((size) => (size === "" || size < 0 ? "?" : size));
  return { name: metadata.name, dtype: metadata.type, shape };
}

/** Run one inference. */
async function run({ arrays }) {
  const outputs = await session.run(makeFeeds(arrays, ""));
  return {
    facts: {},
    arrays: Object.entries(outputs).map(([name, tensor]) => ({
      name, dtype: tensor.type, shape: tensor.dims, data: tensor.data,
    })),
  };
}

/** Time single inferences on several inputs in turn. */
async function time({ facts, arrays }) {
  const inputs = Array.from({ length: facts.inputs }, (_, i) => makeFeeds(arrays, `${i}:`));
  let runs = 0;
  const runOnce = async () => {
    const feeds = inputs[runs % inputs.length];
    runs += 1;
    const start = performance.now();
    await session.run(feeds);
    return performance.now() - start;
  };
  const steady = await warmUp(runOnce, facts.warmup_s * 1000);
  const warmupRuns = runs;
  const values = [];
  const begun = performance.now();
  while (values.length < facts.max_runs) {
    if (values.length >= facts.min_runs && performance.now() - begun >= facts.seconds * 1000) break;
    values.push(await runOnce());
  }
  return { facts: { values_ms: values, warmup_runs: warmupRuns, steady } };
}

/** Run until the medians of two windows in a row agree, or the time is over. */
async function warmUp(runOnce, limitMs) {
  const start = performance.now();
  let last = null;
  for (;;) {
    const window = [];
    const begun = performance.now();
    do window.push(await runOnce());
    while (!isWindowFull(window.length, performance.now() - begun, limitMs));
    const median = window.toSorted((a, b) => a - b)[window.length >> 1];
    if (last !== null && Math.abs(median - last) < STEADY * last) return true;
    if (performance.now() - start >= limitMs) return false;
    last = median;
  }
}

function isWindowFull(runs, elapsedMs, limitMs) {
  return elapsedMs >= WINDOW_SHARE * limitMs || (runs >= WINDOW_RUNS && elapsedMs >= WINDOW_MS);
}

function makeFeeds(arrays, prefix) {
  const feeds = {};
  for (const { name, dtype, shape, data } of arrays) {
    if (name.startsWith(prefix)) {
      feeds[name.slice(prefix.length)] = new ort.Tensor(dtype, data, shape);
    }
  }
  return feeds;
}

const COMMANDS = { load, run, time };

/** Answer the commands of the host until the page is closed. */
async function answerCommands() {
  let answer = encodeMessage({
    facts: {
      agent: navigator.userAgent,
      cores: navigator.hardwareConcurrency,
      isolated: self.crossOriginIsolated,
    },
  });
  for (;;) {
    const response = await fetch("exchange", { method: "POST", body: answer });
    const command = decodeMessage(await response.arrayBuffer());
    if (command.facts.command === "wait") {
      answer = new Uint8Array();
      continue;
    }
    try {
      answer = encodeMessage(await COMMANDS[command.facts.command](command));
    } catch (error) {
      answer = encodeMessage({ facts: { error: String(error?.message ?? error) } });
    }
  }
}

answerCommands();
