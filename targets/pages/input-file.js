// One file of any kind, for an app that watches a folder.
import { acceptDrops, create, createFileButton } from "./dom.js";
import { checkBytes } from "./file-size.js";
import { preparePhoto } from "./photo.js";
import { createPhotoView } from "./photo-view.js";

/** Create the input; photos are shown with their results, other files are sent as they are. */
export function createInput({ words, runs, problem, mostBytes }) {
  const view = createPhotoView();
  const chosen = create("p", { class: "quiet" });

  async function take(file) {
    const isLatest = runs.choose();
    view.element.hidden = true;
    chosen.textContent = words.fill("chosen_file", { name: file.name });
    try {
      if (!file.type.startsWith("image/")) {
        checkBytes(file, mostBytes);
        runs.start(file);
        return;
      }
      const photo = await preparePhoto(file, mostBytes);
      if (isLatest()) {
        view.show(photo, words.fill("photo"));
        runs.start(photo.blob, { view });
      }
      photo.picture.close();
    } catch (error) {
      if (isLatest()) problem.show(error);
    }
  }

  const button = createFileButton(words.fill("choose_file"), "", take);
  const drop = create("div", { class: "drop" }, create("div", { class: "buttons centered" }, ...button.nodes));
  acceptDrops(drop, take);
  const note = create("p", {}, words.fill("folder_note"));
  return { element: create("div", {}, note, drop, chosen, view.element) };
}
