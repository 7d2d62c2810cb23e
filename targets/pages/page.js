// Start the page: words, config.json, backend, the input of the app and its results.
import { create, createButton } from "./dom.js";
import { describeFailure } from "./failure.js";
import { createRuns } from "./runs.js";
import { showResult } from "./results.js";
import { loadWords, readJson } from "./words.js";

const INPUTS = {
  image: "./input-image.js",
  folder: "./input-file.js",
  audio: "./input-audio.js",
  form: "./input-form.js",
  text: "./input-text.js",
};
const BACKEND = "backend-http.js";
const CHECK_MS = 1000;
const MOST_CHECKS = 300;
const MOST_UNKNOWN = 3; // a check may start shortly after the model is loaded
const MB = 1e6;

const find = (id) => document.getElementById(id);
find("not-loaded").hidden = true; // its style shows it where this script does not start

async function start() {
  const config = await readJson("config.json");
  const words = await loadWords(config.language);
  writePage(config, words);
  const backend = await import(new URL(config.backend ?? BACKEND, document.baseURI).href);
  const problem = createProblem(words);
  const runs = createRuns({ backend, words, problem, find, showResult: createShow(config, words) });
  await loadBackend(backend, words, problem);
  const kind = getInputKind(config);
  const { createInput } = await import(INPUTS[kind]);
  const mostBytes = config.max_bytes ?? backend.mostBytes?.[kind] ?? 0;
  const input = createInput({ config, words, backend, runs, problem, mostBytes });
  find("input-body").replaceChildren(input.element);
  runs.clearResult();
  watchCheck(backend, words);
  document.documentElement.dataset.ready = "true";
}

function getInputKind({ input }) {
  return input in INPUTS ? input : "image";
}

function createShow(config, words) {
  return (result, input) => {
    const shown = showResult(result, { config, words, input });
    find("summary").textContent = shown.summary;
    find("summary").classList.remove("quiet");
    find("result-body").replaceChildren(...shown.nodes);
    const ms = result.ms;
    const time = Number.isFinite(ms) ? words.fill("latency", { time: words.time(ms) }) : "";
    find("latency").textContent = time;
    find("summary").scrollIntoView({ block: "nearest" });
  };
}

/** Load the model; a failure offers to try again. */
async function loadBackend(backend, words, problem) {
  const [panel, line, bar] = [find("progress"), find("progress-text"), find("progress-bar")];
  find("cancel").hidden = true;
  for (;;) {
    line.textContent = words.fill("loading");
    panel.hidden = false;
    try {
      await backend.load((done, total) => {
        if (!total) return;
        bar.max = total;
        bar.value = done;
        const [loaded, all] = [words.tenth(done / MB), words.tenth(total / MB)];
        line.textContent = words.fill("loading_bytes", { done: loaded, total: all });
      });
      break;
    } catch (error) {
      panel.hidden = true;
      await new Promise((resolve) => problem.show(error, resolve));
    }
  }
  panel.hidden = true;
  bar.removeAttribute("value");
  find("cancel").hidden = false;
  problem.clear();
}

/** Create the place of errors: what happened, what to do, and a button to try again. */
function createProblem(words) {
  const place = find("problem");
  return {
    clear: () => place.replaceChildren(),
    show(error, onRetry = null) {
      const lines = describeFailure(error, words).map((line) => create("p", {}, line));
      const retry = onRetry
        ? createButton(words.fill("retry"), () => {
            place.replaceChildren();
            onRetry();
          })
        : null;
      place.replaceChildren(create("div", { class: "message problem" }, ...lines, retry));
      place.scrollIntoView({ block: "nearest" });
    },
  };
}

// ---------------------------------------------------------------- words of the app

function writePage(config, words) {
  const root = document.documentElement;
  root.lang = words.language;
  root.dir = words.direction;
  document.title = config.title || config.name;
  find("title").textContent = config.title || config.name;
  writeOptional("intro", config.intro);
  writeOptional("notice", config.notice);
  find("skip").textContent = words.fill("skip");
  find("input-heading").textContent = words.fill(`input_${getInputKind(config)}`);
  find("result-heading").textContent = words.fill("result");
  find("cancel").textContent = words.fill("cancel");
  writeFact("fact_model", listModels(config.model, words), words);
  writeFact("fact_version", config.version, words);
  writeFact("fact_accuracy", config.accuracy, words);
  if (config.manifest) {
    document.head.append(create("link", { rel: "manifest", href: config.manifest }));
  }
}

function writeOptional(id, text) {
  find(id).hidden = !text;
  find(id).textContent = text || "";
}

function writeFact(key, value, words) {
  if (!value) return null;
  const cell = create("dd", { id: key }, String(value));
  find("facts").append(create("dt", {}, words.fill(key)), cell);
  return cell;
}

function listModels(model, words) {
  const models = Array.isArray(model) ? model : [model];
  const name = (each) =>
    typeof each === "object" && each?.version
      ? words.fill("model_version", { name: each.name, version: each.version })
      : (each?.name ?? each);
  return models.filter(Boolean).map(name).join("; ");
}

// ----------------------------------------------------------------- self-check

/** Show whether this browser or device computes as the original did. */
async function watchCheck(backend, words) {
  const cell = writeFact("fact_check", words.fill("check_unknown"), words);
  for (let turn = 1; turn <= MOST_CHECKS; turn += 1) {
    let state = "unknown";
    try {
      state = (await backend.health())?.check?.state ?? "unknown";
    } catch {
      return; // the next prediction says that the app does not answer
    }
    showCheck(state, backend.place === "browser" ? "browser" : "device", cell, words);
    const mayChange = state === "running" || (state === "unknown" && turn < MOST_UNKNOWN);
    if (!mayChange) return;
    await new Promise((resolve) => setTimeout(resolve, CHECK_MS));
  }
}

function showCheck(state, place, cell, words) {
  const decided = state === "same" || state === "different";
  const key = decided ? `check_${state}_${place}` : `check_${state}`;
  cell.textContent = words.fill(words.has(key) ? key : "check_unknown");
  cell.className = { same: "good", different: "problem" }[state] ?? "";
  find("warning").hidden = state !== "different";
  find("warning").textContent = state === "different" ? cell.textContent : "";
}

start().catch((error) => {
  console.error(error);
  find("not-loaded").classList.add("now");
  find("not-loaded").hidden = false;
});
