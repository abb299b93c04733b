// Compresses the graphs and onnxruntime's WebAssembly into build/public, and copies the clips: any static server then serves them as they are.
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const graphs = "build/graphs";
const out = "build/public";
const runtime = "node_modules/onnxruntime-web/dist";
if (!existsSync(`${graphs}/vcae.json`)) {
  throw new Error(`${graphs} has no graphs; write them with: vcae export onnx ${graphs} --bits 8`);
}
rmSync(out, { recursive: true, force: true });
mkdirSync(`${out}/models`, { recursive: true });
mkdirSync(`${out}/clips`, { recursive: true });
// Without .gz in the name, as some servers announce that as an encoding and browsers then unpack it themselves.
const pack = (from, to) => writeFileSync(to, gzipSync(readFileSync(from), { level: 9 }));
for (const name of readdirSync(graphs).filter((name) => name.endsWith(".onnx"))) {
  pack(`${graphs}/${name}`, `${out}/models/${name}.packed`);
}
copyFileSync(`${graphs}/vcae.json`, `${out}/models/vcae.json`);
pack(`${runtime}/ort-wasm-simd-threaded.wasm`, `${out}/models/cpu.wasm.packed`);
pack(`${runtime}/ort-wasm-simd-threaded.asyncify.wasm`, `${out}/models/gpu.wasm.packed`);
for (const name of ["source", "reference", "reference2", "noisy"]) {
  copyFileSync(`../demo/clips/${name}.flac`, `${out}/clips/${name}.flac`);
}
copyFileSync("../demo/clips/NOTICE.md", `${out}/clips/NOTICE.md`);
