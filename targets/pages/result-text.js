// Recognized text, to be selected or copied.
import { create, createButton } from "./dom.js";

/** Show the text with a button that copies it. */
export function showText(result, { words }) {
  const text = String(result.result ?? "");
  if (!text.trim()) return { summary: words.fill("text_none"), nodes: [] };
  const known = Number.isFinite(result.confidence);
  const key = known ? "text_summary_confidence" : "text_summary";
  const confidence = known ? words.percent(result.confidence) : "";
  const line = create("p", { role: "status", class: "quiet" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      line.textContent = words.fill("copied");
    } catch {
      line.textContent = words.fill("not_copied");
    }
  };
  const body = create("p", { class: "recognized", dir: "auto", tabindex: "0" }, text);
  return {
    summary: words.fill(key, { confidence }),
    nodes: [body, create("div", { class: "buttons" }, createButton(words.fill("copy"), copy)), line],
  };
}
