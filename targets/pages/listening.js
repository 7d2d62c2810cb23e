// Decisions while the microphone is open: one prediction per window of sound.
import { create } from "./dom.js";
import { isolate } from "./words.js";
import { createTimeline, summarizeDecisions } from "./result-decisions.js";
import { encodeWav, joinSamples, resample } from "./sound.js";

const WINDOW_S = 1;
const MOST_WAITING = 2; // windows; older ones are left out, so that decisions stay current

/**
 * Create the part that cuts sound into windows, sends each and shows what was decided.
 *
 * `fail(error)` hears of a window that could not be worked on; one that came while the app was busy
 * is left out.
 */
export function createListener({ config, words, backend, rate, fail }) {
  const seconds = config.audio?.window_s ?? WINDOW_S;
  const find = (id) => document.getElementById(id);
  let session = null;

  function start() {
    const timeline = createTimeline(words);
    const note = create("p", { class: "quiet" });
    session = { timeline, note, block: [], filled: 0, windows: 0, waiting: [], leftOut: 0, running: false };
    find("summary").classList.remove("quiet");
    find("result-body").replaceChildren(note, timeline.element);
  }

  function add(samples, microphoneRate) {
    const own = session;
    if (!own) return;
    const size = Math.round(seconds * microphoneRate);
    for (let at = 0; at < samples.length; ) {
      const part = samples.subarray(at, at + size - own.filled);
      own.block.push(part.slice());
      own.filled += part.length;
      at += part.length;
      if (own.filled === size) {
        queue(own, joinSamples(own.block), microphoneRate);
        own.block = [];
        own.filled = 0;
      }
    }
  }

  function queue(own, samples, microphoneRate) {
    own.waiting.push({ samples, microphoneRate, from_s: own.windows * seconds });
    own.windows += 1;
    if (own.waiting.length > MOST_WAITING) {
      own.waiting.shift();
      countLeftOut(own);
    }
    if (!own.running) run(own);
  }

  function countLeftOut(own) {
    own.leftOut += 1;
    own.note.textContent = words.fill("behind", { count: words.whole(own.leftOut) });
  }

  async function run(own) {
    own.running = true;
    while (session === own && own.waiting.length) {
      const { samples, microphoneRate, from_s } = own.waiting.shift();
      try {
        const sound = encodeWav(await resample(samples, microphoneRate, rate), rate);
        const result = await backend.predict(sound, {});
        if (session === own) show(own, result, from_s);
      } catch (error) {
        if (session !== own) return;
        if (error?.code === "busy") countLeftOut(own);
        else fail(error);
      }
    }
    own.running = false;
  }

  function show(own, result, from_s) {
    own.timeline.add(listDecisions(result, from_s, seconds));
    const { decisions } = own.timeline;
    const last = decisions.length ? decisions[decisions.length - 1].label : "";
    const summary = last ? isolate(last) : words.fill("decisions_none");
    if (find("summary").textContent !== summary) find("summary").textContent = summary;
    if (Number.isFinite(result.ms)) {
      find("latency").textContent = words.fill("heard_latency", { time: words.time(result.ms) });
    }
  }

  function stop() {
    const own = session;
    session = null;
    if (own?.timeline.decisions.length) {
      find("summary").textContent = summarizeDecisions(own.timeline.decisions, words);
    }
  }

  return { start, add, stop };
}

/** Return the decisions of one window, in seconds since listening began. */
export function listDecisions(result, from_s, seconds) {
  const to_s = from_s + seconds;
  if (result.kind === "decisions") {
    return (result.result ?? []).map((each) => ({
      ...each,
      from_s: from_s + each.from_s,
      to_s: Math.min(from_s + each.to_s, to_s),
    }));
  }
  if (result.kind === "class" || result.kind === "text") {
    const label = String(result.result ?? "").trim();
    return label ? [{ from_s, to_s, label, confidence: result.confidence }] : [];
  }
  if (result.kind === "labels") {
    return (result.result ?? []).slice(0, 1).map(({ label, confidence }) => ({ from_s, to_s, label, confidence }));
  }
  return [];
}
