// Photos as the model and the page both see them: upright, in a format that every backend decodes.
import { Failure } from "./failure.js";

export const ACCEPTED = "image/jpeg,image/png,image/webp,image/bmp";
const QUALITY = 0.95;
const MOST_ORIENTATION_BYTES = 256 * 1024;
const MOST_SIDE = 8192; // larger canvases fail on tablets
const MIB = 1024 * 1024;

/**
 * Return the photo to send and its picture.
 *
 * Cameras store photos sideways with a note how to turn them; models see the stored pixels. Such
 * photos, and formats that a backend may not decode, are drawn upright and sent as JPEG. All others
 * are sent byte for byte.
 */
export async function preparePhoto(file, mostBytes = 0) {
  if (!file.size) throw new Failure("file_empty");
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    throw new Failure("photo");
  }
  const head = new Uint8Array(await file.slice(0, MOST_ORIENTATION_BYTES).arrayBuffer());
  let blob = file;
  const changed = readOrientation(head) !== 1 || !isCommonFormat(head);
  if (changed || (mostBytes && file.size > mostBytes)) {
    blob = await encodePhoto(picture);
  }
  if (mostBytes && blob.size > mostBytes) {
    const [size, most] = [Math.ceil(blob.size / MIB), Math.floor(mostBytes / MIB)];
    picture.close();
    throw new Failure("photo_bytes", { values: { size, most } });
  }
  return { blob, picture };
}

/** Encode a bitmap or the current picture of a video as JPEG. */
export function encodePhoto(source) {
  const canvas = document.createElement("canvas");
  canvas.width = source.videoWidth ?? source.width;
  canvas.height = source.videoHeight ?? source.height;
  if (Math.max(canvas.width, canvas.height) > MOST_SIDE) throw new Failure("too_large");
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0);
  return new Promise((resolve, reject) => {
    const done = (blob) => (blob ? resolve(blob) : reject(new Failure("photo")));
    canvas.toBlob(done, "image/jpeg", QUALITY);
  });
}

function isCommonFormat(head) {
  const starts = (...bytes) => bytes.every((byte, index) => head[index] === byte);
  const webp = starts(0x52, 0x49, 0x46, 0x46) && head[8] === 0x57 && head[9] === 0x45;
  return starts(0xff, 0xd8) || starts(0x89, 0x50, 0x4e, 0x47) || starts(0x42, 0x4d) || webp;
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
