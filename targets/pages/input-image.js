// A photo from a file, by drag and drop, by pasting, or from the camera.
import { openCamera } from "./camera.js";
import { acceptDrops, create, createButton, createFileButton } from "./dom.js";
import { ACCEPTED, preparePhoto } from "./photo.js";
import { createPhotoView } from "./photo-view.js";

/** Create the input of an app for photos; a chosen photo is sent at once. */
export function createInput({ config, words, runs, problem, mostBytes }) {
  const view = createPhotoView();

  async function take(file) {
    const isLatest = runs.choose();
    let photo;
    try {
      photo = await preparePhoto(file, mostBytes);
    } catch (error) {
      if (isLatest()) problem.show(error);
      return;
    }
    if (isLatest()) {
      view.show(photo, words.fill("photo"));
      fileButton.label.textContent = words.fill("choose_other_photo");
      runs.start(photo.blob, { view });
    }
    photo.picture.close();
  }

  const fileButton = createFileButton(words.fill("choose_photo"), ACCEPTED, take);
  const buttons = create("div", { class: "buttons centered" }, ...fileButton.nodes);
  const drop = create("div", { class: "drop" }, buttons, create("p", { class: "quiet" }, words.fill("drop_photo")));
  acceptDrops(drop, take);
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) take(file);
  });
  const element = create("div", {}, drop, view.element);
  if (config.camera) addCamera({ words, problem, take, buttons, drop });
  return { element };
}

function addCamera({ words, problem, take, buttons, drop }) {
  let camera = null;
  const open = createButton(words.fill("use_camera"), async () => {
    if (camera) return;
    problem.clear();
    const close = () => {
      camera = null;
      drop.hidden = false;
      open.focus();
    };
    camera = openCamera({ words, take, close });
    try {
      drop.before(await camera);
      drop.hidden = true;
    } catch (error) {
      camera = null;
      problem.show(error);
    }
  });
  buttons.append(open);
}
