/**
 * Service worker of the app: all files of one release, cached whole and served from there.
 *
 * A new release is downloaded beside the old one and checked by digests. Until it is whole and the
 * page asks for it, the old one is served.
 */

/** Name, release and files ({path, digest, bytes}) of this package; filled in by packaging. */
const PACKAGE = { name: "app", release: "none", files: [] };

const PREFIX = `edgekit-${PACKAGE.name}-`;
const CACHE = PREFIX + PACKAGE.release;
const DIGEST = "X-Edgekit-Digest";
const PATHS = new Map(PACKAGE.files.map((file) => [new URL(file.path, self.location).href, file]));
const START = new URL("index.html", self.location).href;
const TOTAL = PACKAGE.files.reduce((sum, file) => sum + file.bytes, 0);

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", (event) => event.waitUntil(answerMessage(event.data)));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin) return;
  event.respondWith(answer(request, url));
});

/** Download every file; if one fails, this worker is dropped, and the next try goes on from here. */
async function install() {
  const cache = await caches.open(CACHE);
  const older = await openOlderCaches();
  let done = 0;
  await tell(0);
  await Promise.all(
    [...PATHS].map(async ([address, file]) => {
      if (!(await hasFile(cache, address, file))) {
        await cache.put(address, await getFile(address, file, older));
      }
      done += file.bytes;
      await tell(done);
    }),
  );
}

async function openOlderCaches() {
  const names = (await caches.keys()).filter((name) => name.startsWith(PREFIX) && name !== CACHE);
  return Promise.all(names.map((name) => caches.open(name)));
}

async function hasFile(cache, address, file) {
  return (await cache.match(address))?.headers.get(DIGEST) === file.digest;
}

/** Return a file of an older release if it is the same, else from the server. */
async function getFile(address, file, older) {
  for (const cache of older) {
    if (await hasFile(cache, address, file)) return cache.match(address);
  }
  // A file that the browser has cached already may be of the old release.
  for (const mode of ["default", "reload"]) {
    const response = await fetch(address, { cache: mode, credentials: "same-origin" });
    if (!response.ok) throw new Error(`${file.path}: ${response.status}`);
    const bytes = await response.arrayBuffer();
    if ((await computeDigest(bytes)) === file.digest) return keepResponse(response, bytes, file);
  }
  throw new Error(`${file.path}: not the file of this release`);
}

/** Return a response for the cache, whose bytes are not compressed. */
function keepResponse(response, bytes, file) {
  const headers = new Headers(response.headers);
  for (const name of ["Content-Encoding", "Content-Length", "Transfer-Encoding", "Vary"]) {
    headers.delete(name);
  }
  headers.set(DIGEST, file.digest);
  return new Response(bytes, { status: 200, headers });
}

async function computeDigest(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Tell all pages how much is downloaded. */
async function tell(done) {
  const pages = await self.clients.matchAll({ includeUncontrolled: true, type: "window" });
  for (const page of pages) page.postMessage({ kind: "progress", done, total: TOTAL });
}

/** Remove older releases and serve the pages that are open. */
async function activate() {
  for (const name of await caches.keys()) {
    if (name.startsWith(PREFIX) && name !== CACHE) await caches.delete(name);
  }
  await self.clients.claim();
}

/** Take over when the page asks, unless other pages use the old release. */
async function answerMessage(message) {
  if (message?.kind !== "take over") return;
  const pages = await self.clients.matchAll({ includeUncontrolled: true, type: "window" });
  if (pages.length <= 1) await self.skipWaiting();
}

/** Answer from the cache; what is not in the package comes from the server as it is. */
async function answer(request, url) {
  url.search = "";
  url.hash = "";
  const address = url.href.endsWith("/") ? START : url.href;
  if (!PATHS.has(address)) return fetch(request);
  const cache = await caches.open(CACHE);
  return (await cache.match(address)) ?? fetchAgain(cache, address);
}

/** Return a file that the browser has dropped from the cache, unless the server has another one. */
async function fetchAgain(cache, address) {
  const response = await getFile(address, PATHS.get(address), []);
  await cache.put(address, response.clone()).catch(() => {}); // the disk may be full
  return response;
}
