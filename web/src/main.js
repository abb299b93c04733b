// The page: what is said, whose voice, the result. All computing is in worker.js.
import { wavBlob } from "./wav.js";

const $ = (id) => document.getElementById(id);
const BASE = new URL("./", document.baseURI).href;
const RATE = 16000;
const state = { source: null, own: null, ready: false, busy: false, origin: "vcae", before: null, after: null };
// For the test of this page: the last result.
window.vcae = { last: null, state };

let worker;
let waiting = new Map();

function startWorker() {
  worker?.terminate();
  worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  waiting = new Map();
  worker.onmessage = ({ data }) => {
    const job = waiting.get(data.id);
    if (!job) return;
    if (data.share !== undefined) return job.progress(data.share);
    waiting.delete(data.id);
    if (data.error === undefined) job.done(data.result);
    else job.failed(new Error(data.error));
  };
  worker.onerror = (event) => waiting.forEach((job) => job.failed(new Error(event.message || "The models could not be started.")));
}

function ask(what, given, progress) {
  return new Promise((done, failed) => {
    const id = crypto.randomUUID?.() ?? String(Math.random());
    waiting.set(id, { done, failed, progress });
    worker.postMessage({ id, what, given });
  });
}

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

function showProgress(share) {
  $("progress").hidden = share === null;
  if (share !== null) $("progress").value = share;
}

function refresh() {
  $("convert").disabled = !(state.ready && state.source && !state.busy);
}

// The samples of a sound file, mixed to mono at the models' rate.
async function decode(bytes, name) {
  const context = new OfflineAudioContext(1, 1, RATE);
  let sound;
  try {
    sound = await context.decodeAudioData(bytes);
  } catch {
    throw new Error(`${name} could not be read as sound; try WAV, MP3 or FLAC.`);
  }
  const mono = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    sound.getChannelData(channel).forEach((value, n) => (mono[n] += value / sound.numberOfChannels));
  }
  return mono;
}

async function example(name) {
  const response = await fetch(`${BASE}clips/${name}.flac`);
  return decode(await response.arrayBuffer(), "the example");
}

function setPlayer(player, blob) {
  if (player.src) URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
}

function takeSource(wav, name) {
  state.source = wav;
  $("source-name").textContent = `${name}: ${(wav.length / RATE).toFixed(1)} s`;
  $("source-player").hidden = false;
  setPlayer($("source-player"), wavBlob(wav, RATE, name));
  refresh();
}

async function takeFile(file, kind) {
  try {
    const wav = await decode(await file.arrayBuffer(), file.name);
    if (kind === "source") return takeSource(wav, file.name);
    state.own = { wav, name: file.name };
    $("own-name").textContent = `${file.name}, ${(wav.length / RATE).toFixed(1)} s`;
    $("own-voice").hidden = false;
    $("own-voice").querySelector("input").checked = true;
  } catch (error) {
    say(error.message, true);
  }
}

// Recording.
let recorder = null;
async function record() {
  if (recorder) return recorder.stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false } });
    const pieces = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => pieces.push(event.data);
    recorder.onstop = () => {
      recorder = null;
      stream.getTracks().forEach((track) => track.stop());
      $("record").setAttribute("aria-pressed", "false");
      $("record").textContent = "Record";
      takeFile(new File(pieces, "Your recording"), "source");
    };
    recorder.start();
    $("record").setAttribute("aria-pressed", "true");
    $("record").textContent = "Stop";
  } catch (error) {
    say(`The microphone cannot be used (${error.message}); choose a file.`, true);
  }
}

async function run() {
  const chosen = document.querySelector("input[name=voice]:checked").value;
  state.busy = true;
  refresh();
  say("Converting ...");
  showProgress(0);
  try {
    const clip = chosen === "own" ? state.own.wav : await example(chosen);
    const name = chosen === "own" ? state.own.name : "the example";
    const given = { wav: state.source, clip, name, pitch: $("pitch").value };
    const made = await ask("convert", given, showProgress);
    window.vcae.last = made;
    [state.before, state.after] = [wavBlob(state.source, RATE, "before"), wavBlob(made.wav, RATE, `converted by ${state.origin}`)];
    $("result").hidden = false;
    choose("after");
    if ($("download").href) URL.revokeObjectURL($("download").href);
    $("download").href = URL.createObjectURL(state.after);
    const cleaned = made.denoised || made.voiceDenoised ? "; noise was removed first" : "";
    say(`${(state.source.length / RATE).toFixed(1)} s converted in ${made.convertS.toFixed(1)} s${cleaned}.`);
  } catch (error) {
    say(error.message, true);
  }
  showProgress(null);
  state.busy = false;
  refresh();
}

function choose(side) {
  const player = $("player");
  const [at, playing] = [player.currentTime, !player.paused];
  setPlayer(player, state[side]);
  player.currentTime = at;
  if (playing) player.play();
  $("side-a").setAttribute("aria-pressed", String(side === "before"));
  $("side-b").setAttribute("aria-pressed", String(side === "after"));
}

async function load(gpu) {
  state.ready = false;
  refresh();
  startWorker();
  showProgress(0);
  try {
    const loaded = await ask("load", { base: BASE, gpu }, showProgress);
    Object.assign(state, { ready: true, origin: loaded.origin, loaded });
    const threads = loaded.threads > 1 ? `, ${loaded.threads} threads` : "";
    say(`Ready (${loaded.device === "gpu" ? "GPU" : `processor${threads}`}).`);
  } catch (error) {
    say(error.message, true);
  }
  showProgress(null);
  refresh();
}

$("record").onclick = record;
$("convert").onclick = run;
$("side-a").onclick = () => choose("before");
$("side-b").onclick = () => choose("after");
$("source-example").onclick = async () => takeSource(await example("source"), "Example, VCTK p226");
$("source-file").onchange = ({ target }) => target.files[0] && takeFile(target.files[0], "source");
$("voice-file").onchange = ({ target }) => target.files[0] && takeFile(target.files[0], "voice");
$("gpu").onchange = ({ target }) => load(target.checked);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const kind = event.target.closest?.("section")?.getAttribute("aria-labelledby") === "step-voice" ? "voice" : "source";
  if (event.dataTransfer.files[0]) takeFile(event.dataTransfer.files[0], kind);
});

navigator.gpu?.requestAdapter().then((adapter) => ($("gpu-field").hidden = !adapter));
load(false);
if ("serviceWorker" in navigator && import.meta.env.PROD) {
  navigator.serviceWorker.register(`${BASE}sw.js`).then(() => navigator.serviceWorker.ready).then(() => {
    $("offline").textContent = "This page also works without a network now.";
  });
}
