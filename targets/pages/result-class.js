// Classes and labels with a bar of confidence each.
import { create, createLongList, createName } from "./dom.js";
import { isolate } from "./words.js";

const SHOWN = 10;

/** Show the most likely class and those that come next. */
export function showClass(result, { words }) {
  const label = isolate(result.result);
  const known = Number.isFinite(result.confidence);
  const confidence = known ? words.percent(result.confidence) : "";
  const key = known ? "class_summary" : "class_summary_plain";
  const rows = result.classes ?? [];
  const nodes = rows.length > 1 ? [createBars(rows, words), createNote(words)] : [];
  return { summary: words.fill(key, { label, confidence }), nodes };
}

/** Show all labels above the threshold. */
export function showLabels(result, { words }) {
  const rows = result.result ?? [];
  if (!rows.length) return { summary: words.fill("labels_none"), nodes: [] };
  const key = rows.length === 1 ? "labels_one" : "labels_many";
  const values = { count: words.whole(rows.length), label: isolate(rows[0].label) };
  return { summary: words.fill(key, values), nodes: [createBars(rows, words), createNote(words)] };
}

function createNote(words) {
  return create("p", { class: "quiet" }, words.fill("confidence_note"));
}

function createBars(rows, words) {
  const attributes = { class: "bars", "aria-label": words.fill("class_others") };
  const more = (count) => words.fill("more", { count: words.whole(count) });
  return createLongList(attributes, rows, SHOWN, (row) => createBar(row, words), more);
}

function createBar({ label, confidence }, words) {
  const known = Number.isFinite(confidence);
  const share = create("div");
  share.style.width = `${100 * Math.min(1, Math.max(0, known ? confidence : 0))}%`;
  return create(
    "li",
    {},
    create(
      "div",
      { class: "names" },
      createName(label),
      create("span", {}, known ? words.percent(confidence) : ""),
    ),
    known ? create("div", { class: "bar", "aria-hidden": "true" }, share) : null,
  );
}
