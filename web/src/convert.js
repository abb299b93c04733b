// Analysis, voices and conversion, as vcae/light has them. Recordings are mono at the models' rate.
import {
  activeFrames,
  chooseFrames,
  classQuantiles,
  continuousLogF0,
  logF0Mean,
  logF0Statistics,
  mapQuantiles,
  moveF0,
  pulseTurns,
  sliceFrames,
  whiteNoise,
} from "./arrays.js";
import { number, whole } from "./graphs.js";
import { followEnvelope, Levels } from "./loudness.js";
import { findSpeech, isNoisy } from "./speech.js";

const SECTION_S = 10;
const MAX_S = 600;

function padded(wav, length) {
  const out = new Float32Array(length);
  out.set(wav);
  return out;
}

async function detectF0(graphs, wav, peak) {
  const { constants: c, mel, f0_min_hz: low, f0_max_hz: high } = graphs.settings;
  const hop = mel.hop_length;
  const n = 1 + Math.floor(wav.length / hop);
  const f0 = new Float32Array(n);
  const scale = peak > 0 ? 0.5 / peak : 1;
  for (let start = 0; start < n; start += c.block_frames) {
    const stop = Math.min(start + c.block_frames, n);
    const first = Math.max(start - c.left_frames, 0);
    const last = stop === n ? n : Math.min(stop + c.right_frames, n);
    const part = wav.slice(first * hop, Math.min(last * hop, wav.length)).map((value) => value * scale);
    const audio = last === n ? padded(part, part.length + hop) : part;
    const given = { audio: [audio, [1, audio.length]], fmin: [Float32Array.of(low), []], fmax: [Float32Array.of(high), []] };
    const [pitch, confidence] = await graphs.run("f0", given);
    for (let t = start; t < stop; t++) {
      const at = t - first;
      // The detector answers digital silence with random voiced frames.
      const loud = audio.subarray(at * hop, (at + 1) * hop).some((value) => Math.abs(value) >= 1e-3);
      f0[t] = loud && confidence[at] >= c.voiced_confidence ? pitch[at] : 0;
    }
  }
  return f0;
}

// Bring a recording to the models' level, and measure mel and F0.
export async function analyse(graphs, given, name) {
  const { constants: c, mel: m } = graphs.settings;
  const seconds = given.length / m.sample_rate;
  if (!(seconds >= 0.5 && seconds <= MAX_S)) {
    throw new Error(`${name} is ${seconds.toFixed(2)} s long; 0.5 to ${MAX_S} s are needed.`);
  }
  let levels = new Levels(given, m.sample_rate, c);
  if (levels.level() < c.silence_level) throw new Error(`${name} is silent; give a recording with sound in it.`);
  let wav = given;
  if (Math.abs(levels.mean) > c.max_offset * levels.level()) {
    wav = given.map((value) => value - levels.mean);
    levels = new Levels(wav, m.sample_rate, c);
  }
  const gain = levels.gain;
  wav = wav.map((value) => Math.min(Math.max(value * gain, -c.peak_limit), c.peak_limit));
  const frames = 1 + Math.floor(wav.length / m.hop_length);
  const size = frames * m.hop_length;
  const [mel] = await graphs.run("mel", { wav: [padded(wav, size), [1, size]], n_samples: whole(wav.length) });
  const f0 = await detectF0(graphs, wav, Math.min(levels.peak * gain, c.peak_limit));
  const active = activeFrames(mel, frames, c.active_range);
  return { mel, frames, f0, active, n: wav.length, level: levels.level(), levels: levels.scaled(gain) };
}

async function denoised(graphs, wav) {
  const { constants: c, denoiser: d, mel } = graphs.settings;
  const level = new Levels(wav, mel.sample_rate, c).level();
  const gain = Math.min(Math.max(level, c.target_level * d.quieter), c.target_level * d.louder) / level;
  const size = Math.ceil((wav.length + d.hop_length) / d.hop_length) * d.hop_length;
  const given = padded(wav.map((value) => value * gain), size);
  const [clean] = await graphs.run("denoiser", { wav: [given, [1, size]], strength: number(c.denoise_strength) });
  return Float32Array.from(clean.subarray(0, wav.length), (value) => value / gain);
}

async function analyseClean(graphs, wav, name, belowDb) {
  const seen = await analyse(graphs, wav, name);
  if (!isNoisy(findSpeech(seen, graphs.settings), belowDb, graphs.settings.constants)) return seen;
  return { ...(await analyse(graphs, await denoised(graphs, wav), name)), denoised: true };
}

async function encode(graphs, mel, frames, active) {
  const bands = graphs.settings.mel.n_mels;
  const weight = active ?? activeFrames(mel, frames, graphs.settings.constants.active_range);
  const [latent] = await graphs.run("content", { mel: [mel, [1, bands, frames]], active: [weight, [1, 1, frames]] });
  return { latent, steps: latent.length / graphs.settings.latent_dim };
}

async function decode(graphs, latent, steps, f0, embedding, mean, voice) {
  const { latent_dim: dim, reference_width: width } = graphs.settings;
  const count = voice ? voice.steps : 1;
  const [mel] = await graphs.run("decoder", {
    latent: [latent, [1, dim, steps]],
    f0: [f0, [1, f0.length]],
    f0_mean: [Float32Array.of(mean), [1, 1]],
    speaker_embedding: [embedding, [1, embedding.length]],
    keys: [voice ? voice.keys : new Float32Array(dim), [1, count, dim]],
    values: [voice ? voice.values : new Float32Array(width), [1, count, width]],
    log_weights: [new Float32Array(count).fill(-Math.log(count)), [1, count]],
    gate: [Float32Array.of(voice ? 1 : 0), [1, 1, 1]],
  });
  return mel;
}

// Rows of steps from a latent whose channels come one after another.
function transposed(latent, steps, dim) {
  const out = new Float32Array(latent.length);
  for (let d = 0; d < dim; d++) for (let s = 0; s < steps; s++) out[s * dim + d] = latent[d * steps + s];
  return out;
}

// Measure the voice of a recording.
export async function measureVoice(graphs, wav, name) {
  const { constants: c, mel: m, stride, latent_dim: dim } = graphs.settings;
  const bands = m.n_mels;
  const rate = m.sample_rate / m.hop_length;
  const heard = await analyseClean(graphs, wav, name, c.noisy_reference_db);
  const speech = findSpeech(heard, graphs.settings);
  if (speech.speechS < c.min_speech_s) {
    throw new Error(`${speech.speechS.toFixed(1)} s of speech found in ${name}; give ${c.good_speech_s} s or more.`);
  }
  const mel = chooseFrames(heard.mel, heard.frames, speech.keep);
  const f0 = heard.f0.filter((_, t) => speech.keep[t]);
  const frames = f0.length;
  const active = activeFrames(mel, frames, c.active_range);
  const [embedding] = await graphs.run("speaker", { mel: [mel, [1, bands, frames]], active: [active, [1, 1, frames]] });
  const { latent, steps } = await encode(graphs, mel, frames, active);
  const copy = await decode(graphs, latent, steps, f0, embedding, logF0Mean(f0));
  const at = [...active.keys()].filter((t) => active[t]);
  const chosen = at.filter((_, i) => i % Math.ceil(at.length / c.max_memory) === 0);
  const errorKeys = new Float32Array(chosen.length * (dim + 1));
  const errorValues = new Float32Array(chosen.length * bands);
  chosen.forEach((t, i) => {
    for (let d = 0; d < dim; d++) errorKeys[i * (dim + 1) + d] = latent[d * steps + Math.floor(t / stride)];
    errorKeys[i * (dim + 1) + dim] = f0[t] > 0 ? c.voicing_weight : 0;
    for (let b = 0; b < bands; b++) errorValues[i * bands + b] = mel[b * frames + t] - copy[b * frames + t];
  });
  const bandwidth = c.bandwidth * Math.max(1, chosen.length / c.bandwidth_frames) ** -c.bandwidth_exponent;
  const kept = Math.min(frames, Math.round(60 * rate));
  const first = sliceFrames(mel, frames, 0, kept);
  const known = await encode(graphs, first, kept);
  const [values] = await graphs.run("reference", { mel: [first, [1, bands, kept]] });
  return {
    ...logF0Statistics(f0),
    embedding,
    quantiles: classQuantiles(mel, frames, active, f0, c),
    errorKeys,
    errorValues,
    bandwidth,
    keys: transposed(known.latent, known.steps, dim),
    values,
    steps: known.steps,
    speechS: active.reduce((sum, on) => sum + on, 0) / rate,
    denoised: Boolean(heard.denoised),
  };
}

async function convertMel(graphs, seen, f0, voice, progress) {
  const { constants: c, mel: m, stride, latent_dim: dim } = graphs.settings;
  const [bands, rate, n] = [m.n_mels, m.sample_rate / m.hop_length, seen.frames];
  const { latent, steps } = await encode(graphs, seen.mel, n, seen.active);
  const mean = logF0Mean(f0);
  const trust = Math.min(1, voice.speechS / c.full_match_s);
  const reach = Math.ceil(graphs.settings.decoder_reach / stride) * stride;
  const step = Math.floor((SECTION_S * rate) / stride) * stride;
  const made = new Float32Array(bands * n);
  for (let start = 0; start < n; start += step) {
    const [first, last] = [Math.max(start - reach, 0), Math.min(start + step + reach, n)];
    const [left, right] = [first / stride, Math.ceil(last / stride)];
    const code = sliceFrames(latent, steps, left, right);
    const pitch = f0.slice(first, last);
    const count = last - first;
    const mel = await decode(graphs, code, right - left, pitch, voice.embedding, mean, voice);
    const size = voice.errorKeys.length / (dim + 1);
    const [corrected] = await graphs.run("correction", {
      mel: [mel, [1, bands, count]],
      latent: [code, [1, dim, right - left]],
      f0: [pitch, [1, count]],
      keys: [voice.errorKeys, [size, dim + 1]],
      values: [voice.errorValues, [size, bands]],
      log_weights: [new Float32Array(size), [size]],
      scale: number(2 * voice.bandwidth ** 2 * (dim + 1)),
      strength: number(trust),
    });
    const stop = Math.min(start + step, n);
    for (let b = 0; b < bands; b++) {
      made.set(corrected.subarray(b * count + start - first, b * count + stop - first), b * n + start);
    }
    progress(stop / n);
  }
  const active = activeFrames(made, n, c.active_range);
  const have = classQuantiles(made, n, active, f0, c);
  const seconds = active.reduce((sum, on) => sum + on, 0) / rate;
  const strength = c.distribution * trust * Math.min(1, seconds / c.distribution_s);
  return mapQuantiles(made, n, f0, have, voice.quantiles, strength);
}

async function vocode(graphs, mel, f0, n, seed, progress) {
  const { mel: m, vocoder_reach: context } = graphs.settings;
  const [hop, bands, frames] = [m.hop_length, m.n_mels, f0.length];
  const logF0 = continuousLogF0(f0);
  const turns = pulseTurns(logF0, m.sample_rate, hop);
  const noise = whiteNoise(seed, frames * hop);
  const step = Math.round((SECTION_S * m.sample_rate) / hop);
  const out = new Float32Array(n);
  for (let first = 0; first * hop < n; first += step) {
    const [start, stop] = [Math.max(first - context, 0), Math.min(first + step + context, frames)];
    const [begin, end] = [start * hop, stop === frames ? n : (stop - 1) * hop];
    const count = stop - start;
    const [wav] = await graphs.run("vocoder", {
      mel: [sliceFrames(mel, frames, start, stop), [1, bands, count]],
      log_f0: [logF0.slice(start, stop), [1, count]],
      voiced: [Float32Array.from(f0.subarray(start, stop), (hz) => (hz > 0 ? 1 : 0)), [1, count]],
      turns: [turns.slice(start, stop), [1, count]],
      noise: [noise.slice(begin, begin + count * hop), [1, count * hop]],
      n_samples: whole(end - begin),
    });
    const last = Math.min((first + step) * hop, n);
    out.set(wav.subarray(first * hop - begin, last - begin), first * hop);
    progress(last / n);
  }
  return out;
}

// Convert a recording to a voice: the sound, marked as synthetic, with the mel and F0 that it was made from.
export async function convert(graphs, wav, voice, { pitch = "auto", seed = 0 } = {}, progress = () => {}) {
  const { constants: c, mel: m } = graphs.settings;
  const seen = await analyseClean(graphs, wav, "The recording", c.noisy_db);
  progress(0.2);
  const f0 = moveF0(seen.f0, pitch, voice, graphs.settings);
  const mel = await convertMel(graphs, seen, f0, voice, (share) => progress(0.2 + 0.4 * share));
  const made = await vocode(graphs, mel, f0, seen.n, seed, (share) => progress(0.6 + 0.35 * share));
  const levelled = followEnvelope(made, seen.levels, seen.level, m.sample_rate, c);
  const size = Math.ceil(levelled.length / 256) * 256;
  const [marked] = await graphs.run("watermark", { wav: [padded(levelled, size), [1, size]] });
  progress(1);
  return { wav: marked.slice(0, levelled.length), mel, frames: seen.frames, f0, denoised: Boolean(seen.denoised) };
}
