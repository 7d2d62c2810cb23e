// The microphone as blocks of samples, by an audio worklet.
import { openMedia, stopMedia } from "./camera.js";

// Models were trained on plain sound: no filter of the browser changes it.
const PLAIN = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };

/** Start the microphone; `onBlock(samples)` gets mono blocks. Returns its rate and `stop()`. */
export async function openMicrophone(rate, onBlock) {
  const stream = await openMedia("microphone", { audio: PLAIN });
  let context;
  try {
    context = await openContext(stream, rate);
    await context.audio.audioWorklet.addModule(new URL("microphone-worklet.js", import.meta.url));
  } catch (error) {
    stopMedia(stream);
    throw error;
  }
  const { audio, source } = context;
  const node = new AudioWorkletNode(audio, "microphone", { numberOfOutputs: 0 });
  node.port.onmessage = (event) => onBlock(event.data);
  source.connect(node);
  await audio.resume();
  const stop = () => {
    node.port.onmessage = null;
    source.disconnect();
    stopMedia(stream);
    window.removeEventListener("pagehide", stop);
    return audio.close();
  };
  window.addEventListener("pagehide", stop);
  return { rate: audio.sampleRate, stop };
}

async function openContext(stream, rate) {
  const audio = new AudioContext({ sampleRate: rate });
  try {
    return { audio, source: audio.createMediaStreamSource(stream) };
  } catch {
    await audio.close(); // some browsers take a microphone at its own rate only
    const own = new AudioContext();
    return { audio: own, source: own.createMediaStreamSource(stream) };
  }
}

/** Return the level of samples, 0 to 1, on a scale of decibels as ears hear it. */
export function computeLevel(samples) {
  let sum = 0;
  for (const value of samples) sum += value * value;
  const decibels = 10 * Math.log10(sum / Math.max(1, samples.length) + 1e-10);
  return Math.max(0, Math.min(1, (decibels + 60) / 60));
}
