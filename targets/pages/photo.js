// Photos as the model and the page both see them: upright, in a format that every backend decodes.
import { Failure } from "./failure.js";
import { checkBytes, roundSizes } from "./file-size.js";

export const ACCEPTED = "image/jpeg,image/png,image/webp,image/bmp";
const QUALITY = 0.95;
const MOST_ORIENTATION_BYTES = 256 * 1024;
const MOST_PIXELS = 64e6; // backends refuse larger photos
const MOST_DRAWN_PIXELS = 16e6; // larger canvases stay empty on some tablets

/**
 * Return the photo to send, the size that it is sent in, and its picture.
 *
 * Cameras store photos sideways with a note how to turn them; models see the stored pixels. Such
 * photos, formats that a backend may not decode, and photos that are too large for it are drawn
 * upright and sent as JPEG. All others are sent byte for byte.
 */
export async function preparePhoto(file, mostBytes = 0) {
  checkBytes(file);
  const picture = await decodePhoto(file);
  const head = new Uint8Array(await file.slice(0, MOST_ORIENTATION_BYTES).arrayBuffer());
  const type = findType(head);
  const isPlain = type && readOrientation(head) === 1;
  const fits = picture.width * picture.height <= MOST_PIXELS && !(mostBytes && file.size > mostBytes);
  const sent = isPlain && fits
    ? { blob: new Blob([file], { type }), size: { width: picture.width, height: picture.height } }
    : await encodePhoto(picture);
  if (mostBytes && sent.blob.size > mostBytes) {
    picture.close();
    throw new Failure("photo_bytes", { values: roundSizes(sent.blob, mostBytes) });
  }
  return { ...sent, picture };
}

/** Decode a photo, upright. */
async function decodePhoto(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch (error) {
    if (error.name !== "TypeError") throw new Failure("photo");
  }
  try {
    return await createImageBitmap(file); // older browsers do not know the option
  } catch {
    throw new Failure("photo");
  }
}

/** Encode a bitmap or the current picture of a video as JPEG, smaller if it is very large. */
export async function encodePhoto(source) {
  const [width, height] = [source.videoWidth ?? source.width, source.videoHeight ?? source.height];
  const scale = Math.min(1, Math.sqrt(MOST_DRAWN_PIXELS / (width * height)));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  if (!blob) throw new Failure("photo");
  return { blob, size: { width: canvas.width, height: canvas.height } };
}

/** Return the media type of a photo that every backend decodes, by its first bytes. */
function findType(head) {
  const starts = (...bytes) => bytes.every((byte, index) => head[index] === byte);
  if (starts(0xff, 0xd8)) return "image/jpeg";
  if (starts(0x89, 0x50, 0x4e, 0x47)) return "image/png";
  if (starts(0x42, 0x4d)) return "image/bmp";
  return starts(0x52, 0x49, 0x46, 0x46) && head[8] === 0x57 && head[9] === 0x45 ? "image/webp" : "";
}

/** Return the EXIF orientation (1 to 8) of a JPEG; 1 where there is none. */
export function readOrientation(head) {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const fits = (offset, bytes) => offset + bytes <= head.length;
  if (!fits(0, 4) || view.getUint16(0) !== 0xffd8) return 1;
  let offset = 2;
  while (fits(offset, 10) && head[offset] === 0xff && head[offset + 1] !== 0xda) {
    if (head[offset + 1] === 0xe1 && view.getUint32(offset + 4) === 0x45786966) {
      return readTag(view, offset + 10, fits);
    }
    offset += 2 + view.getUint16(offset + 2);
  }
  return 1;
}

function readTag(view, start, fits) {
  if (!fits(start, 8)) return 1;
  const little = view.getUint16(start) === 0x4949;
  const entries = start + view.getUint32(start + 4, little);
  if (!fits(entries, 2)) return 1;
  const count = view.getUint16(entries, little);
  for (let entry = entries + 2; entry < entries + 2 + 12 * count && fits(entry, 12); entry += 12) {
    if (view.getUint16(entry, little) === 0x0112) {
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}
