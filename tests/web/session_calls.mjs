// Loads a session with onnxruntime-web, checks golden samples and predicts samples.
//
// The document on the standard input is {"runtime": FILE, "settings", "model" (base64), "golden",
// "samples"}; one result or error is written for the check and for each sample.

import { decode, encode, readInput, toResult } from "./values.mjs";
import { Session } from "../../targets/web/edgekit/session.js";

const { runtime, settings, model, golden, samples } = await readInput();
const ort = await import(runtime);
ort.env.wasm.numThreads = 1;
const found = { loaded: null, health: null, predictions: [] };
found.loaded = await toResult(async () => {
  const session = await Session.load({ settings, model: Buffer.from(model, "base64"), ort });
  if (golden) found.health = await toResult(() => session.check(golden));
  for (const sample of samples) {
    found.predictions.push(
      await toResult(async () => encode(await session.predict(decode(sample)))),
    );
  }
  await session.close();
  return { inputKind: session.inputKind };
});
process.stdout.write(JSON.stringify(found));
