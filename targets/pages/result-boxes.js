// Boxes over the photo, and a list in which each box can be shown alone.
import { getColor, OUTLINE } from "./colors.js";
import { create, createLongList, createName } from "./dom.js";
import { isolate, shorten } from "./words.js";

const LISTED = 20;
const NAMED = 12; // beyond it, boxes narrower than their name have a number, tiny ones nothing
const LISTED_CLASSES = 5;
const NAME_LENGTH = 24;

/** Draw the boxes and list them, the most certain first. */
export function showBoxes(result, { words, input }) {
  const boxes = result.result ?? [];
  const view = input?.view;
  if (!boxes.length) return { summary: words.fill("boxes_none"), nodes: [] };
  let chosen = -1;
  const paint = (context, size) => paintBoxes(context, size, boxes, chosen, words);
  const redraw = () => view?.draw(paint, words.fill("photo_boxes"));
  const list = createLongList(
    { class: "list", "aria-label": words.fill("boxes_list") },
    boxes,
    LISTED,
    createRow,
    (count) => words.fill("more", { count: words.whole(count) }),
  );
  redraw();

  function createRow(box, index) {
    const swatch = create("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = getColor(box.index);
    const button = create(
      "button",
      { type: "button", "aria-pressed": "false", title: words.fill("boxes_show", { number: index + 1 }) },
      swatch,
      create("span", { class: "number" }, words.whole(index + 1)),
      createName(box.label, { class: "grow" }),
      create("span", { class: "number" }, words.percent(box.confidence)),
    );
    button.addEventListener("click", () => {
      chosen = chosen === index ? -1 : index;
      for (const other of list.querySelectorAll("button")) {
        other.setAttribute("aria-pressed", String(other === button && chosen === index));
      }
      redraw();
    });
    return create("li", {}, button);
  }

  const note = create("p", { class: "quiet" }, words.fill("boxes_drawn"));
  return { summary: summarize(boxes, words), nodes: view ? [note, list] : [list] };
}

function summarize(boxes, words) {
  if (boxes.length === 1) return words.fill("boxes_one", { label: isolate(boxes[0].label) });
  const counts = new Map();
  for (const { label } of boxes) counts.set(label, (counts.get(label) ?? 0) + 1);
  const ordered = [...counts].sort((a, b) => b[1] - a[1]);
  const parts = ordered
    .slice(0, LISTED_CLASSES)
    .map(([label, count]) => `${words.whole(count)} × ${isolate(label)}`);
  const others = ordered.slice(LISTED_CLASSES).reduce((sum, [, count]) => sum + count, 0);
  if (others) parts.push(words.fill("others", { count: words.whole(others) }));
  return words.fill("boxes_many", { count: words.whole(boxes.length), list: parts.join(", ") });
}

function paintBoxes(context, { scale, unit }, boxes, chosen, words) {
  context.lineJoin = "round";
  const drawn = chosen >= 0 ? [chosen] : boxes.map((_, index) => index).reverse();
  for (const index of drawn) paintBox(context, boxes[index], scale, unit, chosen >= 0);
  const places = [];
  const view = { scale, unit, places, words, crowded: drawn.length > NAMED };
  for (const index of drawn.reverse()) paintName(context, boxes[index], index, view);
}

function paintBox(context, { box, index }, scale, unit, alone) {
  const [x1, y1, x2, y2] = box.map((value) => value * scale);
  const width = (alone ? 4 : 2) * unit;
  for (const [color, line] of [[OUTLINE, width + 2 * unit], [getColor(index), width]]) {
    context.strokeStyle = color;
    context.lineWidth = line;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}

/** Write the name of a box above or inside it, unless a more certain one has its place. */
function paintName(context, { box, label, index, confidence }, position, view) {
  const { scale, unit, places, words, crowded } = view;
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  context.direction = words.direction;
  context.textAlign = "left";
  context.textBaseline = "middle";
  const [height, pad] = [20 * unit, 5 * unit];
  const { width: most, height: bottom } = context.canvas;
  const measure = (words) => Math.min(context.measureText(words).width + 2 * pad, most);
  const number = String(position + 1);
  const name = `${number} ${isolate(shorten(label, NAME_LENGTH))} ${words.percent(confidence)}`;
  const room = crowded ? (box[2] - box[0]) * scale : most;
  const text = measure(name) > room ? number : name;
  const covered = height * measure(text);
  if (crowded && 3 * covered > (box[2] - box[0]) * (box[3] - box[1]) * scale * scale) return;
  const width = measure(text);
  const left = Math.max(0, Math.min(box[0] * scale, most - width));
  const top = box[1] * scale;
  const free = [top - height, top]
    .map((start) => [left, Math.max(0, Math.min(start, bottom - height)), width, height])
    .find((place) => !places.some((other) => overlap(place, other)));
  if (!free) return;
  places.push(free);
  context.fillStyle = getColor(index);
  context.fillRect(...free);
  context.fillStyle = OUTLINE;
  context.fillText(text, left + pad, free[1] + height / 2, width - 2 * pad);
}

function overlap([left, top, width, height], [left2, top2, width2, height2]) {
  return left < left2 + width2 && left2 < left + width && top < top2 + height2 && top2 < top + height;
}
