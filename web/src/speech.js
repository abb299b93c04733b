// Speech activity and noise of a recording, as vcae/audio/speech.py finds them.
import { frameLevels, quantile } from "./arrays.js";

function runs(mask) {
  const found = [];
  let start = -1;
  for (let t = 0; t <= mask.length; t++) {
    if (mask[t] && start < 0) start = t;
    if (!mask[t] && start >= 0) {
      found.push([start, t]);
      start = -1;
    }
  }
  return found;
}

function widen(mask, n) {
  const wide = new Array(mask.length).fill(false);
  for (const [start, stop] of runs(mask)) wide.fill(true, Math.max(start - n, 0), stop + n);
  return wide;
}

function close(mask, n) {
  const closed = [...mask];
  const found = runs(mask);
  for (let i = 1; i < found.length; i++) {
    if (found[i][0] - found[i - 1][1] <= n) closed.fill(true, found[i - 1][1], found[i][0]);
  }
  return closed;
}

function movingRuns(f0, c) {
  const kept = new Array(f0.length).fill(false);
  for (const [start, stop] of runs(Array.from(f0, (hz) => hz > 0))) {
    if (stop - start < c.min_run_frames) continue;
    const steps = [];
    for (let t = start + 1; t < stop; t++) steps.push(Math.abs(Math.log(f0[t]) - Math.log(f0[t - 1])));
    if (quantile(Float64Array.from(steps).sort(), 0.5) >= c.min_pitch_step) kept.fill(true, start, stop);
  }
  return kept;
}

// Frames to keep, seconds of speech, and its range of levels in dB.
export function findSpeech(seen, settings) {
  const c = settings.constants;
  const rate = settings.mel.sample_rate / settings.mel.hop_length;
  const levels = frameLevels(seen.mel, seen.frames);
  let voiced = movingRuns(seen.f0, c);
  const wide = widen(voiced, Math.round(rate));
  const near = levels.filter((_, t) => wide[t]).sort();
  const rangeDb = near.length ? ((quantile(near, 0.95) - quantile(near, 0.05)) * 20) / Math.LN10 : 0;
  if (rangeDb < c.steady_db) voiced = voiced.map(() => false);
  const spoken = widen(voiced, Math.round(c.near_s * rate)).filter((on, t) => on && seen.active[t]).length;
  const keep = close(widen(voiced, Math.round(c.around_s * rate)), Math.round(c.pause_s * rate));
  return { keep, speechS: spoken / rate, rangeDb };
}

export function isNoisy(speech, belowDb, c) {
  return speech.speechS >= c.min_judged_s && speech.rangeDb < belowDb;
}
