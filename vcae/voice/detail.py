"""The source's own detail: what the narrow code leaves out, kept."""

from __future__ import annotations

from torch import Tensor

from vcae.audio.frames import gaussian_smooth
from vcae.audio.sections import Computed, Sections

# Deviation in bands of the smoothing that takes out what is left of the source's harmonics.
DETAIL_BANDS = 0.8
# Deviation in frames of the mean over time that is taken out: what stays longer than a word is voice or room, not speech.
DETAIL_FRAMES = 20.0
# Frames to each side that the detail of a frame depends on.
REACH = 60


def source_detail(mel: Tensor, copy: Tensor) -> Tensor:
    """Return what a recording holds beyond the autoencoder's copy of it in its own voice.

    Added to what the decoder makes of the same code in another voice, it leaves of the autoencoder only the change of voice: the
    blur of the narrow code, which both copies share, goes, and with it the lost consonants.

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


def hear_detail(mel: Sections, copy: Sections, share: float = 1.0) -> Computed:
    """Return a share of `source_detail`, by sections."""
    return Computed(mel.n, lambda start, stop: share * source_detail(mel.read(start, stop), copy.read(start, stop)), REACH)
