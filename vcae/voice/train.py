"""Training of a voice: conversions of many readers to it are brought to the spectra of its recordings, with a check on speech that is held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vcae.audio.high_band import mean_bands, measure_bands
from vcae.audio.io import Sound
from vcae.engine.engine import Engine
from vcae.engine.listening import Analysis, analyse
from vcae.errors import AudioError
from vcae.voice.calibration import calibrate, check_calibration
from vcae.voice.speech import hear_speech
from vcae.voice.voice import MIN_REFERENCE_S, Voice, describe_voice

# Least speech.
MIN_SPEECH_S = 20.0
# Speech is cut into pieces of this length; every sixth is held out.
PIECE_S, HELD_OUT_EVERY = 2.0, 6


@dataclass(frozen=True)
class Trained:
    """Result of a training.

    Attributes:
        voice: The voice with its map; None if conversions are further from the held-out speech with it.
        before_db: Distance between the spectra of conversions and of held-out speech without the map, see `vcae.voice.spectrum.distance_db`.
        after_db: The same with it.
        speech_s: Seconds of speech that it was trained on.
        held_out_s: Seconds of speech that were held out.
    """

    voice: Voice | None
    before_db: float
    after_db: float
    speech_s: float
    held_out_s: float


def train_voice(model: Engine, clips: Sequence[Sound], progress: Callable[[float], object] = lambda share: None) -> Trained:
    """Measure the voice of clips, and train a map of spectra for conversions to it.

    Args:
        model: Model with a speaker part.
        clips: Recordings of one voice with at least 20 s of speech; a minute is better.
        progress: Called with the fraction done, 0 to 1; an exception that it raises ends the work.

    Raises:
        AudioError: For unusable clips, or too little speech.
        CheckpointError: If the speech of readers that is converted is missing.
    """
    seen = [analyse(model, clip, MIN_REFERENCE_S) for clip in clips]
    speech, warnings = hear_speech(model, seen, clips)
    pieces = _cut(model, speech)
    every = min(HELD_OUT_EVERY, max(len(pieces), 1))
    held, used = pieces[every - 1 :: every], [piece for n, piece in enumerate(pieces, 1) if n % every]
    used_s, held_s = (sum(piece.mel.shape[-1] for piece in part) / model.mel_config.frame_rate for part in (used, held))
    if used_s + held_s < MIN_SPEECH_S:
        raise AudioError(
            f"{used_s + held_s:.1f} s of speech found in the clips ({len(clips)}); training needs {MIN_SPEECH_S:g} s, "
            "and a minute is better"
        )
    # The check is of a voice that was measured without the held-out speech; the voice that is saved was measured on all of it.
    before, after = check_calibration(model, describe_voice(model, used), used, held, lambda share: progress(share / 2))
    # This also refuses a distance that could not be measured (nan).
    if not after < before:
        return Trained(None, before, after, used_s, held_s)
    voice = describe_voice(model, speech)
    spectrum_map = calibrate(model, voice, speech, lambda share: progress((1 + share) / 2))
    bands = mean_bands([(measure_bands(clip.wav, clip.sample_rate), clip.duration_s) for clip in clips])
    voice = replace(voice, warnings=tuple(warnings), spectrum_map=spectrum_map, bands=bands)
    return Trained(voice, before, after, used_s, held_s)


def _cut(model: Engine, speech: Sequence[Analysis]) -> list[Analysis]:
    """Cut speech into pieces of `PIECE_S`; a rest of less than half of that stays with the piece before it."""
    size = round(PIECE_S * model.mel_config.frame_rate)
    pieces = []
    for seen in speech:
        n = seen.mel.shape[-1]
        starts = [at for at in range(0, n, size) if at == 0 or n - at >= size // 2]
        for start, stop in zip(starts, [*starts[1:], n], strict=True):
            pieces.append(replace(seen, mel=seen.mel[..., start:stop], f0=seen.f0[:, start:stop]))
    return pieces
