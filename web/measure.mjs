// Converts a WAV of 16 kHz, mono, 16 bits in Node.js by the page's own code and WebAssembly, and prints the computing time, which a busy
// machine does not change as it changes the page's real-time factor:  node measure.mjs SOURCE.wav REFERENCE.wav
import { readFileSync } from "node:fs";
import { convert, measureVoice } from "./src/convert.js";
import { Graphs } from "./src/graphs.js";

globalThis.self = globalThis;
globalThis.fetch = async (path) => new Response(readFileSync(path));

function read(path) {
  const bytes = readFileSync(path);
  const start = bytes.indexOf("data") + 8;
  return Float32Array.from({ length: (bytes.length - start) >> 1 }, (_, n) => bytes.readInt16LE(start + 2 * n) / 32768);
}

const spent = () => process.cpuUsage().user / 1e6;
const [source, reference] = process.argv.slice(2, 4).map(read);
const base = `${import.meta.dirname}/build/public/`;
let began = spent();
const graphs = await Graphs.load(base, false, () => {});
console.log(`models loaded: ${(spent() - began).toFixed(2)} s of computing`);
for (let run = 0; run < 3; run++) {
  began = spent();
  const voice = await measureVoice(graphs, reference, "the reference");
  const measured = spent();
  const made = await convert(graphs, source, voice);
  const seconds = made.wav.length / graphs.settings.mel.sample_rate;
  const factor = (spent() - measured) / seconds;
  console.log(`voice: ${(measured - began).toFixed(2)} s, conversion of ${seconds.toFixed(1)} s: ${(spent() - measured).toFixed(2)} s, factor ${factor.toFixed(3)}`);
}
