// Sounds as a mono WAV file of 16 bits, and the decoding of other formats.
import { Failure } from "./failure.js";
import { checkBytes } from "./file-size.js";

export const ACCEPTED = "audio/*,.wav";
const HEADER = 44;

/** Return the sound to send: WAV files byte for byte, others decoded and written as WAV. */
export async function prepareSound(file, rate, mostBytes = 0) {
  if (!file.size) throw new Failure("file_empty");
  const head = new TextDecoder("latin1").decode(await file.slice(0, 12).arrayBuffer());
  let blob;
  if (head.startsWith("RIFF") && head.endsWith("WAVE")) {
    blob = new Blob([file], { type: "audio/wav" });
  } else {
    blob = encodeWav(await decodeSound(file, rate), rate);
  }
  checkBytes(blob, mostBytes);
  return blob;
}

async function decodeSound(file, rate) {
  try {
    // Decoding resamples to the rate of the context.
    const context = new OfflineAudioContext(1, 1, rate);
    const sound = await context.decodeAudioData(await file.arrayBuffer());
    return mixChannels(sound);
  } catch {
    throw new Failure("sound");
  }
}

function mixChannels(sound) {
  const mixed = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel += 1) {
    const samples = sound.getChannelData(channel);
    for (let at = 0; at < mixed.length; at += 1) mixed[at] += samples[at] / sound.numberOfChannels;
  }
  return mixed;
}

/** Join blocks of samples that follow each other. */
export function joinSamples(blocks) {
  const whole = new Float32Array(blocks.reduce((count, block) => count + block.length, 0));
  let at = 0;
  for (const block of blocks) {
    whole.set(block, at);
    at += block.length;
  }
  return whole;
}

/** Change the sampling rate of samples from -1 to 1. */
export async function resample(samples, from, to) {
  if (from === to || !samples.length) return samples;
  const context = new OfflineAudioContext(1, Math.max(1, Math.round((samples.length * to) / from)), to);
  const sound = context.createBuffer(1, samples.length, from);
  sound.copyToChannel(samples, 0);
  const source = context.createBufferSource();
  source.buffer = sound;
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

/** Write samples from -1 to 1 as a mono WAV file of 16 bits. */
export function encodeWav(samples, rate) {
  const view = new DataView(new ArrayBuffer(HEADER + 2 * samples.length));
  const write = (offset, text) => {
    for (let at = 0; at < text.length; at += 1) view.setUint8(offset + at, text.charCodeAt(at));
  };
  write(0, "RIFF");
  view.setUint32(4, HEADER - 8 + 2 * samples.length, true);
  write(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format
  view.setUint16(20, 1, true); // integers
  view.setUint16(22, 1, true); // one channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  write(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  for (let at = 0; at < samples.length; at += 1) {
    const value = Math.max(-32768, Math.min(32767, Math.round(samples[at] * 32768)));
    view.setInt16(HEADER + 2 * at, value, true);
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}
