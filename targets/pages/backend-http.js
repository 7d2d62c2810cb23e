// The backend of an app that a server on this device runs: POST /predict, GET /health.
import { Failure } from "./failure.js";

export const place = "device";

const MIB = 1024 * 1024;
/** Largest bodies that the server takes, by the input of the app. */
export const mostBytes = { image: 32 * MIB, audio: 64 * MIB, folder: 64 * MIB };

const START_S = 300; // a server that has just been started loads its model
const PROBLEM_S = 5; // a model that fails to load is tried again by the server
const PAUSE_MS = 500;
const REQUEST_MS = 10_000;

/** Wait until the server is ready. */
export async function load(onProgress = () => {}) {
  onProgress(0, 0);
  const began = Date.now();
  for (;;) {
    const answer = await health();
    if (answer.ready !== false) return;
    const seconds = (Date.now() - began) / 1000;
    if (answer.problem && seconds > PROBLEM_S) throw new Failure("no_model", { message: answer.problem });
    if (seconds > START_S) throw new Failure("not_ready");
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** Return the state of the server. */
export async function health() {
  const signal = typeof AbortSignal.timeout === "function" ? AbortSignal.timeout(REQUEST_MS) : null;
  return readAnswer(await send("health", { signal }));
}

/** Send one sample (an image or sound as a Blob, a row as an object, or a text). */
export async function predict(sample, { signal } = {}) {
  const [body, type] = encodeSample(sample);
  return readAnswer(
    await send("predict", { method: "POST", body, headers: { "Content-Type": type }, signal }),
  );
}

function encodeSample(sample) {
  if (sample instanceof Blob) return [sample, sample.type || "application/octet-stream"];
  if (typeof sample === "string") return [sample, "text/plain; charset=utf-8"];
  return [JSON.stringify(sample), "application/json"];
}

async function send(path, options) {
  try {
    return await fetch(new URL(path, document.baseURI), { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("unreachable");
  }
}

const CODES = { 408: "timeout", 413: "too_large", 429: "busy", 503: "busy", 504: "timeout" };

async function readAnswer(response) {
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.name === "TypeError") throw new Failure("unreachable"); // the connection broke
    if (response.ok) throw new Failure("failed");
  }
  if (response.ok) return answer;
  const given = answer?.error;
  const message = typeof given === "string" ? given : (given?.message ?? "");
  const code = given?.code ?? given?.kind ?? CODES[response.status] ?? (message ? "refused" : "failed");
  throw new Failure(response.status === 500 ? "failed" : code, { message, hint: given?.hint ?? "" });
}
