// The photo on a canvas, with what a result draws over it.
import { create } from "./dom.js";

const MOST_WIDTH = 1600;
const LEAST_WIDTH = 640; // tiny photos are enlarged

/**
 * Create the view of a photo.
 *
 * `draw(paint)` calls `paint(context, view)` now and after each change of size; `view` has the
 * photo's size, the canvas's `scale` (canvas pixels per photo pixel) and `unit` (canvas pixels per
 * pixel of the page).
 */
export function createPhotoView() {
  const canvas = create("canvas", { role: "img" });
  const element = create("figure", { class: "picture", hidden: true }, canvas);
  const base = document.createElement("canvas");
  let size = { width: 0, height: 0 };
  let paint = null;

  function repaint() {
    if (!size.width) return;
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalAlpha = 1;
    context.drawImage(base, 0, 0);
    const unit = canvas.width / (canvas.clientWidth || canvas.width);
    if (paint) paint(context, { ...size, scale: canvas.width / size.width, unit });
  }

  /** Show a picture; boxes are drawn in pixels of the size that the photo was sent in. */
  function show({ picture, size: sent }, name) {
    size = sent;
    let scale = Math.min(1, MOST_WIDTH / Math.max(size.width, size.height));
    if (size.width < LEAST_WIDTH) scale = Math.ceil(LEAST_WIDTH / size.width);
    base.width = canvas.width = Math.max(1, Math.round(size.width * scale));
    base.height = canvas.height = Math.max(1, Math.round(size.height * scale));
    const context = base.getContext("2d");
    context.imageSmoothingEnabled = scale < 3;
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, base.width, base.height);
    context.drawImage(picture, 0, 0, base.width, base.height);
    paint = null;
    canvas.setAttribute("aria-label", name);
    element.hidden = false;
    repaint();
  }

  new ResizeObserver(repaint).observe(canvas);
  return {
    element,
    show,
    draw(painter, name) {
      paint = painter;
      if (name) canvas.setAttribute("aria-label", name);
      repaint();
    },
    get size() {
      return size;
    },
  };
}
