from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

import vcae
from vcae.audio.frames import gaussian_smooth
from vcae.voice.detail import source_detail
from vcae.voice.retrieval import MAX_FRAMES, keep_frames, retrieve
from vcae.voice.speaking import MATCH_BY_LENGTH, default_detail, default_match


def _f0(n, voiced_from=0):
    f0 = torch.full((1, n), 120.0)
    f0[:, :voiced_from] = 0
    return f0


@pytest.fixture
def mel():
    """Ten segments of steady spectra, as unlike each other as vowels."""
    return torch.randn(1, 80, 10).mul(1.5).repeat_interleave(12, dim=-1) - 4


def test_smoothing_equals_scipys():
    from scipy.ndimage import gaussian_filter1d

    x = torch.randn(1, 20, 50, dtype=torch.float64)
    for dim, deviation in ((1, 1.5), (2, 4.0)):
        expected = gaussian_filter1d(x.numpy(), deviation, axis=dim, mode="nearest", radius=int(np.ceil(3 * deviation)))
        assert np.allclose(gaussian_smooth(x, deviation, dim).numpy(), expected)


def test_a_frame_that_is_there_finds_itself(mel):
    frames = keep_frames([mel], [mel], [_f0(120, 40)])
    assert (retrieve(mel, mel, _f0(120, 40), frames, 1.0) - mel).abs().mean() < 0.02


def test_what_it_finds_is_the_references_and_strength_blends(mel):
    reference = mel + torch.linspace(-1, 1, 80)[:, None]
    # Looked up by what they say, frames bring what the reference sounds like.
    frames = keep_frames([reference], [mel], [_f0(120)])
    full = retrieve(mel, mel, _f0(120), frames, 1.0)
    assert (full - reference).abs().mean() < 0.1 < (mel - reference).abs().mean()
    assert torch.equal(retrieve(mel, mel, _f0(120), frames, 0.0), mel)
    half = retrieve(mel, mel, _f0(120), frames, 0.5)
    assert torch.allclose(half, (mel + full) / 2, atol=1e-5)


def test_harmonics_stay(mel):
    comb = torch.where(torch.arange(80)[:, None] % 4 == 0, 1.5, -0.5)
    frames = keep_frames([mel], [mel], [_f0(120)])
    moved = retrieve(mel + comb, mel, _f0(120), frames, 1.0)
    present = (moved - mel)[0, 8:72]
    assert float((present * comb[8:72]).mean() / comb.square().mean()) > 0.8


def test_voicing_counts(mel):
    both = keep_frames([mel, mel + 1], [mel, mel], [_f0(120), _f0(120, 120)])
    voiced, unvoiced = (retrieve(mel, mel, f0, both, 1.0) - mel for f0 in (_f0(120), _f0(120, 120)))
    assert voiced.mean() < unvoiced.mean() - 0.1


def test_long_references_are_thinned():
    n = 2 * MAX_FRAMES + 100
    frames = keep_frames([torch.randn(1, 80, n)], [torch.randn(1, 80, n)], [_f0(n)])
    assert len(frames.keys) == len(frames.envelopes) == len(frames.log_weights) <= MAX_FRAMES


def test_default_match_grows_with_the_reference(tiny_checkpoint, speech):
    model = vcae.load(tiny_checkpoint)
    voice = model.voice(speech, 16000)
    full, seconds = MATCH_BY_LENGTH
    assert default_match(model, replace(voice, speech_s=seconds / 4)) == pytest.approx(full / 4)
    assert default_match(model, replace(voice, speech_s=10 * seconds)) == full


def test_a_decoder_that_attends_to_the_reference_is_not_drawn_to_it_again(attending_checkpoint, speech):
    model = vcae.load(attending_checkpoint)
    assert default_match(model, model.voice(speech, 16000)) == 0
    assert default_detail(model) == 0


def test_detail_is_what_the_copy_lacks_and_no_lasting_difference(mel):
    assert torch.equal(source_detail(mel, mel), torch.zeros_like(mel))
    lasting = torch.randn(1, 80, 1).expand(-1, -1, 120)
    assert source_detail(mel + lasting, mel).abs().max() < 1e-4
    burst = torch.zeros(1, 80, 120)
    burst[:, 30:60, 60:62] = 2.0
    kept = source_detail(mel + burst, mel)
    assert kept[0, 40:50, 60:62].mean() > 1.6
    assert kept[0, 40:50, :50].abs().max() < 0.2


def test_detail_brings_the_copy_nearer_to_the_source(model, clips):
    wav, _ = soundfile.read(clips["source"], dtype="float32")
    seen, copy = model.analyse(wav, 16000), model.decode(model.encode(wav, 16000))
    fuller = copy + source_detail(seen.mel, copy)
    assert (fuller - seen.mel).abs().mean() < 0.7 * (copy - seen.mel).abs().mean()


def test_more_reference_is_looked_up_more_closely(model, clips):
    short, _ = soundfile.read(clips["reference"], dtype="float32")
    voices = [model.voice(clip, 16000) for clip in (short, [short] * 6)]
    assert voices[1].errors.bandwidth < 0.8 * voices[0].errors.bandwidth
