/** Installation of the app in the browser, so that it works without a network. */

const CHECK_EVERY_MS = 3_600_000;

/**
 * Install the service worker and wait until it serves this page, or a new release if it is whole.
 *
 * @param {string} [worker] path of the service worker; none = the app is not installed.
 * @param {(done: number, total: number) => void} [onProgress] called with bytes.
 * @returns {Promise<boolean>} whether the app works without a network.
 */
export async function installWorker(worker, onProgress = () => {}) {
  const container = navigator.serviceWorker;
  if (!worker || !container) return false; // no https, or a private window
  const hear = ({ data }) => {
    if (data?.kind === "progress") onProgress(data.done, data.total);
  };
  container.addEventListener("message", hear);
  container.startMessages();
  try {
    const address = new URL(worker, document.baseURI).href;
    const registration = await container.register(address, { updateViaCache: "none" });
    await takeOver(registration, container);
    const isActive = await waitForWorker(registration);
    setInterval(() => registration.update().catch(() => {}), CHECK_EVERY_MS);
    if (isActive) navigator.storage?.persist?.().catch(() => {});
    return isActive;
  } catch (error) {
    return container.controller !== null; // without a network the installed release is used
  } finally {
    container.removeEventListener("message", hear);
  }
}

/** Let a new release that is whole take over, and load the page again with it. */
async function takeOver(registration, container) {
  if (!registration.waiting || !container.controller) return;
  const changed = new Promise((resolve) => {
    container.addEventListener("controllerchange", () => resolve(true), { once: true });
    setTimeout(resolve, 3000, false); // another page uses the old release
  });
  registration.waiting.postMessage({ kind: "take over" });
  if (await changed) {
    location.reload();
    await new Promise(() => {});
  }
}

/** Wait until a worker is active; return whether one is. */
async function waitForWorker(registration) {
  if (registration.active) return true;
  const worker = registration.installing ?? registration.waiting;
  if (!worker) return false;
  await new Promise((resolve) => {
    const look = () => ["activated", "redundant"].includes(worker.state) && resolve(undefined);
    worker.addEventListener("statechange", look);
    look();
  });
  return worker.state === "activated";
}
