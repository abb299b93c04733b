"""Voice conversion without torch, as `vcae.tasks.convert` does it with torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vcae.audio.high_band import BandMeter, BandProfile, has_high_band
from vcae.audio.io import MAX_CHANNELS, Sound, resample, resample_blocks
from vcae.audio.loudness import LevelMeter, follow_envelope_sections, set_level_sections
from vcae.audio.output_rate import OutputRate, change_rate
from vcae.audio.placement import place
from vcae.audio.speech import NOISY_DB
from vcae.audio.watermark import mark_blocks
from vcae.errors import ConfigError
from vcae.light.analysis import Analysis, analyse, noisy
from vcae.light.arrays import (
    active_frames,
    band_quantiles,
    continuous_log_f0,
    log_f0_mean,
    map_quantiles,
    move_f0,
    pulse_turns,
    white_noise,
)
from vcae.light.denoise import denoised
from vcae.light.graphs import Graphs
from vcae.light.voice import Voice, decode, encode_content
from vcae.options import ConvertOptions, parse_pitch

MIN_SOURCE_S = 0.5
# Seconds that are decoded and synthesised at a time.
SECTION_S = 10.0
# Values of vcae.voice.speaking and vcae.voice.matching, which a test compares.
DISTRIBUTION, DISTRIBUTION_S, FULL_MATCH_S = 0.25, 6.0, 3.0
# Options of vcae.options.ConvertOptions that this path does not have.
MISSING = ("strength", "speed", "formant", "expression")


def convert(graphs: Graphs, source: Sound, voice: Voice, options: ConvertOptions | None = None) -> Sound:
    """Convert a recording to a voice.

    Args:
        graphs: Graphs of the models.
        source: 0.5 s to ten minutes.
        voice: From `measure_voice`.
        options: Pitch, loudness, seed, denoise, watermark, rate and channels (`keep` or `mono`); the others must have their defaults.

    Returns:
        The sound, as long as the source.

    Raises:
        AudioError: For unusable audio.
        ConfigError: For an option that needs torch.
    """
    options = options or ConvertOptions()
    changed = [name for name in MISSING if getattr(options, name) != getattr(ConvertOptions(), name)]
    if changed or options.channels == "separate":
        raise ConfigError(
            f"{', '.join(changed) or 'channels=separate'} needs torch; leave it out, or convert with vcae convert"
        )
    seen, was_noisy = _analyse(graphs, source, options.denoise)
    settings = graphs.settings
    f0 = move_f0(
        *(seen.f0, parse_pitch(options.pitch), voice.log_f0_median, voice.log_f0_spread),
        *(settings["f0_min_hz"], settings["f0_max_hz"]),
    )
    mel = convert_mel(graphs, seen, f0, voice)
    wav = vocode(graphs, mel, f0, seen.n_samples, options.seed)
    return Sound(_finish(graphs, source, was_noisy, seen, wav, voice, options), *_rate_and_note(graphs, source, options))


def _rate_and_note(graphs: Graphs, source: Sound, options: ConvertOptions) -> tuple[int, str, str]:
    rate = max(source.sample_rate, graphs.sample_rate) if options.rate is None else options.rate
    return rate, source.name, f"converted by {graphs.settings['origin']}"


def _analyse(graphs: Graphs, source: Sound, denoise: bool | str) -> tuple[Analysis, bool]:
    """Return the analysis, and whether the recording was denoised first."""
    if denoise is not True:
        seen = analyse(graphs, source, MIN_SOURCE_S)
        if not denoise or not noisy(graphs, seen, NOISY_DB):
            return seen, False
    # At the models' rate, so that the denoiser's result is used as it is.
    mono = resample(np.concatenate(list(source.blocks())), source.sample_rate, graphs.sample_rate)
    return analyse(graphs, denoised(graphs, Sound(mono, graphs.sample_rate, source.name)), MIN_SOURCE_S), True


def convert_mel(graphs: Graphs, seen: Analysis, f0: np.ndarray, voice: Voice) -> np.ndarray:
    """Return the mel (n_mels, T) of a recording in a voice, with F0 (T,) already in its range."""
    stride, n = graphs.settings["stride"], len(f0)
    latent, mean = encode_content(graphs, seen.mel, seen.active), log_f0_mean(f0)
    trust = min(1.0, voice.speech_s / FULL_MATCH_S)
    reach = -(-graphs.settings["decoder_reach"] // stride) * stride
    step, pieces = max(round(SECTION_S * graphs.frame_rate) // stride * stride, stride), []
    scale = 2 * voice.bandwidth**2 * voice.error_keys.shape[1]
    for start in range(0, n, step):
        first, last = max(start - reach, 0), min(start + step + reach, n)
        code, pitch = latent[:, :, first // stride : -(-last // stride)], f0[first:last]
        mel = decode(graphs, code, pitch, voice.speaker_embedding, mean, voice)
        mel = graphs.run(
            "correction",
            mel=mel[None],
            latent=code,
            f0=pitch[None],
            keys=voice.error_keys,
            values=voice.error_values,
            log_weights=np.zeros(len(voice.error_keys), np.float32),
            scale=np.array([scale], np.float32),
            strength=np.array([trust], np.float32),
        )[0][0]
        pieces.append(mel[:, start - first : min(start + step, n) - first])
    mel = np.concatenate(pieces, axis=1)
    active = active_frames(mel)
    have = [band_quantiles(mel[:, active & (f0 <= 0)]), band_quantiles(mel[:, active & (f0 > 0)])]
    strength = DISTRIBUTION * trust * min(1.0, float(active.sum()) / graphs.frame_rate / DISTRIBUTION_S)
    return map_quantiles(mel, f0, have, voice.quantiles, strength)


def vocode(graphs: Graphs, mel: np.ndarray, f0: np.ndarray, n_samples: int, seed: int = 0) -> np.ndarray:
    """Synthesise a mel (n_mels, T) with F0 (T,): (n_samples,)."""
    hop, frames = graphs.hop_length, mel.shape[1]
    log_f0 = continuous_log_f0(f0)
    turns = pulse_turns(log_f0, graphs.sample_rate, hop)
    context, step, pieces = graphs.settings["vocoder_reach"], max(round(SECTION_S * graphs.frame_rate), 1), []
    for first in range(0, -(-n_samples // hop), step):
        start, stop = max(first - context, 0), min(first + step + context, frames)
        begin, end = start * hop, n_samples if stop == frames else (stop - 1) * hop
        noise = np.zeros((1, (stop - start) * hop), np.float32)
        noise[0, : end - begin] = white_noise(seed, begin, end)
        wav = graphs.run(
            "vocoder",
            mel=mel[None, :, start:stop],
            log_f0=log_f0[None, start:stop],
            voiced=(f0[None, start:stop] > 0).astype(np.float32),
            turns=turns[None, start:stop],
            noise=noise,
            n_samples=np.array([end - begin]),
        )[0][0]
        pieces.append(wav[first * hop - begin : min((first + step) * hop, n_samples) - begin])
    return np.concatenate(pieces)


def _finish(
    graphs: Graphs, source: Sound, was_noisy: bool, seen: Analysis, wav: np.ndarray, voice: Voice, options: ConvertOptions
) -> np.ndarray:
    """Give the sound the source's loudness, rate, watermark and channels."""
    rate = max(source.sample_rate, graphs.sample_rate) if options.rate is None else options.rate
    meter = LevelMeter.of(wav)

    def read(start: int, stop: int) -> np.ndarray:
        return wav[start:stop]

    step = round(SECTION_S * graphs.sample_rate)
    blocks: Iterator[np.ndarray] = (
        follow_envelope_sections(read, meter, seen.meter, seen.level, step)
        if options.loudness == "source"
        else set_level_sections(read, meter, seen.level, step)
    )
    if rate != graphs.sample_rate:
        mono = np.concatenate(list(source.blocks()))
        levels: BandProfile | None = None
        if was_noisy:
            mono = denoised(graphs, source).wav
        elif has_high_band(source.sample_rate):
            meter_of_bands = BandMeter(source.sample_rate)
            meter_of_bands.add(mono)
            levels = meter_of_bands.profile()
        change = OutputRate(graphs.sample_rate, source.sample_rate, rate, levels, voice.bands, options.seed)
        blocks = change_rate(change, blocks, iter([mono]))
    if options.watermark:
        blocks = mark_blocks(blocks, rate)
    if source.channels > 1 and source.channels <= MAX_CHANNELS and options.channels == "keep":
        mix, channels = (resample_blocks(x, source.sample_rate, rate) for x in (source.blocks(), source.channel_blocks()))
        blocks = place(blocks, mix, channels, rate, source.channels)
    return np.concatenate(list(blocks))
