"""What takes noise away: this project's ways, and its peers, each from (N,) at 16 kHz to (N,) at 16 kHz."""

from collections.abc import Callable

import numpy as np

from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.io import Sound, resample
from vcae.engine.denoise import Cleaner
from vcae.errors import ConfigError

System = Callable[[np.ndarray], np.ndarray]


def filtering(denoiser: str) -> System:
    """Clean as `vcae denoise` does."""
    cleaner = Cleaner(denoiser)
    return lambda wav: cleaner.sound(Sound(wav, SAMPLE_RATE)).wav


def gating(stationary: bool) -> System:
    import noisereduce

    return lambda wav: noisereduce.reduce_noise(wav, SAMPLE_RATE, stationary=stationary)


def rnnoise() -> System:
    from pyrnnoise import rnnoise as library

    def run(wav: np.ndarray) -> np.ndarray:
        wide = resample(np.pad(wav, (0, SAMPLE_RATE // 10)), SAMPLE_RATE, library.SAMPLE_RATE)
        state, n = library.create(), library.FRAME_SIZE
        wide = np.pad(wide, (0, -len(wide) % n))
        made = [library.process_mono_frame(state, np.clip(frame, -1, 1))[0] for frame in wide.reshape(-1, n)]
        library.destroy(state)
        # It gives each frame one frame later.
        narrow = resample(np.concatenate(made)[n:].astype(np.float32) / 32767, library.SAMPLE_RATE, SAMPLE_RATE)
        return narrow[: len(wav)]

    return run


def build(name: str, denoiser: str) -> System:
    """Return a system by its name."""
    makers: dict[str, Callable[[], System]] = {
        "ours": lambda: filtering(denoiser),
        "noisereduce": lambda: gating(False),
        "noisereduce-stationary": lambda: gating(True),
        "rnnoise": rnnoise,
    }
    if name not in makers:
        raise ConfigError(f"systems has {name!r}; allowed are {', '.join(makers)}")
    return makers[name]()
