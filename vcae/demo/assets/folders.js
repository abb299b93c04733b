/* Folders of recordings: chosen by a button `PLACE-folder`, or dropped on the file input `#PLACE`, whose list then has the names with folders. */
"use strict";

const SOUND = /\.(wav|flac|ogg|oga|opus|aiff?|au|mp3|mp2|m4a|aac|wma|caf|w64|mp4|mov|mkv|webm)$/i;
const chosenPaths = new Map();

/* Hands files to gradio's own input, and keeps their paths in the order of the files. */
function hand(place, found) {
  const sounds = found.filter(({ file, path }) => file.type.startsWith("audio/") || SOUND.test(path));
  sounds.sort((a, b) => (a.path < b.path ? -1 : 1));
  const input = document.querySelector(`#${place} input[type=file]`);
  if (!sounds.length || !input) return;
  const list = new DataTransfer();
  for (const { file } of sounds) list.items.add(file);
  chosenPaths.set(place, sounds.map(({ path }) => path));
  input.files = list.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

document.addEventListener("click", (event) => {
  const place = event.target.closest?.("[id$=-folder]")?.id.replace(/-folder$/, "");
  if (!place) return;
  const input = Object.assign(document.createElement("input"), { type: "file", webkitdirectory: true });
  input.addEventListener("change", () => hand(place, [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name }))));
  input.click();
});

const read = (entry) => new Promise((done, failed) => entry.file(done, failed));
const list = (reader) => new Promise((done, failed) => reader.readEntries(done, failed));
async function walk(entry) {
  if (entry.isFile) return [{ file: await read(entry), path: entry.fullPath.replace(/^\//, "") }];
  const reader = entry.createReader(), found = [];
  // A browser gives at most a hundred entries at a time.
  for (let some = await list(reader); some.length; some = await list(reader)) for (const each of some) found.push(...(await walk(each)));
  return found;
}
document.addEventListener("drop", (event) => {
  const place = [...document.querySelectorAll("[id$=-folder]")].map((button) => button.id.replace(/-folder$/, "")).find((id) => event.target.closest?.(`#${id}`));
  const entries = [...(event.dataTransfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!place || !entries.some((entry) => entry.isDirectory)) return;
  event.preventDefault();
  event.stopPropagation();
  Promise.all(entries.map(walk)).then((found) => hand(place, found.flat()));
}, true);

/* The paths of the files that an input has now: none if they are not those that came with folders. */
window.vcaePaths = (place, files) => {
  const paths = chosenPaths.get(place) ?? [];
  const names = (files ?? []).map((file) => file.orig_name ?? "");
  const same = paths.length === names.length && paths.every((path, n) => path.split("/").pop() === names[n]);
  return same ? JSON.stringify(paths) : "";
};
