// Results by kind; each module returns the summary that is read aloud and the nodes below it.
import { create } from "./dom.js";
import { showBoxes } from "./result-boxes.js";
import { showClass, showLabels } from "./result-class.js";
import { showDecisions } from "./result-decisions.js";
import { showMask } from "./result-mask.js";
import { showText } from "./result-text.js";
import { showValues } from "./result-values.js";

const KINDS = new Map(Object.entries({
  class: showClass,
  labels: showLabels,
  boxes: showBoxes,
  mask: showMask,
  text: showText,
  decisions: showDecisions,
  values: showValues,
}));

/** Return the summary and the nodes of a result; one of an unknown kind is shown as it is. */
export function showResult(result, context) {
  const show = KINDS.get(result?.kind);
  if (show) return show(result, context);
  const text = JSON.stringify(result?.result ?? result, null, 2) ?? "";
  const summary = context.words.fill("unknown_kind");
  return { summary, nodes: [create("pre", { class: "recognized", tabindex: "0" }, text)] };
}
