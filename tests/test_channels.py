import numpy as np
import pytest
import soundfile

from vcae.audio.channels import ChannelMeter, RunningMixer, mix_down
from vcae.audio.io import check_sound, read_sound


def read(tmp_path, *channels):
    soundfile.write(tmp_path / "a.wav", np.stack(channels, axis=1), 16000, subtype="FLOAT")
    return read_sound(tmp_path / "a.wav").wav


def test_channels_that_cancel_each_other_are_turned(tmp_path, speech):
    assert np.allclose(read(tmp_path, speech, -speech), speech, atol=1e-6)
    # Up to the sign, which nobody hears.
    quieter = read(tmp_path, -0.6 * speech, speech)
    assert np.allclose(np.abs(quieter), np.abs(0.8 * speech), atol=1e-6)


def test_a_dead_channel_takes_nothing_away(tmp_path, speech):
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    for dead in (0 * speech, noise, 0 * speech + 0.2):
        assert np.allclose(read(tmp_path, speech, dead), speech, atol=1e-6)
        assert np.allclose(read(tmp_path, dead, speech), speech, atol=1e-6)


def test_ordinary_stereo_is_the_mean(tmp_path, speech, tone):
    other = np.roll(speech, 4000) * 0.5
    assert np.allclose(read(tmp_path, speech, other), (speech + other) / 2, atol=1e-6)


def test_silence_in_all_channels_stays(tmp_path):
    meter = ChannelMeter(2)
    meter.add(np.zeros((100, 2)))
    assert meter.weights() == pytest.approx([0.5, 0.5])
    assert not mix_down(np.zeros((100, 2)), meter.weights()).any()


def test_arrays_are_mixed_alike(speech):
    assert np.allclose(check_sound(np.stack([speech, -speech], axis=1), 16000, "x").wav, speech, atol=1e-6)
    sound = check_sound(np.round(speech * 32767), 16000, "x")
    assert np.allclose(sound.wav, speech, atol=1e-3)
    assert "integers of up to 32768" in sound.warnings[0]


def test_a_change_of_channels_in_mid_file_is_seen_as_a_whole(tmp_path, speech):
    """A channel that only speaks late is not dead: all of the file is looked through."""
    silence = np.zeros(16000 * 40, np.float32)
    left, right = np.concatenate([speech, silence]), np.concatenate([silence, speech])
    assert np.allclose(read(tmp_path, left, right), (left + right) / 2, atol=1e-6)


def stream(*channels, block=1280):
    """Return what a stream's mixer makes of channels that arrive block by block."""
    mixer, both = RunningMixer(len(channels), 16000), np.stack(channels, axis=1)
    return np.concatenate([mixer(both[at : at + block]) for at in range(0, len(both), block)])


def test_a_stream_turns_antiphase_channels_and_leaves_out_dead_ones(speech):
    assert np.allclose(stream(speech, -speech), speech, atol=1e-6)
    assert np.allclose(stream(speech, 0 * speech), speech, atol=1e-6)
    assert np.allclose(stream(speech, speech), speech, atol=1e-6)
    other = np.roll(speech, 4000) * 0.5
    assert np.allclose(stream(speech, other)[40000:], ((speech + other) / 2)[40000:], atol=1e-6)
    assert not stream(0 * speech, 0 * speech).any()


def test_a_stream_follows_a_capsule_that_fails_and_never_flips_its_sign(speech):
    half = len(speech) // 2
    left = speech * (np.arange(len(speech)) < half)
    mixed = stream(left, -0.9 * speech)
    assert np.allclose(mixed[: half - 1280], 0.95 * speech[: half - 1280], atol=1e-6)
    # Until the failed one counts as dead the mean is quieter, by 6 dB; then it is what the other channel has, within a decibel.
    after = mixed[half + 1280 :] / np.where(np.abs(speech) < 1e-3, np.nan, speech)[half + 1280 :]
    assert np.nanmin(after) > 0.44
    more = stream(np.concatenate([left, left * 0]), np.concatenate([-0.9 * speech] * 2))[-16000:]
    assert np.allclose(more, 0.9 * speech[-16000:], atol=1e-6)
