/** Selection of boxes: minimum score, non-maximum suppression (NMS) in each class, letterbox. */

import { makeJobError } from "../failures.js";
import { clipBoxes, restoreBoxes } from "../images/letterbox.js";

/** Boxes with the best scores that NMS compares with each other. */
const MOST_COMPARED = 1000;
const LEAST_AREA = 1e-9;

/**
 * @typedef {import("../images/letterbox.js").Letterbox} Letterbox
 * @typedef {import("./postprocess.js").Boxes} Boxes
 * @typedef {import("../settings.js").Postprocess} Postprocess
 *
 * Numbers in rows and columns.
 * @typedef {{data: Float64Array, rows: number, columns: number}} Table
 */

/**
 * Select boxes by the scores of all classes: a box may occur once in each class.
 *
 * @param {Float64Array} boxes
 * @param {Table} scores a row for each box, a column for each class.
 * @param {Letterbox|null} letterbox
 * @param {Postprocess} settings
 * @returns {Boxes}
 */
export function selectByClass(boxes, scores, letterbox, settings) {
  const { background } = settings;
  if (background >= scores.columns) {
    throw makeJobError(
      `background = ${background}, but there are scores of ${scores.columns} classes`,
    );
  }
  /** @type {Record<string, number[]>} */
  const found = { places: [], scores: [], classes: [] };
  for (let row = 0, place = 0; row < scores.rows; row++) {
    for (let column = 0; column < scores.columns; column++, place++) {
      if (column === background || !(scores.data[place] > settings.scoreMin)) continue;
      found.places.push(row);
      found.scores.push(scores.data[place]);
      found.classes.push(background >= 0 && column > background ? column - 1 : column);
    }
  }
  return chooseBoxes(
    takeBoxes(boxes, found.places),
    found.scores,
    found.classes,
    letterbox,
    settings,
  );
}

/**
 * Select boxes in pixels of the input, each with a score and a class.
 *
 * Boxes below the minimum score go first. NMS then keeps the best box of a class and drops those
 * that overlap it. The boxes that remain are converted to pixels of the original image.
 *
 * @param {Float64Array} boxes
 * @param {ArrayLike<number>} scores
 * @param {ArrayLike<number>} classes
 * @param {Letterbox|null} letterbox
 * @param {Postprocess} settings
 * @returns {Boxes}
 */
export function chooseBoxes(boxes, scores, classes, letterbox, settings) {
  const order = Array.from({ length: scores.length }, (_, place) => place)
    .filter((place) => scores[place] > settings.scoreMin)
    .sort((a, b) => (scores[a] < scores[b] ? 1 : scores[a] > scores[b] ? -1 : 0))
    .slice(0, MOST_COMPARED);
  const kept = suppressOverlaps(boxes, order, classes, settings.nmsIou, settings.most);
  /** @type {Float64Array} */
  let found = takeBoxes(boxes, kept);
  if (letterbox) {
    found = restoreBoxes(found, letterbox);
  } else if (settings.size.length) {
    const [height, width] = getSize(settings);
    found = clipBoxes(found, width, height);
  }
  return {
    boxes: found,
    scores: Float64Array.from(kept, (place) => scores[place]),
    classes: kept.map((place) => classes[place] + settings.firstClass),
  };
}

/**
 * Return the places of the boxes that NMS keeps within each class.
 *
 * @param {Float64Array} boxes
 * @param {readonly number[]} order places of boxes by falling score.
 * @param {ArrayLike<number>} classes
 * @param {number} limit overlap (IoU) above which the box with the lower score is dropped.
 * @param {number} most largest number of boxes to keep.
 * @returns {number[]}
 */
function suppressOverlaps(boxes, order, classes, limit, most) {
  const kept = [];
  let rest = [...order];
  while (rest.length && kept.length < most) {
    const best = rest[0];
    kept.push(best);
    rest = rest
      .slice(1)
      .filter(
        (place) => classes[place] !== classes[best] || computeOverlap(boxes, place, best) <= limit,
      );
  }
  return kept;
}

/** Compute the intersection of two boxes over their union. */
function computeOverlap(boxes, one, other) {
  const [a, b] = [4 * one, 4 * other];
  const width = Math.min(boxes[a + 2], boxes[b + 2]) - Math.max(boxes[a], boxes[b]);
  const height = Math.min(boxes[a + 3], boxes[b + 3]) - Math.max(boxes[a + 1], boxes[b + 1]);
  const common = Math.max(width, 0) * Math.max(height, 0);
  const areas = computeArea(boxes, a) + computeArea(boxes, b);
  return common / Math.max(areas - common, LEAST_AREA);
}

function computeArea(boxes, start) {
  return (boxes[start + 2] - boxes[start]) * (boxes[start + 3] - boxes[start + 1]);
}

/** Return the boxes at some places. */
function takeBoxes(boxes, places) {
  const taken = new Float64Array(4 * places.length);
  places.forEach((place, k) => taken.set(boxes.subarray(4 * place, 4 * place + 4), 4 * k));
  return taken;
}

/**
 * Return height and width of the model's input.
 *
 * @param {Postprocess} settings
 * @returns {readonly number[]}
 */
export function getSize(settings) {
  if (settings.size.length !== 2 || Math.min(...settings.size) < 1) {
    throw makeJobError(
      `post-processing ${settings.kind} needs the size of the model's input, not ` +
        `[${settings.size.join(", ")}]`,
    );
  }
  return settings.size;
}
