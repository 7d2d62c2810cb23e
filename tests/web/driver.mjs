// Calls functions and sessions of targets/web/edgekit. Each line on the standard input is a JSON
// document, and each line on the standard output its result.
//
// A call is {"module": NAME, "function": NAME, "calls": [[argument, ...], ...]}, with one result or
// error for each list of arguments. A session is {"runtime": FILE, "settings", "model" (base64),
// "golden", "samples", "blocks"}, with one result or error for the check, for each sample, and for
// each block of a stream; "vocabulary" is tokenizer.json. A tokenizer is {"tokenizer": text,
// "texts": [[text, second text, most tokens], ...], "numbers"}, with the tokens of each text and the
// text of each number.

import { createInterface } from "node:readline";
import { Session } from "../../targets/web/edgekit/session.js";
import { Tokenizer } from "../../targets/web/edgekit/texts/tokenizer.js";
import { decode, encode, toResult } from "./values.mjs";

async function callFunction({ module, function: name, calls }) {
  const functions = await import(`../../targets/web/edgekit/${module}.js`);
  const results = [];
  for (const given of calls) {
    results.push(await toResult(async () => encode(await functions[name](...given.map(decode)))));
  }
  return results;
}

async function runSession({ runtime, settings, model, golden, samples, blocks, vocabulary }) {
  const ort = await import(runtime);
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "fatal";
  const found = { loaded: null, health: null, predictions: [], answers: [] };
  found.loaded = await toResult(async () => {
    const session = await Session.load({
      settings,
      model: Buffer.from(model, "base64"),
      tokenizer: vocabulary ?? undefined,
      golden: golden?.constants ? golden : undefined,
      ort,
    });
    if (golden) found.health = await toResult(() => session.check(golden));
    for (const sample of samples) {
      const predict = async () => encode(await session.predict(decode(sample)));
      found.predictions.push(await toResult(predict));
    }
    const stream = session.stream();
    // All at once: each block waits for the one before it.
    const predict = async (block) => encode(await stream.predict(decode(block)));
    found.answers = await Promise.all(blocks.map((block) => toResult(() => predict(block))));
    await session.close();
    return { inputKind: session.inputKind };
  });
  return found;
}

async function runTokenizer({ tokenizer, texts, numbers }) {
  const read = Tokenizer.read(tokenizer);
  return {
    tokens: texts.map(([text, pair, most]) => read.encode(text, pair, most ?? undefined)),
    decoded: numbers.map((number) => read.decode(number)),
  };
}

async function answer(document) {
  if ("runtime" in document) return runSession(document);
  if ("tokenizer" in document) return toResult(() => runTokenizer(document));
  return callFunction(document);
}

for await (const line of createInterface({ input: process.stdin })) {
  const document = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(await answer(document))}\n`);
}
