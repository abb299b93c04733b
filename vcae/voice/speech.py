"""Speech activity of references, and checks of their quality: too short, clipped, noisy, or two voices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from vcae.audio.frames import active_frames
from vcae.audio.io import Sound
from vcae.audio.speech import NOISY_DB, Speech, check_references
from vcae.audio.speech import find_speech as find_speech_in
from vcae.audio.speech import is_noisy as is_noisy_speech
from vcae.engine.engine import Engine
from vcae.engine.listening import Analysis

# Two voices: windows of speech form two clusters whose mean speaker embeddings have a cosine below this. The clusters of one voice
# have 0.8 to 0.92, those of two voices 0.0 to 0.6 (8 s each, 12 speakers).
WINDOW_S, STEP_S, MAX_WINDOWS = 2.0, 1.0, 60
ALIKE, MIN_GROUP = 0.5, 0.15


def find_speech(seen: Analysis, frame_rate: float) -> Speech:
    """Find speech in a recording, see `vcae.audio.speech.find_speech`.

    Args:
        seen: The recording.
        frame_rate: Hz.
    """
    active = active_frames(seen.mel).reshape(-1).cpu().numpy() > 0
    return find_speech_in(seen.mel[0].cpu().numpy(), seen.f0[0].cpu().numpy(), active, frame_rate)


def is_noisy(seen: Analysis, frame_rate: float, below_db: float = NOISY_DB) -> bool:
    """Return whether speech is so noisy that it should be denoised: less than `below_db` between speech and pauses."""
    return is_noisy_speech(find_speech(seen, frame_rate), below_db)


def hear_speech(
    model: Engine, references: Sequence[Analysis], sounds: Sequence[Sound]
) -> tuple[list[Analysis], tuple[str, ...]]:
    """Cut references to their speech, and check their quality.

    Args:
        model: With a speaker part.
        references: Recordings of a voice.
        sounds: The same recordings as they were given.

    Returns:
        The references with speech, each cut to it; and warnings, one sentence each.

    Raises:
        AudioError: If there is too little speech in all of them.
    """
    rate, kept = model.mel_config.frame_rate, list[Analysis]()
    speech = [find_speech(seen, rate) for seen in references]
    names = [sound.name for sound in sounds]
    used, warnings = check_references(speech, [sound.wav for sound in sounds], names)
    for n in used:
        seen = references[n]
        keep = torch.from_numpy(speech[n].keep).to(seen.mel.device)
        kept.append(Analysis(np.zeros(0, np.float32), seen.mel[..., keep], seen.f0[:, keep], seen.level))
    alike = _two_groups(model, kept)
    if alike < ALIKE:
        where = names[0] if len(names) == 1 else f"the {len(names)} references"
        warnings.append(
            f"{where} seems to hold more than one voice (cosine {alike:.2f} between its parts); give clips of one alone"
        )
    return kept, tuple(warnings)


@torch.inference_mode()
def _two_groups(model: Engine, references: Sequence[Analysis]) -> float:
    """Return the cosine between the mean speaker embeddings of two clusters of windows; 1 if there are not two."""
    rate = model.mel_config.frame_rate
    mel = torch.cat([seen.mel for seen in references], dim=-1)
    window, step = round(WINDOW_S * rate), round(STEP_S * rate)
    starts = list(range(0, mel.shape[-1] - window + 1, step))
    starts = starts[:: -(-len(starts) // MAX_WINDOWS)] if starts else starts
    if len(starts) < 3:
        return 1.0
    found = torch.cat([model.autoencoder.encode_speaker(mel[..., s : s + window]) for s in starts]).cpu().double().numpy()
    alike = found @ found.T
    a, b = (found[i] for i in np.unravel_index(alike.argmin(), alike.shape))
    first = found @ a > found @ b
    for _ in range(8):
        if not MIN_GROUP <= first.mean() <= 1 - MIN_GROUP:
            return 1.0
        a, b = (found[group].mean(axis=0) for group in (first, ~first))
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        first = found @ a > found @ b
    return float(a @ b)
