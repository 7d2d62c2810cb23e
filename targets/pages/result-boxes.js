// Boxes over the photo, and a list in which each box can be shown alone.
import { getColor, OUTLINE } from "./colors.js";
import { create, createName } from "./dom.js";
import { isolate, shorten } from "./words.js";

const NAMED = 25; // more names than this hide the photo
const LISTED_CLASSES = 5;
const NAME_LENGTH = 24;
const RIGHT_TO_LEFT = /^[^\p{L}]*[\p{Script=Arabic}\p{Script=Hebrew}]/u;

/** Draw the boxes and list them, the most certain first. */
export function showBoxes(result, { words, input }) {
  const boxes = result.result ?? [];
  const view = input?.view;
  if (!boxes.length) return { summary: words.fill("boxes_none"), nodes: [] };
  let chosen = -1;
  const paint = (context, size) => paintBoxes(context, size, boxes, chosen, words);
  const redraw = () => view?.draw(paint, words.fill("photo_boxes"));
  const list = create("ul", { class: "list", "aria-label": words.fill("boxes_list"), tabindex: "0" });
  boxes.forEach((box, index) => list.append(createRow(box, index)));
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

  const count = words.whole(NAMED);
  const note = boxes.length > NAMED && view ? words.fill("boxes_drawn", { count }) : "";
  const nodes = [note ? create("p", { class: "quiet" }, note) : null, list];
  return { summary: summarize(boxes, words), nodes: nodes.filter(Boolean) };
}

function summarize(boxes, words) {
  if (boxes.length === 1) return words.fill("boxes_one", { label: isolate(boxes[0].label) });
  const counts = new Map();
  for (const { label } of boxes) counts.set(label, (counts.get(label) ?? 0) + 1);
  const ordered = [...counts].sort((a, b) => b[1] - a[1]);
  const parts = ordered
    .slice(0, LISTED_CLASSES)
    .map(([label, count]) => `${words.whole(count)} ${isolate(label)}`);
  const others = ordered.slice(LISTED_CLASSES).reduce((sum, [, count]) => sum + count, 0);
  if (others) parts.push(words.fill("others", { count: words.whole(others) }));
  return words.fill("boxes_many", { count: words.whole(boxes.length), list: parts.join(", ") });
}

function paintBoxes(context, { scale, unit }, boxes, chosen, words) {
  context.lineJoin = "round";
  const drawn = chosen >= 0 ? [chosen] : boxes.map((_, index) => index).reverse();
  for (const index of drawn) paintBox(context, boxes[index], scale, unit, chosen >= 0);
  const named = drawn.filter((index) => chosen >= 0 || index < NAMED);
  for (const index of named) paintName(context, boxes[index], index, scale, unit, words);
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

function paintName(context, { box, label, index, confidence }, position, scale, unit, words) {
  const name = shorten(label, NAME_LENGTH);
  const text = `${position + 1} ${isolate(name)} ${words.percent(confidence)}`;
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  context.direction = RIGHT_TO_LEFT.test(label) ? "rtl" : "ltr";
  context.textAlign = "left";
  context.textBaseline = "middle";
  const [height, pad] = [20 * unit, 5 * unit];
  const width = Math.min(context.measureText(text).width + 2 * pad, context.canvas.width);
  const left = Math.max(0, Math.min(box[0] * scale, context.canvas.width - width));
  const above = box[1] * scale - height;
  const top = above >= 0 ? above : Math.max(0, Math.min(box[1] * scale, context.canvas.height - height));
  context.fillStyle = getColor(index);
  context.fillRect(left, top, width, height);
  context.fillStyle = OUTLINE;
  context.fillText(text, left + pad, top + height / 2, width - 2 * pad);
}
