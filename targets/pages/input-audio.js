// A sound from a file or the microphone: one recording, or decisions while it listens.
import { acceptDrops, create, createButton, createFileButton } from "./dom.js";
import { Failure } from "./failure.js";
import { createListener } from "./listening.js";
import { computeLevel, openMicrophone } from "./microphone.js";
import { ACCEPTED, encodeWav, joinSamples, prepareSound, resample } from "./sound.js";

const RATE = 16000;
const MOST_S = 60;

/** Create the input of an app for sounds. */
export function createInput({ config, words, backend, runs, problem, mostBytes }) {
  const rate = config.audio?.sample_rate ?? RATE;
  const chosen = create("p", { class: "quiet" });
  let panel = null;
  const take = async (file) => {
    await panel?.close();
    const isLatest = runs.choose();
    chosen.textContent = words.fill("chosen_file", { name: file.name });
    try {
      const sound = await prepareSound(file, rate, mostBytes);
      if (isLatest()) runs.start(sound);
    } catch (error) {
      if (isLatest()) problem.show(error);
    }
  };
  const fileButton = createFileButton(words.fill("choose_sound"), ACCEPTED, take);
  const buttons = create("div", { class: "buttons centered" }, ...fileButton.nodes);
  const drop = create("div", { class: "drop" }, buttons, create("p", { class: "quiet" }, words.fill("drop_sound")));
  acceptDrops(drop, take);
  const element = create("div", {}, drop, chosen);
  if (config.microphone) {
    panel = createMicrophonePanel({ config, words, backend, runs, problem, rate, chosen });
    element.append(panel.element);
  }
  return { element };
}

function createMicrophonePanel({ config, words, backend, runs, problem, rate, chosen }) {
  const level = createLevel(words);
  const state = create("p", { role: "status" });
  const fail = async (error) => {
    await close();
    problem.show(error);
  };
  const listener = createListener({ config, words, backend, rate, fail });
  let open = null; // {mode, microphone, samples, count}

  const record = createButton(words.fill("record"), () => toggle("record"));
  const listen = createButton(words.fill("listen"), () => toggle("listen"));

  function show() {
    const mode = open?.mode ?? "";
    record.textContent = words.fill(mode === "record" ? "stop_recording" : "record");
    listen.textContent = words.fill(mode === "listen" ? "stop_listening" : "listen");
    record.classList.toggle("recording", mode === "record");
    listen.classList.toggle("recording", mode === "listen");
    record.hidden = mode === "listen";
    listen.hidden = mode === "record" || config.audio?.listen === false;
    level.element.hidden = !mode;
    state.textContent = mode === "listen" ? words.fill("listening") : "";
  }

  function hear(own, samples) {
    if (open !== own) return;
    level.set(computeLevel(samples));
    if (own.mode === "listen") {
      listener.add(samples, own.microphone.rate);
      return;
    }
    own.samples.push(samples);
    own.count += samples.length;
    const seconds = Math.floor(own.count / own.microphone.rate);
    if (seconds !== own.seconds) {
      own.seconds = seconds;
      state.textContent = words.fill("recording", { seconds: words.whole(seconds) });
    }
    if (seconds >= (config.audio?.max_s ?? MOST_S)) toggle("record");
  }

  /** Close the microphone; return what was open. */
  async function close() {
    const own = open;
    if (!own?.microphone) return null;
    open = null;
    show();
    listener.stop();
    await own.microphone.stop();
    return own;
  }

  async function toggle(mode) {
    if (open) {
      const own = await close();
      if (own?.mode === "record") send(own);
      return;
    }
    const own = { mode, microphone: null, samples: [], count: 0, seconds: -1 };
    open = own;
    runs.choose();
    chosen.textContent = "";
    try {
      own.microphone = await openMicrophone(rate, (samples) => own.microphone && hear(own, samples));
      if (mode === "listen") listener.start();
    } catch (error) {
      open = null;
      problem.show(error instanceof Failure ? error : new Failure("microphone_used"));
    }
    show();
  }

  async function send({ samples, count, microphone }) {
    if (!count) {
      problem.show(new Failure("sound_short"));
      return;
    }
    const sound = await resample(joinSamples(samples), microphone.rate, rate);
    runs.start(encodeWav(sound, rate));
  }

  show();
  const buttons = create("div", { class: "buttons" }, record, listen);
  return { element: create("div", {}, buttons, state, level.element), close };
}

function createLevel(words) {
  const bar = create("div");
  const element = create(
    "div",
    { class: "level", role: "meter", "aria-label": words.fill("level"), "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 0, hidden: true },
    bar,
  );
  return {
    element,
    set(level) {
      bar.style.transform = `scaleX(${level})`;
      element.setAttribute("aria-valuenow", String(Math.round(100 * level)));
    },
  };
}
