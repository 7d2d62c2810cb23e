/** Outputs of detectors as boxes, scores and classes: YOLO and plain boxes. */

import { countValues, formatShape, toDoubles } from "../arrays.js";
import { chooseBoxes, getSize, selectByClass } from "./box_selection.js";
import { listCells, readDistances, sameShape, takeColumns, transposeTable } from "./detector_grids.js";
import { makeJobError } from "../failures.js";
import { exp } from "../portable_math.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("./box_selection.js").Letterbox} Letterbox
 * @typedef {import("./box_selection.js").Table} Table
 * @typedef {import("./postprocess.js").Boxes} Boxes
 * @typedef {import("./postprocess.js").Outputs} Outputs
 * @typedef {import("../settings.js").Postprocess} Postprocess
 */

/** Exponents of widths and heights, so that a box of a broken model stays finite. */
const MOST_EXPONENT = 20;
/** Class of a value that is no number, as other devices have it. */
const NO_CLASS = -(2 ** 63);

/**
 * Convert the head of YOLOX: center and logarithm of the size relative to each cell.
 *
 * @param {Outputs} outputs
 * @param {Letterbox|null} letterbox
 * @param {Postprocess} settings
 * @returns {Boxes}
 */
export function convertYolox(outputs, letterbox, settings) {
  const cells = listCells(settings);
  const table = readTable(getSingle(outputs, settings), settings, cells.strides.length);
  checkColumns(table, 6, settings);
  const boxes = new Float64Array(4 * table.rows);
  for (let row = 0; row < table.rows; row++) {
    const start = row * table.columns;
    const stride = cells.strides[row];
    const sides = [2, 3].map((column) => {
      const exponent = table.data[start + column];
      return exp(Math.min(Math.max(exponent, -MOST_EXPONENT), MOST_EXPONENT)) * stride;
    });
    const centers = [cells.columns, cells.rows].map(
      (corners, axis) => (table.data[start + axis] + corners[row]) * stride,
    );
    boxes.set([...centers, ...sides], 4 * row);
  }
  const scores = multiplyScores(table);
  return selectByClass(convertFormat(boxes, "cxcywh"), scores, letterbox, settings);
}

/**
 * Convert decoded rows: center, size, objectness, scores of the classes.
 *
 * @param {Outputs} outputs
 * @param {Letterbox|null} letterbox
 * @param {Postprocess} settings
 * @returns {Boxes}
 */
export function convertYolov5(outputs, letterbox, settings) {
  const table = readTable(getSingle(outputs, settings), settings);
  checkColumns(table, 6, settings);
  const boxes = scaleBoxes(convertFormat(takeColumns(table, 0, 4).data, "cxcywh"), settings);
  return selectByClass(boxes, multiplyScores(table), letterbox, settings);
}

/**
 * Convert columns, or rows: center, size, scores of the classes.
 *
 * @param {Outputs} outputs
 * @param {Letterbox|null} letterbox
 * @param {Postprocess} settings
 * @returns {Boxes}
 */
export function convertYolov8(outputs, letterbox, settings) {
  const table = readTable(getSingle(outputs, settings), settings);
  checkColumns(table, 5, settings);
  const boxes = scaleBoxes(convertFormat(takeColumns(table, 0, 4).data, "cxcywh"), settings);
  return selectByClass(boxes, takeColumns(table, 4, table.columns), letterbox, settings);
}

/**
 * Convert distributions of the distances from a cell to the four sides of its box (Li 2020).
 *
 * @param {Outputs} outputs
 * @param {Letterbox|null} letterbox
 * @param {Postprocess} settings
 * @returns {Boxes}
 */
export function convertDistances(outputs, letterbox, settings) {
  const cells = listCells(settings);
  const { scores, distances } = readDistances(outputs, settings);
  const boxes = new Float64Array(4 * cells.strides.length);
  for (let cell = 0; cell < cells.strides.length; cell++) {
    const stride = cells.strides[cell];
    const corners = [cells.columns[cell], cells.rows[cell]];
    for (let axis = 0; axis < 2; axis++) {
      const center = corners[axis] * stride + 0.5 * (stride - 1);
      boxes[4 * cell + axis] = center - distances[4 * cell + axis] * stride;
      boxes[4 * cell + axis + 2] = center + distances[4 * cell + axis + 2] * stride;
    }
  }
  return selectByClass(boxes, scores, letterbox, settings);
}

/**
 * Convert outputs that are boxes: boxes, scores, and optionally classes and a count.
 *
 * @param {Outputs} outputs
 * @param {Letterbox|null} letterbox
 * @param {Postprocess} settings
 * @returns {Boxes}
 */
export function convertBoxes(outputs, letterbox, settings) {
  const parts = orderBoxParts(outputs, settings);
  const columns = parts[0].shape[parts[0].shape.length - 1];
  const data = toDoubles(parts[0]);
  const table = { data, rows: data.length / columns, columns };
  const numbers = takeColumns(table, 0, 4).data;
  const boxes = scaleBoxes(convertFormat(numbers, settings.boxFormat), settings);
  if (parts.length === 1) {
    const [scores, classes] = [4, 5].map((column) => takeColumns(table, column, column + 1).data);
    return chooseBoxes(boxes, scores, Array.from(classes, toClass), letterbox, settings);
  }
  const scores = toDoubles(parts[1]);
  if (parts.length === 2) {
    const shape = { rows: table.rows, columns: table.rows ? scores.length / table.rows : 0 };
    return selectByClass(boxes, { data: scores, ...shape }, letterbox, settings);
  }
  const told = parts.length > 3 ? toDoubles(parts[3])[0] : table.rows;
  const count = Math.trunc(Math.min(Math.max(told || 0, 0), table.rows));
  const classes = Array.from(toDoubles(parts[2]).subarray(0, count), toClass);
  const [someBoxes, someScores] = [boxes.subarray(0, 4 * count), scores.subarray(0, count)];
  return chooseBoxes(someBoxes, someScores, classes, letterbox, settings);
}

/** @param {number} value */
function toClass(value) {
  return Number.isFinite(value) ? Math.trunc(value) : NO_CLASS;
}

/** Return the only output. */
function getSingle(outputs, settings) {
  if (outputs.size !== 1) {
    throw makeJobError(
      `post-processing ${settings.kind} reads one output, but there are ${outputs.size}: ` +
        [...outputs.keys()].join(", "),
    );
  }
  return [...outputs.values()][0];
}

/**
 * Return an output as rows of boxes, whether these are its rows or its columns.
 *
 * @param {NumberArray} array the output; axes of size 1 are left out.
 * @param {Postprocess} settings for messages.
 * @param {number} [rows] number of boxes, if known; else they are the longer axis.
 * @returns {Table}
 */
function readTable(array, settings, rows = 0) {
  const shape = array.shape.length > 2 ? array.shape.filter((side) => side !== 1) : array.shape;
  if (shape.length === 2) {
    let table = { data: toDoubles(array), rows: shape[0], columns: shape[1] };
    if (rows ? table.rows !== rows : table.rows < table.columns) table = transposeTable(table);
    if (!rows || table.rows === rows) return table;
  }
  const size = `[${settings.size.join(", ")}]`;
  const wanted = rows ? `${rows} rows, one for each cell of ${size}` : "two axes";
  throw makeJobError(
    `post-processing ${settings.kind}: the output has shape ${formatShape(array.shape)}, ` +
      `but needs ${wanted}`,
  );
}

function checkColumns(table, least, settings) {
  if (table.columns < least) {
    throw makeJobError(
      `post-processing ${settings.kind}: ${table.columns} numbers for each box, but at least ` +
        `${least} are needed`,
    );
  }
}

/** Multiply the scores of the classes, from column 5, by the objectness in column 4. */
function multiplyScores(table) {
  const scores = takeColumns(table, 5, table.columns);
  scores.data.forEach((score, place) => {
    const row = Math.floor(place / scores.columns);
    scores.data[place] = score * table.data[row * table.columns + 4];
  });
  return scores;
}

/**
 * Return boxes, scores, and optionally classes and count.
 *
 * @param {Outputs} outputs
 * @param {Postprocess} settings
 * @returns {NumberArray[]}
 */
function orderBoxParts(outputs, settings) {
  const parts = [...outputs.values()];
  const isUnnamed = !settings.outputs.length;
  if (parts.length === 2 && !endsWith(parts[0], 4)) parts.reverse();
  const sizes = parts.map((part) => countValues(part.shape));
  const boxes = Math.floor(sizes[0] / 4);
  let alike = parts.length <= 4 && endsWith(parts[0], parts.length === 1 ? 6 : 4);
  if (parts.length === 2) {
    alike &&= sizes[1] % Math.max(boxes, 1) === 0 && !(isUnnamed && endsWith(parts[1], 4));
  } else if (parts.length > 2) {
    alike &&= sizes[1] === sizes[2] && sizes[2] === boxes && sizes[parts.length - 1] > 0;
  }
  if (!alike || (parts.length > 2 && isUnnamed)) {
    const shapes = [...outputs].map(([name, array]) => `${name} ${formatShape(array.shape)}`);
    throw makeJobError(
      `post-processing boxes: the outputs ${shapes.join(", ")} are not boxes [A, 4], scores ` +
        "[A, C] or [A], and optionally classes [A] and a count",
    );
  }
  return parts;
}

function endsWith(array, side) {
  return sameShape(array.shape.slice(-1), [side]);
}

/** Convert boxes of a format to left, top, right, bottom. */
function convertFormat(boxes, format) {
  if (format === "xyxy") return boxes;
  const result = new Float64Array(boxes.length);
  for (let start = 0; start < boxes.length; start += 4) {
    const [a, b, c, d] = boxes.subarray(start, start + 4);
    if (format === "yxyx") result.set([b, a, d, c], start);
    else if (format === "xywh") result.set([a, b, a + c, b + d], start);
    else result.set([a - c / 2, b - d / 2, a + c / 2, b + d / 2], start);
  }
  return result;
}

/** Convert shares of the input's width and height to pixels. */
function scaleBoxes(boxes, settings) {
  if (settings.boxUnit !== "share") return boxes;
  const [height, width] = getSize(settings);
  return boxes.map((value, place) => value * (place % 2 ? height : width));
}
