// A mask over the photo, with a legend in which each area can be hidden.
import { getColor, getColorParts } from "./colors.js";
import { create, createName } from "./dom.js";
import { isolate } from "./words.js";

const OPACITY = 0.6;
const MOST_PIXELS = 64e6;

/** Draw the mask and its legend, the largest area first. */
export function showMask(result, { words, input }) {
  const mask = result.result ?? {};
  const classes = [...(mask.classes ?? [])].sort((a, b) => b.share - a.share);
  if (!classes.length) return { summary: words.fill("mask_none"), nodes: [] };
  const hidden = new Set();
  const layer = document.createElement("canvas");
  const view = input?.view;
  const paint = (context, size) => {
    const [x1, y1, x2, y2] = mask.region ?? [0, 0, size.width, size.height];
    context.globalAlpha = OPACITY;
    context.imageSmoothingEnabled = false;
    const { scale } = size;
    context.drawImage(layer, x1 * scale, y1 * scale, (x2 - x1) * scale, (y2 - y1) * scale);
    context.globalAlpha = 1;
  };
  const redraw = () => {
    fillLayer(layer, mask, hidden);
    view?.draw(paint, words.fill("photo_mask"));
  };
  const rows = classes.map((each) => createRow(each, words, hidden, redraw));
  const name = words.fill("mask_legend");
  redraw();
  const values = { label: isolate(classes[0].label), share: words.percent(classes[0].share) };
  return {
    summary: words.fill("mask_summary", values),
    nodes: [
      create("p", { class: "quiet" }, name),
      create("ul", { class: "list", "aria-label": name }, ...rows),
    ],
  };
}

function createRow({ label, index, share }, words, hidden, redraw) {
  const box = create("input", { type: "checkbox", checked: true });
  box.addEventListener("change", () => {
    if (box.checked) hidden.delete(index);
    else hidden.add(index);
    redraw();
  });
  const swatch = create("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = getColor(index);
  const amount = create("span", { class: "number" }, words.percent(share));
  return create(
    "li",
    {},
    create("label", {}, box, swatch, createName(label, { class: "grow" }), amount),
  );
}

function fillLayer(layer, { width, height, runs }, hidden) {
  if (!(width > 0 && height > 0 && width * height <= MOST_PIXELS)) return;
  layer.width = width;
  layer.height = height;
  const context = layer.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  let position = 0;
  for (let run = 0; run + 1 < runs.length; run += 2) {
    const end = Math.min(position + runs[run + 1], pixels.length);
    if (!hidden.has(runs[run])) {
      const [red, green, blue] = getColorParts(runs[run]);
      const color = new Uint8ClampedArray([red, green, blue, 255]);
      pixels.fill(new Uint32Array(color.buffer)[0], position, end);
    }
    position = end;
  }
  context.putImageData(image, 0, 0);
}
