// A text that the user writes or pastes.
import { create } from "./dom.js";

/** Create the input of an app for texts; Ctrl+Enter sends too. */
export function createInput({ config, words, runs }) {
  const most = config.max_chars ?? 0;
  // Spelling services of some browsers send texts away.
  const area = create("textarea", {
    id: "text",
    dir: "auto",
    spellcheck: "false",
    autocomplete: "off",
    "aria-describedby": "text-wrong",
  });
  const wrong = create("p", { class: "wrong", id: "text-wrong", role: "alert" });
  const button = create("button", { type: "submit", class: "main" }, words.fill("text_submit"));
  const form = create(
    "form",
    { class: "field", novalidate: true },
    create("label", { for: "text" }, words.fill("text_label")),
    area,
    wrong,
    button,
  );

  function check() {
    const { length } = Array.from(area.value);
    if (!area.value.trim()) return words.fill("text_missing");
    if (!most || length <= most) return "";
    return words.fill("text_too_long", { length: words.whole(length), most: words.whole(most) });
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (runs.busy) return;
    wrong.textContent = check();
    area.setAttribute("aria-invalid", String(Boolean(wrong.textContent)));
    if (wrong.textContent) area.focus();
    else runs.start(area.value);
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  runs.onBusy((busy) => button.setAttribute("aria-disabled", String(busy)));
  return { element: form };
}
