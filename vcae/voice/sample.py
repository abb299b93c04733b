"""A sample of a saved voice: its recordings as the vocoder speaks them."""

from __future__ import annotations

import torch

from vcae.audio.io import Sound
from vcae.engine.engine import Engine
from vcae.errors import ConfigError
from vcae.voice.voice import Voice

SAMPLE_S = 10.0


@torch.inference_mode()
def voice_sample(engine: Engine, voice: Voice, name: str, most_s: float = SAMPLE_S, seed: int = 0) -> Sound:
    """Synthesise the beginning of a voice's recordings, which are stored as mels.

    Args:
        engine: Engine with a vocoder for the same mels.
        voice: The voice.
        name: Name for messages.
        most_s: Longest duration, in seconds.
        seed: Seed of the vocoder's noise.

    Raises:
        ConfigError: If the voice has no recordings, or their mels are of another kind.
    """
    if not voice.recordings:
        raise ConfigError(
            f"the voice {name} is mixed, or older than recordings in voices, so there is none to play; "
            "generate speech in this voice to hear it"
        )
    if voice.origin is not None and voice.origin.mel != engine.mel_config:
        raise ConfigError(
            f"the recordings of the voice {name} are of another kind of mel than this checkpoint's; choose another"
        )
    most = round(most_s * engine.mel_config.frame_rate)
    mel = torch.cat([recording.mel for recording in voice.recordings], dim=-1)[..., :most].float()
    f0 = torch.cat([recording.f0 for recording in voice.recordings], dim=-1)[..., :most].float()
    return Sound(engine.vocode(mel, f0, seed=seed)[0].numpy(), engine.sample_rate, name)
