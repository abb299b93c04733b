// Levels, as vcae/audio/loudness.py measures and sets them.
import { quantile } from "./arrays.js";

// Butterworth high-pass of even order; it starts as if the first sample had always been there.
function highPass(wav, sampleRate, cutHz, order) {
  const warped = 2 * sampleRate * Math.tan((Math.PI * cutHz) / sampleRate);
  let x = Float64Array.from(wav);
  for (let k = 0; k < order / 2; k++) {
    // A pole of the analogue filter, warped / exp(i angle), and its place in the z plane.
    const angle = (Math.PI * (2 * k + order + 1)) / (2 * order);
    const [re, im] = [warped * Math.cos(angle), -warped * Math.sin(angle)];
    const [a, b, c, d] = [2 * sampleRate + re, im, 2 * sampleRate - re, -im];
    const size = c * c + d * d;
    const [zr, zi] = [(a * c + b * d) / size, (b * c - a * d) / size];
    const [a1, a2] = [-2 * zr, zr * zr + zi * zi];
    const gain = (1 - a1 + a2) / 4;
    let [s1, s2] = [-gain * x[0], gain * x[0]];
    const y = new Float64Array(x.length);
    for (let n = 0; n < x.length; n++) {
      y[n] = gain * x[n] + s1;
      s1 = -2 * gain * x[n] - a1 * y[n] + s2;
      s2 = gain * x[n] - a2 * y[n];
    }
    x = y;
  }
  return x;
}

export class Levels {
  constructor(wav, sampleRate, constants) {
    this.constants = constants;
    this.n = wav.length;
    const frame = constants.frame;
    const passed = highPass(wav, sampleRate, constants.low_cut_hz, constants.low_cut_order);
    const count = Math.ceil(this.n / frame);
    [this.powers, this.peaks] = [new Float64Array(count), new Float64Array(count)];
    passed.forEach((value, n) => {
      const t = Math.floor(n / frame);
      this.powers[t] += (value * value) / frame;
      this.peaks[t] = Math.max(this.peaks[t], Math.abs(value));
    });
    this.mean = wav.reduce((sum, value) => sum + value, 0) / Math.max(this.n, 1);
    this.peak = wav.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  }

  scaled(gain) {
    const made = Object.assign(Object.create(Levels.prototype), this);
    made.powers = this.powers.map((power) => power * gain * gain);
    made.peaks = this.peaks.map((peak) => peak * gain);
    [made.mean, made.peak] = [this.mean * gain, this.peak * gain];
    return made;
  }

  whole() {
    return this.powers.subarray(0, Math.floor(this.n / this.constants.frame));
  }

  // RMS level over the frames within 30 dB of the loudest; a click counts for no more than a loud frame.
  level() {
    const powers = this.whole();
    if (!powers.length) return 0;
    const top = quantile(Float64Array.from(powers).sort(), this.constants.loud);
    if (top <= 0) return Math.sqrt(Math.max(...powers));
    const limited = powers.map((power) => Math.min(power, this.constants.max_power * top)).filter((power) => power >= top / 1000);
    return Math.sqrt(limited.reduce((sum, power) => sum + power, 0) / limited.length);
  }

  get gain() {
    const c = this.constants;
    const peaks = Float64Array.from(this.peaks.subarray(0, this.whole().length)).sort();
    const usual = peaks.length < 2 ? 0 : quantile(peaks, c.loud);
    const peak = usual > 0 ? Math.min(this.peak, c.max_crest * usual) : this.peak;
    return Math.min(c.target_level / this.level(), c.peak_limit / peak);
  }
}

function hanning(n) {
  return Float64Array.from({ length: n }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * (i + 1)) / (n + 1)));
}

function envelopeDb(powers, floor, n) {
  const window = hanning(n);
  const half = Math.floor(n / 2);
  return powers.map((_, t) => {
    let [sum, weight] = [0, 0];
    for (let i = Math.max(t - half, 0); i <= Math.min(t + half, powers.length - 1); i++) {
      sum += powers[i] * window[i - t + half];
      weight += window[i - t + half];
    }
    return 10 * Math.log10(sum / weight + floor);
  });
}

// Give a sound the loudness envelope of the measurements `wanted`, at a level.
export function followEnvelope(wav, wanted, level, sampleRate, constants) {
  const present = new Levels(wav, sampleRate, constants);
  const target = wanted.level();
  if (present.level() <= 0 || target <= 0) return wav;
  const [scale, floor, frame] = [target / present.level(), target ** 2 * 1e-6, constants.frame];
  const a = envelopeDb(wanted.powers, floor, constants.smooth_frames);
  const b = envelopeDb(present.powers.map((power) => power * scale * scale), floor, constants.smooth_frames);
  const gains = a.map((db, t) => Math.min(Math.max(db - b[t], -constants.max_cut_db), constants.max_raise_db));
  const shaped = wav.map((value, n) => {
    const at = Math.min(Math.max((n + 0.5) / frame - 0.5, 0), gains.length - 1);
    const left = Math.min(Math.floor(at), gains.length - 1);
    const right = Math.min(left + 1, gains.length - 1);
    return value * scale * 10 ** ((gains[left] + (gains[right] - gains[left]) * (at - left)) / 20);
  });
  const factor = level / Math.max(new Levels(shaped, sampleRate, constants).level(), 1e-12);
  return limitPeaks(shaped.map((value) => value * factor), constants);
}

// Attenuate peaks over the limit smoothly and only around them.
export function limitPeaks(wav, constants) {
  const limit = constants.peak_limit;
  if (!wav.some((value) => Math.abs(value) > limit)) return wav;
  const half = Math.floor(constants.limiter_window / 2);
  const at = (n) => Math.min(Math.max(n, 0), wav.length - 1);
  const window = hanning(2 * half + 1);
  const total = window.reduce((sum, value) => sum + value, 0);
  const gain = new Float64Array(wav.length).fill(1);
  const lowest = new Float64Array(wav.length).fill(1);
  wav.forEach((value, n) => {
    if (Math.abs(value) <= limit) return;
    for (let i = at(n - half); i <= at(n + half); i++) lowest[i] = Math.min(lowest[i], limit / Math.abs(value));
  });
  lowest.forEach((value, n) => {
    if (value === 1) return;
    for (let i = Math.max(n - half, 0); i <= Math.min(n + half, wav.length - 1); i++) {
      gain[i] -= ((1 - value) * window[n - i + half]) / total;
    }
  });
  return wav.map((value, n) => Math.min(Math.max(value * gain[n], -limit), limit));
}
