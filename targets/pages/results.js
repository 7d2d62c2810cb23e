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

/** Return the summary and the nodes of a result, and above them the note that an app may add. */
export function showResult(result, context) {
  const { summary, nodes } = (KINDS.get(result?.kind) ?? showUnknown)(result, context);
  const note = result?.note ? [create("p", {}, String(result.note))] : [];
  return { summary, nodes: [...note, ...nodes] };
}

/** Show a result of an unknown kind as it is. */
function showUnknown(result, { words }) {
  const text = JSON.stringify(result?.result ?? result, null, 2) ?? "";
  const body = create("pre", { class: "recognized", tabindex: "0" }, text);
  return { summary: words.fill("unknown_kind"), nodes: [body] };
}
