// Values of a regression, an embedding or any other output: one large number, or a table.
import { create, createName } from "./dom.js";
import { isolate } from "./words.js";

const SHOWN = 50; // values of one output

/** Show a single value as the summary, more of them as a table. */
export function showValues(result, { words, config }) {
  const outputs = Object.entries(result.result ?? {});
  const lists = outputs.map(([name, values]) => describe(name, values, config, words));
  const count = lists.reduce((sum, list) => sum + list.cells.length, 0);
  if (!count) return { summary: words.fill("values_none"), nodes: [] };
  if (count === 1) {
    const { name, unit, cells } = lists.find((list) => list.cells.length);
    const value = joinUnit(words.number(cells[0].value), unit);
    return { summary: words.fill("values_one", { name: isolate(name), value }), nodes: [] };
  }
  const summary = words.fill("values_many", { count: words.whole(count) });
  const notes = lists.filter((list) => list.cells.length > SHOWN).map((list) => {
    const values = { shown: SHOWN, count: words.whole(list.cells.length), name: isolate(list.name) };
    return create("p", { class: "quiet" }, words.fill("values_left_out", values));
  });
  return { summary, nodes: [createTable(lists, words, summary), ...notes] };
}

function describe(name, values, config, words) {
  const { label = name, unit = "" } = config.outputs?.[name] ?? {};
  return { name: label, unit, cells: [...listCells(removeBatch(values), [], words)] };
}

/** Remove outer lists of one element: the batch of one sample. */
function removeBatch(values) {
  return Array.isArray(values) && values.length === 1 ? removeBatch(values[0]) : values;
}

function* listCells(values, position, words) {
  if (!Array.isArray(values)) {
    yield { position: position.join(", "), value: values };
    return;
  }
  for (const [index, value] of values.entries()) {
    yield* listCells(value, [...position, words.whole(index + 1)], words);
  }
}

function joinUnit(value, unit) {
  return unit ? `${value} ${unit}` : value;
}

function createTable(lists, words, caption) {
  const head = ["values_name", "values_position", "values_value"].map((key) =>
    create("th", { scope: "col" }, words.fill(key)),
  );
  const rows = lists.flatMap(({ name, unit, cells }) =>
    cells.slice(0, SHOWN).map(({ position, value }) =>
      create(
        "tr",
        {},
        create("td", {}, createName(name)),
        create("td", {}, position),
        create("td", {}, joinUnit(words.number(value), unit)),
      ),
    ),
  );
  const table = create(
    "table",
    {},
    create("caption", { class: "visually-hidden" }, caption),
    create("thead", {}, create("tr", {}, ...head)),
    create("tbody", {}, ...rows),
  );
  return create("div", { class: "table", tabindex: "0", role: "group", "aria-label": caption }, table);
}
