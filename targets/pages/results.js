// Results by kind; each module returns the summary that is read aloud and the nodes below it.
import { showBoxes } from "./result-boxes.js";
import { showClass, showLabels } from "./result-class.js";
import { showDecisions } from "./result-decisions.js";
import { showMask } from "./result-mask.js";
import { showText } from "./result-text.js";
import { showValues } from "./result-values.js";

const KINDS = {
  class: showClass,
  labels: showLabels,
  boxes: showBoxes,
  mask: showMask,
  text: showText,
  decisions: showDecisions,
  values: showValues,
};

/** Return the summary and the nodes of a result. */
export function showResult(result, context) {
  const show = Object.hasOwn(KINDS, result?.kind) ? KINDS[result.kind] : null;
  if (!show) return { summary: context.words.fill("unknown_kind"), nodes: [] };
  return show(result, context);
}
