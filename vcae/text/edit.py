"""Change of words in a recording: the words are found, and others are said in their place, in the same voice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from vcae.audio.f0 import F0_MAX_HZ, F0_MIN_HZ
from vcae.audio.frames import active_levels, gaussian_smooth
from vcae.audio.io import Sound, resample
from vcae.engine.engine import DECODED_CORRECTIONS, Engine, Samples, as_sound, choose_device
from vcae.engine.listening import Analysis, analyse
from vcae.errors import AudioError
from vcae.model.acoustic import MAX_DURATION_S, MIN_DURATION_S, PAUSE, WORD_END, WORD_START, AcousticModel
from vcae.model.transcriber import PHONES
from vcae.tasks.units import clean_voicing
from vcae.text.change import Change, find_change, parse_change, widen
from vcae.text.ctc import collapse
from vcae.text.say import CONTOUR_FRAMES, as_symbols, restore_deviation, shared_acoustic
from vcae.text.transcribe import shared_transcriber
from vcae.voice.speaking import speak
from vcae.voice.voice import Voice, voice_from_sounds

MAX_S = 600.0
# Phones before and after the new words that are given to the acoustic model, and steps around them that are decoded.
CONTEXT_PHONES, MARGIN_STEPS = 6, 24
# Bounds of the reader's durations against the acoustic model's.
RATES = (0.6, 1.6)
# Frames before and after the words in which F0 and level are compared with the recording's.
NEAR_FRAMES = 24
# Largest gain of a decoded sound, and the time in which it changes within the words, in seconds.
MAX_GAIN, RAMP_S = 4.0, 0.04
# Length of a cross-fade, and how far the new sound may move to fit the old one there, in seconds.
FADE_S, FIT_S = 0.012, 0.006
# Sound before and after the words in which the channels' levels are compared, in seconds.
CHANNEL_S = 0.5
# A pause of this length at a word is one for the acoustic model too, in seconds.
PAUSE_S = 0.12


@dataclass(frozen=True)
class Edited:
    """A recording with other words.

    Attributes:
        wav: (N,) or (N, channels), as the recording.
        sample_rate: Hz.
        start: First sample that differs from the recording's.
        old_stop: Sample of the recording from which nothing differs.
        stop: That sample's place in the result.
        times_s: When the words began and ended in the recording.
    """

    wav: np.ndarray
    sample_rate: int
    start: int
    old_stop: int
    stop: int
    times_s: tuple[float, float]


@dataclass(frozen=True)
class _Made:
    """Predicted sound of new words with their context: latent (1, D, S), log odds of voicing and log-F0 (2 S,), and the words' steps."""

    latent: Tensor
    voicing: Tensor
    relative: Tensor
    start: int
    stop: int


def _context(phones: np.ndarray, start: int, stop: int, active: np.ndarray, step_s: float) -> tuple[list[str], list[str]]:
    """Return the phones that are spoken before and after words, with a pause where there is one; vowels have the stress of most."""
    names = [(PHONES[n - 1], a, b) for n, a, b in collapse(phones)]

    def told(part: list[tuple[str, int, int]]) -> list[str]:
        return [name + ("1" if name[0] in "AEIOU" else "") for name, _, _ in part]

    before = [one for one in names if one[2] <= start][-CONTEXT_PHONES:]
    after = [one for one in names if one[1] >= stop][:CONTEXT_PHONES]
    pause = max(round(PAUSE_S / step_s), 1)
    left = [*told(before), PAUSE] if not before or not active[max(start - pause, 0) : start].any() else told(before)
    right = [PAUSE, *told(after)] if not after or not active[stop : stop + pause].any() else told(after)
    return left, right


def _predict(
    network: AcousticModel, sides: tuple[list[str], list[str]], change: Change, length_s: float, device: torch.device
) -> _Made:
    """Predict the sound of new words between the phones around them, at the pace of the old ones, which took `length_s`."""
    speaker = torch.tensor([0], device=device)
    left, right = sides

    def encode(middle: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        said = [PAUSE, *left, *middle, *right, PAUSE]
        places = [0] * len(said)
        places[len(left)] |= WORD_END * (said[len(left)] != PAUSE)
        at = 1 + len(left)
        for size in sizes or (len(middle),):
            places[at] |= WORD_START
            places[at + size - 1] |= WORD_END
            at += size
        places[at] |= WORD_START * (said[at] != PAUSE)
        encoded = network.encode(as_symbols(said, places, device), speaker)
        return encoded, network.log_durations(encoded).exp().clamp(MIN_DURATION_S, MAX_DURATION_S)

    first = 1 + len(left)
    _, usual = encode(change.old, change.old_sizes)
    rate = length_s / float(usual[0, first : first + len(change.old)].sum())
    encoded, durations = encode(change.new, change.new_sizes)
    durations = durations * min(max(rate, RATES[0]), RATES[1])
    step_s = network.config.step_s
    # The words begin and end between two steps.
    inside = slice(first, first + len(change.new))
    n = max(round(float(durations[0, inside].sum()) / step_s), 2)
    durations[0, inside] *= n * step_s / float(durations[0, inside].sum())
    lead = math.ceil(float(durations[0, :first].sum()) / step_s) + 1
    durations[0, 0] += lead * step_s - float(durations[0, :first].sum())
    total = math.ceil(float(durations.sum()) / step_s) + 1
    durations[0, -1] += total * step_s - float(durations.sum())
    latent, voicing, relative = network(encoded, durations, speaker, total)
    return _Made(restore_deviation(latent), voicing[0], relative[0], lead, lead + n)


def _level(log_f0: Tensor, voiced: Tensor) -> float:
    return float(log_f0[voiced].mean()) if bool(voiced.any()) else math.nan


def _join_f0(f0: Tensor, made: _Made, start: int, stop: int, voice: Voice) -> Tensor:
    """Return F0 (1, T') in Hz with the predicted contour in place of the frames of the steps `start` to `stop`."""
    smooth = gaussian_smooth(made.relative[None, None], CONTOUR_FRAMES, dim=2)[0, 0]
    voiced = clean_voicing(made.voicing > 0)
    a, b = 2 * made.start, 2 * made.stop
    log_f0 = f0[0].clamp(min=1.0).log()
    offsets = []
    for own, theirs in (
        (slice(max(2 * start - NEAR_FRAMES, 0), 2 * start), slice(max(a - NEAR_FRAMES, 0), a)),
        (slice(2 * stop, 2 * stop + NEAR_FRAMES), slice(b, b + NEAR_FRAMES)),
    ):
        offsets.append(_level(log_f0[own], f0[0, own] > 0) - _level(smooth[theirs], voiced[theirs]))
    known = [offset for offset in offsets if not math.isnan(offset)]
    if not known:
        known = [voice.log_f0_median - _level(smooth[a:b], voiced[a:b])]
    if math.isnan(known[0]):
        new = torch.zeros(b - a)
    else:
        ramp = torch.linspace(known[0], known[-1], b - a)
        new = torch.where(
            voiced[a:b], (smooth[a:b] + ramp).exp().clamp(F0_MIN_HZ, F0_MAX_HZ), torch.zeros(b - a, device=smooth.device)
        )
    return torch.cat([f0[:, : 2 * start], new[None], f0[:, 2 * stop :]], dim=1)


def _fit(old: np.ndarray, new: np.ndarray, at: int, other: int, fade: int, reach: int) -> int:
    """Return the place in `new` near `other` where it is most like `old` around `at`."""
    wanted = old[at : at + fade]
    best, where = -math.inf, other
    for place in range(max(other - reach, 0), min(other + reach, len(new) - fade) + 1):
        part = new[place : place + fade]
        like = float(wanted @ part) / (1e-9 + float(np.linalg.norm(wanted) * np.linalg.norm(part)))
        if like > best:
            best, where = like, place
    return where


@torch.inference_mode()
def edit_sound(
    engine: Engine, sound: Sound, old: str, new: str, nth: int | None = None, seed: int = 0, voice: Voice | None = None
) -> Edited:
    """Say other words in a recording in place of some of its own.

    Args:
        engine: Engine of the checkpoint `default`.
        sound: The recording, of one or more channels, at most 10 minutes.
        old: Words that are spoken in it; with the words before or after them, which stay, they are found more surely.
        new: Words to say in their place.
        nth: Which of several places, from 1; None if there is only one.
        seed: Seed of the vocoder's noise.
        voice: The voice of the new words; that of the recording when None.

    Returns:
        The recording, unchanged before and after the words.

    Raises:
        AudioError: For an unusable recording.
        ConfigError: If old and new words are the same.
        DataError: If the words are not found, or more than once without `nth`, or a text has no English word.
    """
    change = parse_change(old, new)
    if sound.duration_s > MAX_S:
        raise AudioError(f"{sound.name} is {sound.duration_s:.0f} s long; at most {MAX_S:g} s can be edited, so cut it first")
    mono = sound.wav if sound.wav.ndim == 1 else sound.wav.mean(axis=1)
    whole = Sound(np.ascontiguousarray(mono, np.float32), sound.sample_rate, sound.name)
    seen = analyse(engine, whole)
    latent = engine.autoencoder.encode_latent(seen.mel)
    step_s = engine.autoencoder.config.content.stride / engine.mel_config.frame_rate
    phones = shared_transcriber(str(engine.device))(latent)[0][0].T.cpu().numpy()
    spot = find_change(phones, change, old, nth, step_s)
    start, stop = widen(phones, spot)
    active = active_levels(seen.mel.mean(dim=1, keepdim=True))[0, 0].cpu().numpy()[::2]
    sides = _context(phones, start, stop, active, step_s)
    made = _predict(shared_acoustic(str(engine.device)), sides, change, (stop - start) * step_s, engine.device)
    target = voice or voice_from_sounds(engine, [whole])
    joined = torch.cat([latent[..., :start], made.latent[..., made.start : made.stop], latent[..., stop:]], dim=-1)
    f0 = _join_f0(seen.f0, made, start, stop, target)
    return _insert(engine, sound, seen, joined, f0, (start, stop, start + made.stop - made.start), target, seed)


def _insert(
    engine: Engine,
    sound: Sound,
    seen: Analysis,
    latent: Tensor,
    f0: Tensor,
    steps: tuple[int, int, int],
    voice: Voice,
    seed: int,
) -> Edited:
    """Decode the steps around the words, and put the sound of the words into the recording."""
    start, old_stop, stop = steps
    hop = engine.mel_config.hop_length
    step = 2 * hop
    first, last = max(start - MARGIN_STEPS, 0), min(stop + MARGIN_STEPS, latent.shape[-1])
    part_f0 = f0[:, 2 * first : 2 * last]
    mel = speak(engine, latent[..., first:last], part_f0, voice)
    made = engine.vocode(mel, part_f0, (part_f0.shape[1] - 1) * hop, seed, DECODED_CORRECTIONS)[0].numpy()
    # A step's frames are centred on it, so its sound begins a quarter of a step before it.
    at, old_at, new_stop = (max((n * step) - step // 4, 0) for n in (start, old_stop, stop))
    at_made, stop_made = at - first * step, new_stop - first * step
    places = at, old_at, at_made, stop_made
    made = match_level(seen.wav, made, places, NEAR_FRAMES * hop, round(RAMP_S * engine.sample_rate))
    return _cross_fade(sound, seen, made, places, sound.sample_rate / engine.sample_rate)


def _power(wav: np.ndarray) -> float:
    return float(np.mean(wav**2)) if len(wav) else 0.0


def match_level(wav: np.ndarray, made: np.ndarray, places: tuple[int, int, int, int], near: int, ramp: int) -> np.ndarray:
    """Give a decoded sound the level of the recording.

    Around the words it is that of their neighbours, within them the geometric mean of that and the level of the old words.

    Args:
        wav: (N,), the recording.
        made: (M,), the decoded sound.
        places: Where the old words begin and end in the recording, and the new ones in the decoded sound.
        near: Samples before and after the words in which levels are compared.
        ramp: Samples in which the level changes within the words.
    """
    at, old_at, at_made, stop_made = places
    around = _power(np.r_[wav[max(at - near, 0) : at], wav[old_at : old_at + near]])
    decoded = _power(np.r_[made[max(at_made - near, 0) : at_made], made[stop_made : stop_made + near]])
    outside = min(max(math.sqrt(around / max(decoded, 1e-9)), MAX_GAIN**-1), MAX_GAIN)
    as_old = math.sqrt(_power(wav[at:old_at]) / max(_power(made[at_made:stop_made]), 1e-9))
    inside = math.sqrt(outside * min(max(as_old, outside / MAX_GAIN), outside * MAX_GAIN))
    sample = np.arange(len(made))
    share = np.clip(np.minimum(sample - at_made, stop_made - sample) / ramp, 0, 1)
    return np.asarray(made * (outside + (inside - outside) * share), made.dtype)


def _cross_fade(sound: Sound, seen: Analysis, made: np.ndarray, places: tuple[int, int, int, int], scale: float) -> Edited:
    """Put a sound into a recording between two cross-fades."""
    at, old_at, at_made, stop_made = places
    own = round(sound.sample_rate / scale)
    fade, reach = round(FADE_S * own), round(FIT_S * own)
    # Both fades are outside the words, where both sounds say the same.
    at, at_made = max(at - fade, 0), max(at_made - fade, 0)
    begin = _fit(seen.wav, made, at, at_made, fade, reach) if at + fade <= len(seen.wav) else at_made
    end = _fit(seen.wav, made, old_at, stop_made, fade, reach) if old_at + fade <= len(seen.wav) else stop_made
    piece = resample(made[begin : end + fade], own, sound.sample_rate)
    given = sound.wav if sound.wav.ndim == 2 else sound.wav[:, None]
    gains = _channel_gains(sound, seen, own, (at, old_at))
    a, b, f = round(at * scale), round(old_at * scale), round(fade * scale)
    piece = piece[:, None] * gains
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(f) + 0.5) / f)[:, None]
    piece[:f] = ramp * piece[:f] + (1 - ramp) * given[a : a + f]
    tail = given[b : b + f]
    piece = piece[: len(piece) - f + len(tail)]
    if len(tail):
        piece[-len(tail) :] = (1 - ramp[: len(tail)]) * piece[-len(tail) :] + ramp[: len(tail)] * tail
    wav = np.concatenate([given[:a], piece.astype(given.dtype), given[b + len(tail) :]])
    wav = wav if sound.wav.ndim == 2 else wav[:, 0]
    return Edited(wav, sound.sample_rate, a, b + len(tail), a + len(piece), (at / own, old_at / own))


def _channel_gains(sound: Sound, seen: Analysis, own_rate: int, places: tuple[int, int]) -> np.ndarray:
    """Return what turns the analysed form of a recording into each of its channels (channels,), by the samples around the words."""
    near = round(CHANNEL_S * own_rate)
    first, last = max(places[0] - near, 0), places[1] + near
    scale = sound.sample_rate / own_rate
    given = sound.wav if sound.wav.ndim == 2 else sound.wav[:, None]
    part = given[round(first * scale) : round(last * scale)]
    analysed = seen.wav[first:last]
    gains = []
    for channel in part.T:
        same = resample(np.ascontiguousarray(channel, np.float32), sound.sample_rate, own_rate)[: len(analysed)]
        gains.append(float(same @ analysed[: len(same)]) / max(float(analysed @ analysed), 1e-12))
    return np.array(gains)


@lru_cache(maxsize=1)
def _shared_engine(device: str) -> Engine:
    return Engine(device=device)


def edit(
    wav: Samples,
    old: str,
    new: str,
    sample_rate: int | None = None,
    nth: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Edited:
    """Say other words in a recording of English speech in place of some of its own, in the same voice.

    Args:
        wav: Samples, a sound, or the path of a file, in any form that `as_sound` accepts; at most 10 minutes.
        old: Words that are spoken in it; with the words before or after them, which stay, they are found more surely.
        new: Words to say in their place.
        sample_rate: Sample rate of arrays, in Hz.
        nth: Which of several places, from 1; None if there is only one.
        seed: Seed of the vocoder's noise.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Returns:
        The recording, unchanged before and after the words.

    Raises:
        AudioError: For an unusable recording.
        ConfigError: If old and new words are the same; for a device that is not available.
        DataError: If the words are not found, or more than once without `nth`, or a text has no English word.
    """
    return edit_sound(_shared_engine(choose_device(device).type), as_sound(wav, sample_rate, mixed=False), old, new, nth, seed)
