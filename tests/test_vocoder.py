import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from vcae.audio.config import MelConfig
from vcae.audio.f0 import estimate_f0
from vcae.audio.mel import LogMel
from vcae.vocoder.config import VocoderConfig
from vcae.vocoder.excitation import PitchTrack, pulse_train, white_noise
from vcae.vocoder.griffin_lim import griffin_lim
from vcae.vocoder.neural import HarmonicNoiseVocoder, _inverse_stft, _stft


def _pitch(f0):
    return PitchTrack.of(f0, 16000, 256)


def test_pulse_train_equals_the_sum_of_cosines():
    f0, n, rate = 210.0, 4096, 16000
    pulses = pulse_train(_pitch(torch.full((1, 20), f0)), n, rate, 256, 7600.0)[0]
    t = torch.arange(1, n + 1, dtype=torch.float64) / rate
    k = torch.arange(1, int(7600 / f0) + 1, dtype=torch.float64)
    expected = 2 * torch.cos(2 * math.pi * f0 * k[:, None] * t).sum(0) / math.sqrt(2 * len(k) + 1)
    assert torch.allclose(pulses.double(), expected, atol=2e-2)
    assert pulses.square().mean().item() == pytest.approx(1.0, abs=0.05)


def test_pulse_train_follows_f0_and_stays_in_band():
    f0 = torch.linspace(100, 200, 126)[None]
    pulses = pulse_train(_pitch(f0), 32000, 16000, 256, 4000.0)[0]
    spectrum = torch.stft(pulses, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()
    assert spectrum[290:].square().sum() < 1e-3 * spectrum.square().sum()
    measured = estimate_f0(pulses.numpy() * 0.1)
    voiced = measured > 0
    assert voiced.mean() > 0.9
    assert np.median(np.abs(measured[voiced] / f0[0].numpy()[voiced] - 1)) < 0.02


def test_pulses_keep_their_phase_for_an_hour_and_in_slices():
    """The phase of a steady 200 Hz after an hour is that of its start; a slice gives the pulses of the whole."""
    pitch = _pitch(torch.full((1, 225001), 200.0))
    f0 = pitch.log_f0[0, 0].exp().double()  # 200 Hz, as near as float32 comes
    turns = (torch.arange(225001).double() * 256 * f0 / 16000).frac()
    difference = (pitch.turns[0].double() - turns + 0.5) % 1 - 0.5
    assert difference.abs().max() < 1e-4
    f0 = 100 + 100 * torch.rand(1, 200)
    f0[:, 50:60] = 0
    whole = pulse_train(_pitch(f0), 199 * 256, 16000, 256, 7600.0)
    piece = pulse_train(_pitch(f0)[80:121], 40 * 256, 16000, 256, 7600.0)
    assert torch.equal(piece, whole[:, 80 * 256 : 120 * 256])


def test_following_finds_the_pulses_of_a_recording():
    """F0 that is 0.5 % wrong loses a turn in a second; following keeps the pulses in place."""
    f0 = (150 + 30 * torch.sin(torch.arange(251) / 20))[None]
    f0[:, 100:120] = 0
    true = _pitch(f0)
    moved = PitchTrack(true.log_f0, true.voiced, (true.turns + 0.37) % 1)
    recording = pulse_train(moved, 64000, 16000, 256, 4000.0)
    free = _pitch(f0 * 1.005)
    followed = free.follow(recording, 16000, 256)
    assert torch.equal(followed.log_f0, free.log_f0)

    def likeness(pitch):
        made = pulse_train(pitch, 64000, 16000, 256, 600.0)
        return float((made * recording).sum() / (made.norm() * recording.norm()))

    best = likeness(moved)
    assert best > 0.3
    assert likeness(followed) > 0.9 * best
    assert likeness(free) < 0.5 * best


def test_a_copy_that_follows_has_its_waves_where_the_recording_has_them(model, speech):
    seen = model.analyse(speech, 16000)
    recording = torch.from_numpy(seen.wav)[None]
    likeness = []
    for follow in (None, recording):
        copy = model.vocode(seen.mel, seen.f0, len(speech), follow=follow)
        likeness.append(float((copy * recording).sum() / (copy.norm() * recording.norm())))
    assert likeness[1] > 0.5
    assert likeness[1] > likeness[0] + 0.2


def test_noise_is_white_seeded_and_cut_anywhere():
    whole = white_noise(3, 2, 0, 100_000)
    assert torch.equal(white_noise(3, 2, 20_000, 70_001), whole[:, 20_000:70_001])
    assert not torch.equal(white_noise(4, 2, 0, 100), whole[:, :100])
    assert whole.std().item() == pytest.approx(1.0, abs=0.01)
    neighbours = (whole[:, 1:] * whole[:, :-1]).mean().item()
    assert abs(neighbours) < 0.01
    assert abs((whole[0] * whole[1]).mean().item()) < 0.01


def test_envelope_of_unit_noise_is_flat_at_zero(tiny_vocoder):
    mel = LogMel(MelConfig())(torch.randn(1, 160000))
    envelope = tiny_vocoder.envelope(mel)[0].mean(dim=1)
    # The mean of a logarithm lies under the logarithm of the mean: up to 0.3 in the narrow low bands.
    assert envelope[5:500].abs().max() < 0.35


def test_shapes_lengths_and_seed(tiny_vocoder):
    mel, f0 = torch.randn(2, 80, 33) - 5, torch.full((2, 33), 120.0)
    assert tiny_vocoder(mel, f0).shape == (2, 8192)
    for n in (8192, 8300, 8447):
        assert tiny_vocoder(mel, f0, n).shape == (2, n)
    noise = torch.randn(2, 8192)
    assert torch.equal(tiny_vocoder(mel, f0, noise=noise), tiny_vocoder(mel, f0, noise=noise))


def test_corrections_bring_the_mel_nearer(tiny_vocoder, speech):
    log_mel = LogMel(MelConfig())
    wav = torch.from_numpy(speech)[None]
    f0, mel, noise = torch.from_numpy(estimate_f0(speech))[None], log_mel(wav), torch.randn(1, len(speech))
    with torch.no_grad():
        distances = [
            (log_mel(tiny_vocoder(mel, f0, len(speech), noise, k)) - mel)[mel > -7].abs().mean().item() for k in (0, 1, 2, 4, 8)
        ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.5 * distances[0]


@pytest.mark.parametrize(("n", "n_fft", "hop"), [(16000, 1024, 256), (16127, 512, 128), (16128, 256, 64)])
def test_inverse_stft_equals_torchs(n, n_fft, hop):
    window = torch.hann_window(n_fft)
    spectrum = _stft(torch.randn(2, n), window, hop)
    spectrum = spectrum * torch.randn(spectrum.shape)
    expected = torch.istft(spectrum, n_fft, hop, n_fft, window, center=True, length=n)
    made = _inverse_stft(spectrum, window, hop, n)
    reached = (spectrum.shape[-1] - 1) * hop
    assert (made - expected)[:, :reached].abs().max() < 1e-4 * expected.abs().max()
    assert made.shape == expected.shape


@pytest.mark.parametrize("subframes", [1, 2, 4])
def test_subframes_fill_the_signal_to_its_last_sample(speech, subframes):
    vocoder = HarmonicNoiseVocoder(VocoderConfig(width=16, n_blocks=2, subframes=subframes, n_corrections=0)).eval()
    log_mel = LogMel(MelConfig())
    for n in (16000, 16128, 16127):
        wav = torch.from_numpy(speech[20000 : 20000 + n])[None]
        with torch.no_grad():
            copy = vocoder(log_mel(wav), torch.from_numpy(estimate_f0(wav[0].numpy()))[None], n)
        assert copy.shape == wav.shape
        assert 0.3 < copy[:, -400:].square().mean() / wav[:, -400:].square().mean() < 3


@pytest.mark.parametrize("chunk_s", [0.5, 2.3, 4.0])
def test_chunks_joined_equal_the_whole(model, speech, chunk_s):
    vocoder, n = model.checkpoint.vocoder, len(speech) - 5
    wav = torch.from_numpy(speech[:n])[None]
    mel, f0 = model.log_mel(wav), torch.from_numpy(estimate_f0(speech[:n]))[None]
    with torch.no_grad():
        whole = vocoder(mel, f0, n, white_noise(7, 1, 0, n))
        chunks = list(vocoder.stream(mel, f0, n, 7, chunk_s=chunk_s))
    assert len(chunks) == -(-n // round(chunk_s * 62.5) // 256)
    assert (torch.cat(chunks, dim=1) - whole).abs().max() < 1e-4
    assert whole.abs().max() > 0.1


def test_a_frame_reaches_as_far_as_the_receptive_field_and_no_further(tiny_vocoder):
    mel, f0, noise = torch.randn(1, 80, 400) - 5, torch.full((1, 400), 120.0), torch.randn(1, 399 * 256)
    for k in (0, 2):
        reach = tiny_vocoder.receptive_frames(k)
        with torch.no_grad():
            changed = mel.clone()
            changed[:, :, 200] += 3
            difference = (tiny_vocoder(changed, f0, None, noise, k) - tiny_vocoder(mel, f0, None, noise, k)).abs()[0]
        touched = difference.nonzero() / 256 - 200
        assert touched.abs().max() <= reach
        assert touched.abs().max() > reach - 6


def test_streaming_memory_is_bounded_by_the_chunk():
    """Ten minutes take hardly more than half a minute: without chunks they take over 1 GB."""
    code = """
import json, resource, torch
from vcae.config import from_dict
from vcae.vocoder.config import VocoderConfig
from vcae.vocoder.neural import HarmonicNoiseVocoder, _inverse_stft, _stft
vocoder = HarmonicNoiseVocoder(from_dict(VocoderConfig, {"width": 16, "n_blocks": 2, "n_corrections": 1})).eval()
peaks = []
for n in (2000, 37500):
    mel, f0 = torch.full((1, 80, n), -5.0), torch.full((1, n), 120.0)
    with torch.inference_mode():
        made = sum(piece.shape[1] for piece in vocoder.stream(mel, f0, chunk_s=10.0))
    assert made == (n - 1) * 256
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps(peaks))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, last = json.loads(done.stdout)
    assert last - first < 120


@pytest.mark.parametrize("subframes", [1, 2])
def test_onnx_runtime_gives_the_same_sound(model, speech, tmp_path, subframes):
    import onnxruntime

    from vcae.export.onnx import to_onnx, vocoder_graph

    wav = torch.from_numpy(speech[: 256 * 150])[None]
    vocoder = HarmonicNoiseVocoder(VocoderConfig(width=32, n_blocks=2, subframes=subframes, n_corrections=3)).eval()
    (tmp_path / "vocoder.onnx").write_bytes(to_onnx(vocoder_graph(vocoder)).SerializeToString())
    session = onnxruntime.InferenceSession(tmp_path / "vocoder.onnx")
    mel, f0 = model.log_mel(wav), torch.from_numpy(estimate_f0(wav[0].numpy()))[None]
    # The last frame's samples may be there in part.
    for frames, n in ((151, 150 * 256), (90, 89 * 256 + 130), (90, 90 * 256 - 1)):
        pitch, noise = _pitch(f0[:, :frames]), white_noise(0, 1, 0, frames * 256)
        values = {
            "mel": mel[..., :frames],
            "log_f0": pitch.log_f0,
            "voiced": pitch.voiced,
            "turns": pitch.turns,
            "noise": noise,
        }
        given = {name: value.numpy() for name, value in values.items()}
        made = session.run(None, {**given, "n_samples": np.array([n])})[0][:, :n]
        with torch.no_grad():
            expected = vocoder(mel[..., :frames], f0[:, :frames], n, noise[:, :n])
        assert np.abs(made - expected.numpy()).max() < 1e-4
        assert expected.abs().max() > 0.05


def test_untrained_vocoder_already_keeps_the_level(tiny_vocoder, speech):
    """The mel's envelope is built in; the network only corrects it."""
    log_mel = LogMel(MelConfig())
    wav = torch.from_numpy(speech)[None]
    f0 = torch.from_numpy(estimate_f0(speech))[None]
    with torch.no_grad():
        copy = tiny_vocoder(log_mel(wav), f0, len(speech))
    difference = (log_mel(copy) - log_mel(wav))[log_mel(wav) > -7]
    assert difference.abs().mean() < 1.0


def test_gradients_reach_all_weights(tiny_vocoder):
    tiny_vocoder(torch.randn(1, 80, 33) - 5, torch.full((1, 33), 120.0)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tiny_vocoder.parameters())


def test_griffin_lim_keeps_the_mel(speech):
    log_mel = LogMel(MelConfig())
    wav = torch.from_numpy(speech[:32000])[None]
    copy = griffin_lim(log_mel(wav), MelConfig(), 32000)
    assert copy.shape == wav.shape
    loud = log_mel(wav) > -5
    assert (log_mel(copy) - log_mel(wav))[loud].abs().mean() < 0.5


def test_shipped_vocoder_keeps_the_mel(model, speech):
    wav = torch.from_numpy(speech)[None]
    f0 = torch.from_numpy(estimate_f0(speech))[None]
    mel = model.log_mel(wav)
    copy = model.log_mel(model.vocode(mel, f0, len(speech)))
    # 0.3 nats are 2.6 dB, over all bands that stand 26 dB or less under the loudest.
    assert (copy - mel)[mel > mel.max() - 3].abs().mean() < 0.3
