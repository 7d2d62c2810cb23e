// Sizes of files that an app takes.
import { Failure } from "./failure.js";

const MIB = 1024 * 1024;

/** Refuse an empty file, and one that the app would refuse, before it is sent. */
export function checkBytes(blob, mostBytes = 0) {
  if (!blob.size) throw new Failure("file_empty");
  if (mostBytes && blob.size > mostBytes) {
    throw new Failure("file_bytes", { values: roundSizes(blob, mostBytes) });
  }
}

/** Return the size of a file and the largest one that the app takes, in whole MiB. */
export function roundSizes(blob, mostBytes) {
  return { size: Math.ceil(blob.size / MIB), most: Math.floor(mostBytes / MIB) };
}
