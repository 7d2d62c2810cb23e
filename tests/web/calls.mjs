// Calls a function of targets/web/edgekit.
//
// The document on the standard input is {"module": NAME, "function": NAME, "calls": [[argument,
// ...], ...]}; one result or error is written for each call.

import { decode, encode, readInput, toResult } from "./values.mjs";

const { module, function: name, calls } = await readInput();
const functions = await import(`../../targets/web/edgekit/${module}.js`);
const results = [];
for (const given of calls) {
  results.push(await toResult(async () => encode(await functions[name](...given.map(decode)))));
}
process.stdout.write(JSON.stringify(results));
