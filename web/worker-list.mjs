// Writes the list of the site's files, with a hash of them all, into its service worker, and reports the size.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";

const site = "build/site";
const names = readdirSync(site, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => `${entry.parentPath}/${entry.name}`.slice(site.length + 1))
  .filter((name) => name !== "sw.js")
  .sort();
// What vite copies of onnxruntime is not asked for: the page unpacks its own copy.
for (const name of names.filter((name) => name.endsWith(".wasm"))) {
  rmSync(`${site}/${name}`);
}
const kept = names.filter((name) => !name.endsWith(".wasm"));
const hash = createHash("sha256");
kept.forEach((name) => hash.update(name).update(readFileSync(`${site}/${name}`)));
const text = readFileSync("src/sw.js", "utf8")
  .replace("__FILES__", JSON.stringify(["./", ...kept.filter((name) => !name.startsWith("models/gpu"))]))
  .replace("__VERSION__", hash.digest("hex").slice(0, 16));
writeFileSync(`${site}/sw.js`, text);
const size = [...kept, "sw.js"].reduce((sum, name) => sum + statSync(`${site}/${name}`).size, 0);
console.log(`${kept.length + 1} files, ${(size / 1e6).toFixed(1)} MB`);
