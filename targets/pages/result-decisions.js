// Decisions over time: a colored strip and a list, for a file and for a microphone.
import { getColor } from "./colors.js";
import { create, createName } from "./dom.js";
import { isolate } from "./words.js";

const LISTED = 200;
const STRIP_S = 60;

/** Show the decisions of one sound. */
export function showDecisions(result, { words }) {
  const decisions = result.result ?? [];
  if (!decisions.length) return { summary: words.fill("decisions_none"), nodes: [] };
  const timeline = createTimeline(words, Infinity);
  timeline.add(decisions);
  return { summary: summarizeDecisions(timeline.decisions, words), nodes: [timeline.element] };
}

/** Say how many decisions there are and the last of them. */
export function summarizeDecisions(decisions, words) {
  const label = isolate(decisions[decisions.length - 1].label);
  const count = words.whole(decisions.length);
  return words.fill(decisions.length === 1 ? "decisions_one" : "decisions_many", { count, label });
}

/** Create a timeline to which decisions are added; the same label again extends the last one. */
export function createTimeline(words, stripSeconds = STRIP_S) {
  const decisions = [];
  const colors = new Map();
  const strip = create("div", { class: "strip", role: "img", "aria-label": words.fill("decisions_strip") });
  const [from, to] = [create("span"), create("span")];
  const list = create("ol", { class: "list", tabindex: "0", "aria-label": words.fill("decisions_strip") });
  const scale = create("div", { class: "scale" }, from, to);
  const element = create("div", { hidden: true }, strip, scale, list);

  function getLabelColor(label) {
    if (!colors.has(label)) colors.set(label, getColor(colors.size));
    return colors.get(label);
  }

  function add(more) {
    for (const decision of more) {
      const last = decisions[decisions.length - 1];
      const follows = last && last.label === decision.label && decision.from_s - last.to_s < 0.05;
      if (follows) {
        const best = Math.max(last.confidence ?? 0, decision.confidence ?? 0) || null;
        Object.assign(last, { to_s: decision.to_s, confidence: best });
      } else {
        decisions.push({ ...decision });
      }
    }
    draw();
  }

  function draw() {
    element.hidden = !decisions.length;
    if (!decisions.length) return;
    const end = decisions[decisions.length - 1].to_s;
    const begin = Math.max(Math.min(0, decisions[0].from_s), end - stripSeconds);
    const length = Math.max(end - begin, 1e-3);
    const time = (value) => words.fill("seconds", { value: words.tenth(value) });
    from.textContent = time(begin);
    to.textContent = time(end);
    strip.replaceChildren(
      ...decisions.filter((each) => each.to_s > begin).map((each) => {
        const part = create("div", { title: each.label });
        const start = Math.max(each.from_s, begin);
        part.style.left = `${(100 * (start - begin)) / length}%`;
        part.style.width = `${(100 * (each.to_s - start)) / length}%`;
        part.style.background = getLabelColor(each.label);
        return part;
      }),
    );
    list.replaceChildren(...decisions.slice(-LISTED).reverse().map(createRow));
  }

  function createRow({ from_s: begin, to_s: end, label, confidence }) {
    const swatch = create("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = getLabelColor(label);
    const range = { from: words.tenth(begin), to: words.tenth(end) };
    return create(
      "li",
      {},
      create(
        "div",
        { class: "names" },
        swatch,
        create("span", { class: "number" }, words.fill("decisions_time", range)),
        createName(label, { class: "grow" }),
        create("span", {}, Number.isFinite(confidence) ? words.percent(confidence) : ""),
      ),
    );
  }

  return { element, add, decisions };
}
