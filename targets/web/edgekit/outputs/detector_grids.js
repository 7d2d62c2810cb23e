/** Grids of cells of detectors, and distributions of distances in them. */

import { countValues, toDoubles } from "../arrays.js";
import { getSize } from "./box_selection.js";
import { makeJobError } from "../failures.js";
import { exp } from "../portable_math.js";

/**
 * @typedef {import("../arrays.js").NumberArray} NumberArray
 * @typedef {import("./box_selection.js").Table} Table
 * @typedef {import("./postprocess.js").Outputs} Outputs
 * @typedef {import("../settings.js").Postprocess} Postprocess
 */

/** Bins of a distribution in NanoDet-Plus, whose single output holds scores and distributions. */
const NANODET_BINS = 8;
/** Largest number of cells of all levels. */
const MOST_CELLS = 1 << 22;

/**
 * Return column, row and stride of every cell of all levels.
 *
 * @param {Postprocess} settings
 * @returns {{columns: number[], rows: number[], strides: number[]}}
 */
export function listCells(settings) {
  /** @type {Record<string, number[]>} */
  const cells = { columns: [], rows: [], strides: [] };
  listGrids(settings).forEach(([rows, columns], level) => {
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        cells.columns.push(column);
        cells.rows.push(row);
        cells.strides.push(settings.strides[level]);
      }
    }
  });
  return /** @type {any} */ (cells);
}

/** Return rows and columns of the grid of each level. */
function listGrids(settings) {
  const [height, width] = getSize(settings);
  if (!settings.strides.length || Math.min(...settings.strides) < 1) {
    throw makeJobError(
      `post-processing ${settings.kind} needs positive strides, not ` +
        `[${settings.strides.join(", ")}]`,
    );
  }
  const grids = settings.strides.map((stride) => [
    Math.ceil(height / stride),
    Math.ceil(width / stride),
  ]);
  if (grids.reduce((total, [rows, columns]) => total + rows * columns, 0) > MOST_CELLS) {
    throw makeJobError(`post-processing ${settings.kind}: there are more than ${MOST_CELLS} cells`);
  }
  return grids;
}

/**
 * Read scores, and distances in strides, of the cells of all levels.
 *
 * The distance is the mean of a distribution. The outputs are scores and distributions of each
 * level, or both for all levels, or one output as in NanoDet-Plus; with channels first or last.
 * With one bin the output is the distance itself.
 *
 * @param {Outputs} outputs
 * @param {Postprocess} settings
 * @returns {{scores: Table, distances: Float64Array}}
 */
export function readDistances(outputs, settings) {
  const { scores, distributions } = readLevels([...outputs.values()], settings);
  const bins = Math.floor(distributions.columns / 4);
  if (!bins || distributions.columns !== 4 * bins) {
    throw makeJobError(
      `post-processing distances: an output has ${distributions.columns} numbers for each cell, ` +
        "which are not four distributions",
    );
  }
  return { scores, distances: computeMeans(distributions.data, bins) };
}

/** Return scores and distributions of the cells of all levels. */
function readLevels(arrays, settings) {
  const grids = listGrids(settings);
  if (arrays.length <= 2 && (arrays.length < 2 || grids.length > 1)) {
    const cells = grids.reduce((total, [rows, columns]) => total + rows * columns, 0);
    const tables = readCells(arrays, [1, cells]);
    const bins = 4 * NANODET_BINS;
    if (tables.length === 1 && tables[0].columns > bins) {
      const { columns } = tables[0];
      return {
        scores: takeColumns(tables[0], 0, columns - bins),
        distributions: takeColumns(tables[0], columns - bins, columns),
      };
    }
    if (tables.length !== 2) throw makeCellsError(tables.length, `${cells} cells`, settings);
    return { scores: tables[0], distributions: tables[1] };
  }
  const levels = grids.map((grid) => {
    const tables = readCells(arrays, grid);
    if (tables.length !== 2) {
      throw makeCellsError(tables.length, `${grid[0]} x ${grid[1]} cells`, settings);
    }
    return tables;
  });
  return {
    scores: joinTables(
      levels.map(([scores]) => scores),
      "the same number of classes",
      settings,
    ),
    distributions: joinTables(
      levels.map(([, distributions]) => distributions),
      "the same number of distances",
      settings,
    ),
  };
}

/** Join the tables of all levels. */
function joinTables(tables, wanted, settings) {
  const { columns } = tables[0];
  if (tables.some((table) => table.columns !== columns)) throw makeCellsError(0, wanted, settings);
  const rows = tables.reduce((total, table) => total + table.rows, 0);
  const data = new Float64Array(rows * columns);
  let at = 0;
  for (const table of tables) {
    data.set(table.data, at);
    at += table.data.length;
  }
  return { data, rows, columns };
}

function makeCellsError(found, wanted, settings) {
  return makeJobError(
    `post-processing ${settings.kind} needs two outputs, scores and distances, with ${wanted}; ` +
      `there are ${found}`,
  );
}

/** Return the arrays that have the cells of a grid, as rows of cells. */
function readCells(arrays, grid) {
  const cells = grid[0] * grid[1];
  const tables = [];
  for (const array of arrays) {
    const shape = array.shape.filter((side) => side !== 1);
    const values = countValues(shape);
    const isColumns = sameShape(shape.slice(1), grid) || sameShape(shape.slice(1), [cells]);
    if (isColumns) {
      tables.push(transposeTable({ data: toDoubles(array), rows: shape[0], columns: cells }));
    } else if (sameShape(shape.slice(0, 1), [cells]) || sameShape(shape.slice(0, 2), grid)) {
      tables.push({ data: toDoubles(array), rows: cells, columns: values / cells });
    }
  }
  return tables;
}

/** Return the mean bin of the softmax of each distribution; a single bin is the mean itself. */
function computeMeans(logits, bins) {
  if (bins === 1) return logits;
  const means = new Float64Array(logits.length / bins);
  for (let place = 0, start = 0; place < means.length; place++, start += bins) {
    let largest = -Infinity;
    for (let bin = 0; bin < bins; bin++) largest = Math.max(largest, logits[start + bin]);
    let total = 0;
    let weighted = 0;
    for (let bin = 0; bin < bins; bin++) {
      const weight = exp(logits[start + bin] - largest);
      total += weight;
      weighted += weight * bin;
    }
    means[place] = weighted / total;
  }
  return means;
}

/**
 * Return the columns from `first` to the one before `end`.
 *
 * @param {Table} table
 * @param {number} first
 * @param {number} end
 * @returns {Table}
 */
export function takeColumns(table, first, end) {
  const columns = end - first;
  const data = new Float64Array(table.rows * columns);
  for (let row = 0; row < table.rows; row++) {
    const start = row * table.columns;
    data.set(table.data.subarray(start + first, start + end), row * columns);
  }
  return { data, rows: table.rows, columns };
}

/**
 * Swap rows and columns.
 *
 * @param {Table} table
 * @returns {Table}
 */
export function transposeTable({ data, rows, columns }) {
  const result = new Float64Array(data.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = data[row * columns + column];
    }
  }
  return { data: result, rows: columns, columns: rows };
}

/**
 * Return whether two shapes are the same.
 *
 * @param {readonly number[]} one
 * @param {readonly number[]} other
 * @returns {boolean}
 */
export function sameShape(one, other) {
  return one.length === other.length && one.every((side, axis) => side === other[axis]);
}
