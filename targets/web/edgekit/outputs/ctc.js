/** Post-processing of text recognizers: greedy CTC decoding (Graves 2006). */

import { formatShape, toDoubles } from "../arrays.js";
import { transposeTable } from "./detector_grids.js";
import { makeJobError } from "../failures.js";
import { findLargest } from "./scores.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("./box_selection.js").Table} Table
 * @typedef {import("./postprocess.js").Outputs} Outputs
 * @typedef {import("../settings.js").Postprocess} Postprocess
 */

/**
 * Decode the best class of each step. Repeated classes count once, the blank not at all.
 *
 * @param {Outputs} outputs
 * @param {Postprocess} settings
 * @returns {{text: string, chosen: number[], table: Table}} the text, the step of each character,
 *   and the scores with a row for each step.
 */
export function decodeCtc(outputs, settings) {
  const table = moveClassesLast([...outputs.values()][0], settings);
  const best = findLargest(table.data, table.columns);
  const chosen = [...best.keys()].filter(
    (step) => best[step] !== settings.blank && (step === 0 || best[step] !== best[step - 1]),
  );
  const letters = chosen.map((step) => {
    const number = best[step];
    return settings.charset[number > settings.blank ? number - 1 : number];
  });
  return { text: letters.join(""), chosen, table };
}

/** Return the scores with a row for each step. */
function moveClassesLast(array, settings) {
  const classes = settings.charset.length + 1;
  if (!(settings.blank >= 0 && settings.blank < classes)) {
    throw makeJobError(
      `post-processing ctc: blank ${settings.blank} must be less than ${classes}, the number of ` +
        "classes",
    );
  }
  const shape = [...array.shape];
  while (shape.length > 2 && shape.includes(1)) shape.splice(shape.indexOf(1), 1);
  const table = { data: toDoubles(array), rows: shape[0], columns: shape[1] };
  if (shape.length === 2 && shape[1] === classes) return table;
  if (shape.length === 2 && shape[0] === classes) return transposeTable(table);
  throw makeJobError(
    `post-processing ctc: the output of shape ${formatShape(array.shape)} has no axis of ` +
      `${classes} classes (characters and blank)`,
  );
}
