"""Detail of the source: the part of its mel that the narrow code does not represent."""

from __future__ import annotations

from torch import Tensor

from vcae.audio.frames import gaussian_smooth
from vcae.audio.sections import LazySections, Sections
from vcae.deprecation import renamed

# Standard deviation in bands of the smoothing that removes the rest of the source's harmonics.
DETAIL_BANDS = 0.8
# Standard deviation in frames of the moving average that is subtracted: anything longer than a word is voice or room, not speech.
DETAIL_FRAMES = 20.0
# Receptive field of the detail in frames to each side.
REACH = 60


def source_detail(mel: Tensor, copy: Tensor) -> Tensor:
    """Return the difference of a recording's mel and the autoencoder's copy of it in its own voice, smoothed.

    Adding it to the mel decoded from the same code in another voice removes the blur of the narrow code, which both decoded mels share,
    and restores lost consonants; the autoencoder then only contributes the change of voice.

    Args:
        mel: (1, n_mels, T), natural log magnitude, of the recording.
        copy: (1, n_mels, T), its copy.

    Returns:
        (1, n_mels, T).

    Source: the spectral differential of Kobayashi et al., Statistical singing voice conversion with direct waveform modification based on
    the spectrum differential (2014), taken here between two decodings of one code.
    """
    detail = gaussian_smooth(mel - copy, DETAIL_BANDS, dim=1)
    return detail - gaussian_smooth(detail, DETAIL_FRAMES, dim=2)


def detail_sections(mel: Sections, copy: Sections, share: float = 1.0) -> LazySections:
    """Return `source_detail` times a factor, by sections."""
    return LazySections(mel.n, lambda start, stop: share * source_detail(mel.read(start, stop), copy.read(start, stop)), REACH)


__getattr__ = renamed(__name__, {"hear_detail": "detail_sections"})
