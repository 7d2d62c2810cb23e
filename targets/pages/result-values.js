// Values of a regression, an embedding or any other output: one large number, or a table.
import { create, createName } from "./dom.js";
import { isolate } from "./words.js";

const SHOWN = 50; // values of one output

/** Show a single value as the summary, more of them as tables. */
export function showValues(result, { words, config }) {
  const outputs = Object.entries(result.result ?? {});
  const lists = outputs.map(([name, values]) => describe(name, values, config, words));
  const filled = lists.filter((list) => list.cells.length);
  const count = filled.reduce((sum, list) => sum + list.cells.length, 0);
  if (!count) return { summary: words.fill("values_none"), nodes: [] };
  if (count === 1) {
    const [{ name, unit, cells }] = filled;
    const value = joinUnit(words.number(cells[0].value), unit);
    return { summary: words.fill("values_one", { name: isolate(name), value }), nodes: [] };
  }
  const summary = words.fill("values_many", { count: words.whole(count) });
  if (filled.every((list) => list.cells.length === 1)) {
    const rows = filled.map(({ name, unit, cells }) => [createName(name), cells[0].value, unit]);
    return { summary, nodes: [createTable("values_name", rows, words, summary)] };
  }
  return { summary, nodes: filled.flatMap((list) => createListNodes(list, words)) };
}

function createListNodes({ name, unit, cells }, words) {
  const rows = cells.slice(0, SHOWN).map(({ position, value }) => [position, value, unit]);
  const values = { shown: SHOWN, count: words.whole(cells.length), name: isolate(name) };
  return [
    create("h3", {}, createName(name)),
    createTable("values_position", rows, words, name),
    ...(cells.length > SHOWN ? [create("p", { class: "quiet" }, words.fill("values_left_out", values))] : []),
  ];
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

function createTable(key, rows, words, caption) {
  const head = [key, "values_value"].map((each) => create("th", { scope: "col" }, words.fill(each)));
  const body = rows.map(([first, value, unit]) =>
    create(
      "tr",
      {},
      create("td", {}, first),
      create("td", {}, joinUnit(words.number(value), unit)),
    ),
  );
  const table = create(
    "table",
    {},
    create("caption", { class: "visually-hidden" }, caption),
    create("thead", {}, create("tr", {}, ...head)),
    create("tbody", {}, ...body),
  );
  return create("div", { class: "table", tabindex: "0", role: "group", "aria-label": caption }, table);
}
