// A form from config.fields; one row of values is sent.
import { create } from "./dom.js";

/** Create the form; each field says what is wrong with it. */
export function createInput({ config, words, runs }) {
  const fields = (config.fields ?? []).map((field, index) => createField(field, index, words));
  if (!fields.length) {
    return { element: create("p", { class: "message problem" }, words.fill("form_no_fields")) };
  }
  const button = create("button", { type: "submit", class: "main" }, words.fill("form_submit"));
  const problem = create("p", { role: "alert", class: "wrong" });
  const form = create(
    "form",
    { novalidate: true },
    create("div", { class: "fields" }, ...fields.map((field) => field.element)),
    create("div", { class: "field" }, problem, button),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (runs.busy) return;
    const wrong = fields.filter((field) => !field.check());
    problem.textContent = wrong.length ? words.fill("form_problem") : "";
    if (wrong.length) {
      wrong[0].control.focus();
      return;
    }
    const row = {};
    for (const field of fields) {
      const value = field.read();
      if (value !== null) putValue(row, field.path, value);
    }
    runs.start(row);
  });
  runs.onBusy((busy) => button.setAttribute("aria-disabled", String(busy)));
  return { element: form };
}

function createField(field, index, words) {
  const id = `field-${index}`;
  const isChoice = field.type === "choice";
  const control = isChoice ? createChoice(field, id, words) : createNumber(field, id);
  const notes = [
    field.help,
    isChoice ? "" : describeRange(field, words),
    field.optional ? words.fill("form_optional") : "",
  ].filter(Boolean);
  const note = create("p", { class: "quiet", id: `${id}-note` }, notes.join("; "));
  const wrong = create("p", { class: "wrong", id: `${id}-wrong`, hidden: true });
  control.setAttribute("aria-describedby", `${id}-note ${id}-wrong`);
  const unit = field.unit ? create("span", { id: `${id}-unit`, dir: "auto" }, field.unit) : null;
  const element = create(
    "div",
    { class: "field" },
    create("label", { for: id, dir: "auto" }, field.label || field.name),
    create("div", { class: "entry" }, control, unit),
    notes.length ? note : null,
    wrong,
  );

  function show(message) {
    wrong.textContent = message;
    wrong.hidden = !message;
    control.setAttribute("aria-invalid", String(Boolean(message)));
    return !message;
  }

  const read = () => (isChoice ? readChoice(field, control) : readNumber(control.value));
  const check = () => show(isChoice ? checkChoice(field, control, words) : checkNumber(field, control, words));
  control.addEventListener("change", () => {
    if (control.getAttribute("aria-invalid") === "true") check();
  });
  return { path: field.path ?? [field.name], element, control, read, check };
}

/** Put a value at its path into a row: numbers of the path are places in lists. */
function putValue(row, path, value) {
  let place = row;
  for (const key of path.slice(0, -1)) place = place[key] ??= [];
  place[path.at(-1)] = value;
}

// ---------------------------------------------------------------------- numbers

function createNumber(field, id) {
  const value = field.value ?? "";
  return create("input", { type: "text", inputmode: "decimal", autocomplete: "off", id, value });
}

/** Read a number with a decimal point or comma; null where the field is empty. */
export function readNumber(text) {
  const plain = text.trim().replace("−", "-").replace(",", ".");
  if (!plain) return null;
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : Number.NaN;
}

function checkNumber({ min, max, optional }, control, words) {
  const value = readNumber(control.value);
  if (value === null) return optional ? "" : words.fill("form_missing");
  if (!Number.isFinite(value)) return words.fill("form_not_a_number");
  if (isNumber(min) && value < min) return words.fill("form_too_low", { min: words.number(min) });
  if (isNumber(max) && value > max) return words.fill("form_too_high", { max: words.number(max) });
  return "";
}

const isNumber = (value) => typeof value === "number";

function describeRange({ min, max }, words) {
  const values = { min: words.number(min), max: words.number(max) };
  if (isNumber(min) && isNumber(max)) return words.fill("form_range", values);
  if (isNumber(min)) return words.fill("form_from", values);
  return isNumber(max) ? words.fill("form_to", values) : "";
}

// ---------------------------------------------------------------------- choices

function listChoices(field) {
  return (field.choices ?? []).map((choice) =>
    typeof choice === "object" ? choice : { value: choice, label: String(choice) },
  );
}

function createChoice(field, id, words) {
  const options = listChoices(field).map(({ value, label }, index) =>
    create("option", { value: index, selected: value === field.value }, label ?? String(value)),
  );
  const empty = create("option", { value: "" }, words.fill("form_choose"));
  return create("select", { id }, empty, ...options);
}

function readChoice(field, control) {
  return control.value === "" ? null : listChoices(field)[Number(control.value)].value;
}

function checkChoice(field, control, words) {
  return control.value === "" && !field.optional ? words.fill("form_missing_choice") : "";
}
