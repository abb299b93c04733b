// Arithmetic of frames and F0, as vcae/light/arrays.py has it. A mel is one Float32Array, band after band, with its number of frames.

export function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const left = Math.min(Math.floor(at), sorted.length - 2);
  if (sorted.length < 2) return sorted[0];
  return sorted[left] + (sorted[left + 1] - sorted[left]) * (at - left);
}

export function frameLevels(mel, frames) {
  const bands = mel.length / frames;
  const level = new Float32Array(frames);
  for (let b = 0; b < bands; b++) for (let t = 0; t < frames; t++) level[t] += mel[b * frames + t] / bands;
  return level;
}

export function activeFrames(mel, frames, range) {
  const level = frameLevels(mel, frames);
  const top = Float32Array.from(level).sort()[Math.floor((frames - 1) * 0.95)];
  return Float32Array.from(level, (value) => (value > top - range ? 1 : 0));
}

export function chooseFrames(mel, frames, keep) {
  const at = [...keep.keys()].filter((t) => keep[t]);
  const bands = mel.length / frames;
  const out = new Float32Array(bands * at.length);
  for (let b = 0; b < bands; b++) at.forEach((t, i) => (out[b * at.length + i] = mel[b * frames + t]));
  return out;
}

export function sliceFrames(mel, frames, start, stop) {
  const bands = mel.length / frames;
  const out = new Float32Array(bands * (stop - start));
  for (let b = 0; b < bands; b++) out.set(mel.subarray(b * frames + start, b * frames + stop), b * (stop - start));
  return out;
}

export function logF0Statistics(f0) {
  const voiced = Float64Array.from(f0.filter((hz) => hz > 0), Math.log).sort();
  if (!voiced.length) return { median: NaN, spread: NaN };
  return { median: quantile(voiced, 0.5), spread: (quantile(voiced, 0.84) - quantile(voiced, 0.16)) / 2 };
}

export function logF0Mean(f0) {
  const voiced = f0.filter((hz) => hz > 0);
  return voiced.length ? voiced.reduce((sum, hz) => sum + Math.log(hz), 0) / voiced.length : 0;
}

export function continuousLogF0(f0, defaultHz = 150) {
  const out = new Float32Array(f0.length);
  let left = -1;
  for (let t = 0; t <= f0.length; t++) {
    if (t < f0.length && f0[t] <= 0) continue;
    const right = t < f0.length ? t : -1;
    const [a, b] = [left < 0 ? right : left, right < 0 ? left : right];
    for (let i = left + 1; i < t; i++) {
      if (a < 0) out[i] = Math.log(defaultHz);
      else out[i] = Math.log(f0[a]) + (a === b ? 0 : ((i - a) / (b - a)) * (Math.log(f0[b]) - Math.log(f0[a])));
    }
    if (right >= 0) out[t] = Math.log(f0[t]);
    left = t;
  }
  return out;
}

export function moveF0(f0, pitch, voice, settings) {
  if (pitch === "keep" || !f0.some((hz) => hz > 0)) return f0;
  if (pitch === "auto" && Number.isNaN(voice.median)) return f0;
  const [low, high] = [settings.f0_min_hz, settings.f0_max_hz];
  const own = logF0Statistics(f0);
  const [least, most] = settings.constants.spread_bounds;
  const ratio = Math.min(Math.max(voice.spread / Math.max(own.spread, 1e-3), least), most);
  const move = pitch === "auto" ? (x) => voice.median + (x - own.median) * ratio : (x) => x + (Number(pitch) * Math.LN2) / 12;
  return Float32Array.from(f0, (hz) => (hz > 0 ? Math.min(Math.max(Math.exp(move(Math.log(Math.max(hz, low)))), low), high) : 0));
}

// Phase of the pulse train before each frame, in cycles.
export function pulseTurns(logF0, sampleRate, hop) {
  const turns = new Float32Array(logF0.length);
  let total = 0;
  for (let t = 0; t < logF0.length; t++) {
    turns[t] = (total / sampleRate) % 1;
    const here = Math.exp(logF0[t]);
    const next = Math.exp(logF0[Math.min(t + 1, logF0.length - 1)]);
    total += here * hop + ((next - here) * (hop - 1)) / 2;
  }
  return turns;
}

// Normal numbers that a seed determines: mulberry32, and the method of Box and Muller.
export function whiteNoise(seed, n) {
  let state = (seed * 0x9e3779b9 + 0x6d2b79f5) >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 4294967296;
  };
  const out = new Float32Array(n);
  for (let i = 0; i < n; i += 2) {
    const [radius, angle] = [Math.sqrt(-2 * Math.log(1 - uniform())), 2 * Math.PI * uniform()];
    out[i] = radius * Math.cos(angle);
    if (i + 1 < n) out[i + 1] = radius * Math.sin(angle);
  }
  return out;
}

// Quantiles of each band, or null for too few frames.
export function bandQuantiles(mel, frames, constants) {
  const [count, outermost] = [constants.n_quantiles, constants.outermost];
  if (frames < constants.min_frames) return null;
  return Array.from({ length: mel.length / frames }, (_, band) => {
    const sorted = mel.slice(band * frames, (band + 1) * frames).sort();
    return Float32Array.from({ length: count }, (_, i) => quantile(sorted, outermost + (i * (1 - 2 * outermost)) / (count - 1)));
  });
}

export function classQuantiles(mel, frames, active, f0, constants) {
  return [false, true].map((voiced) => {
    const keep = Array.from(active, (on, t) => on > 0 && f0[t] > 0 === voiced);
    const chosen = chooseFrames(mel, frames, keep);
    return bandQuantiles(chosen, keep.filter(Boolean).length, constants);
  });
}

export function mapQuantiles(mel, frames, f0, have, wanted, strength) {
  const out = Float32Array.from(mel);
  for (const [kind, voiced] of [false, true].entries()) {
    if (!have[kind] || !wanted[kind]) continue;
    for (let band = 0; band < mel.length / frames; band++) {
      const old = have[kind][band].map((x, i) => x + i * 1e-5);
      const goal = wanted[kind][band].map((x, i) => x + i * 1e-5);
      for (let t = 0; t < frames; t++) {
        if (f0[t] > 0 !== voiced) continue;
        const at = band * frames + t;
        out[at] += strength * (mapped(mel[at], old, goal) - mel[at]);
      }
    }
  }
  return out;
}

function mapped(x, old, goal) {
  const last = old.length - 1;
  if (x <= old[0]) return goal[0] + x - old[0];
  if (x >= old[last]) return goal[last] + x - old[last];
  let [left, right] = [0, last];
  while (right - left > 1) {
    const middle = (left + right) >> 1;
    if (old[middle] <= x) left = middle;
    else right = middle;
  }
  return goal[left] + ((goal[right] - goal[left]) * (x - old[left])) / (old[right] - old[left]);
}
