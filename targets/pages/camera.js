// The camera: a live picture and a button that takes a photo of it.
import { create, createButton } from "./dom.js";
import { Failure } from "./failure.js";
import { encodePhoto } from "./photo.js";

const WIDTH = 1280;

const REASONS = {
  NotAllowedError: "blocked",
  SecurityError: "blocked",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
};

/** Open a camera or microphone; errors say what to do. `device` is "camera" or "microphone". */
export async function openMedia(device, constraints) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Failure("insecure");
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    throw new Failure(`${device}_${REASONS[error.name] ?? "used"}`);
  }
}

/** Stop the tracks of a stream, so that the camera and its light are off. */
export function stopMedia(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** Show the camera; `take` gets each photo, `close` hears that the user closed it. */
export async function openCamera({ words, take, close }) {
  const size = { width: { ideal: WIDTH } };
  let facing = "environment";
  const open = () => openMedia("camera", { video: { facingMode: facing, ...size } });
  let stream = await open();
  const video = create("video", { autoplay: true, playsinline: true, "aria-label": words.fill("camera_picture") });
  video.muted = true;
  video.srcObject = stream;

  const shoot = createButton(words.fill("take_photo"), async () => {
    if (!video.videoWidth) return;
    const { blob } = await encodePhoto(video);
    end();
    take(blob);
  }, { class: "main" });

  async function turn() {
    stopMedia(stream);
    facing = facing === "environment" ? "user" : "environment";
    try {
      stream = video.srcObject = await open();
    } catch {
      end();
    }
  }

  function end() {
    stopMedia(stream);
    panel.remove();
    window.removeEventListener("pagehide", end);
    close();
  }

  const buttons = [shoot, createButton(words.fill("close_camera"), end)];
  const devices = await navigator.mediaDevices.enumerateDevices();
  if (devices.filter((device) => device.kind === "videoinput").length > 1) {
    buttons.splice(1, 0, createButton(words.fill("switch_camera"), turn));
  }
  const panel = create(
    "div",
    { class: "camera" },
    video,
    create("div", { class: "buttons centered" }, ...buttons),
  );
  window.addEventListener("pagehide", end);
  return panel;
}
