// Build elements without HTML strings, so that no label can become markup.

/** Create an element: attributes, `on` listeners and `dataset` by name; children are nodes or text. */
export function create(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value === true) {
      element.setAttribute(name, "");
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, String(value));
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Create a button that does not submit a form. */
export function createButton(words, onClick, attributes = {}) {
  return create("button", { type: "button", on: { click: onClick }, ...attributes }, words);
}

/** Create a label with its own direction, so that it does not reorder the text around it. */
export function createName(name, attributes = {}) {
  return create("bdi", attributes, name);
}

/**
 * Create a list that shows the first `most` rows and a button for the others.
 *
 * Rows are created when they are shown: a list of hundreds is not in the way of the keyboard.
 */
export function createLongList(attributes, rows, most, createRow, writeMore) {
  const list = create("ul", attributes);
  const add = (from, to) => rows.slice(from, to).forEach((row, index) => list.append(createRow(row, from + index)));
  add(0, most);
  if (rows.length <= most) return list;
  const more = createButton(writeMore(rows.length - most), () => {
    add(most);
    const next = list.children[most];
    const target = next.querySelector("button, input") ?? next;
    if (target === next) next.tabIndex = -1;
    more.remove();
    target.focus();
  });
  return create("div", {}, list, create("div", { class: "buttons" }, more));
}

/** Create a file input whose label looks like a button and that the keyboard reaches. */
export function createFileButton(words, accept, onFile, style = "button main") {
  const label = create("label", { class: style, for: "file" }, words);
  const input = create("input", { type: "file", id: "file", accept, class: "visually-hidden" });
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = ""; // choosing the same file again counts as a choice
    if (file) onFile(file);
  });
  return { nodes: [input, label], label };
}

/** Call `onFile` for a file that is dropped on an element. */
export function acceptDrops(element, onFile) {
  const mark = (event) => {
    event.preventDefault();
    element.classList.add("over");
  };
  element.addEventListener("dragenter", mark);
  element.addEventListener("dragover", mark);
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) onFile(file);
  });
  // A file dropped elsewhere must not replace the page.
  for (const name of ["dragover", "drop"]) {
    window.addEventListener(name, (event) => event.preventDefault());
  }
}
