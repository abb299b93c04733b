"""A converted voice is where the source's voice was: level and delay of the channels, lengths and lags."""

import numpy as np
import pytest
import soundfile

import vcae
from vcae.audio.io import Sound, SoundReader, channels_of, read_sound, resample
from vcae.audio.loudness import PEAK_LIMIT, RunningLimiter, limit_peaks
from vcae.audio.overlap_add import overlap_add
from vcae.audio.placement import Placement, Taker, place
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert_long


@pytest.fixture(scope="module")
def other(clips):
    return read_sound(clips["reference"], first_s=3.0).wav


@pytest.fixture(scope="module")
def model():
    return vcae.load(device="cpu")


@pytest.fixture(scope="module")
def voice(model, clips):
    return model.voice(clips["reference"])


def delayed(wav, n):
    return np.concatenate([np.zeros(n, np.float32), wav[: len(wav) - n]])


def lag_of(first, second):
    """Return by how many samples the second is later."""
    n = 2 * len(first)
    both = np.fft.irfft(np.fft.rfft(second, n) * np.fft.rfft(first, n).conj())
    return int((both.argmax() + n // 2) % n - n // 2)


def level_db(wav):
    return 10 * np.log10(np.square(wav).mean())


def placed(wav, channels, step=10**9):
    mix, placement = channels.mean(axis=1), Placement(16000, channels.shape[1])
    parts = [slice(n, n + step) for n in range(0, len(wav), step)]
    return np.concatenate([*(placement(wav[p], mix[p], channels[p]) for p in parts), placement.finish()])


@pytest.mark.parametrize(("lag", "gain"), [(0, 1.0), (0, 0.2), (8, 1.0), (12, 0.5)])
def test_level_and_delay_between_channels_are_the_sources(speech, other, lag, gain):
    said = speech[: len(other)]
    made = placed(0.5 * other, np.stack([said, gain * delayed(said, lag)], axis=1))
    assert made.shape == (len(other), 2)
    assert lag_of(made[:, 0], made[:, 1]) == lag
    assert level_db(made[:, 1]) - level_db(made[:, 0]) == pytest.approx(20 * np.log10(gain), abs=0.3)


def test_the_sound_itself_is_not_changed_where_all_channels_are_the_mix(speech, other):
    said = speech[: len(other)]
    made = placed(0.5 * other, np.stack([said, said], axis=1))
    assert np.abs(made - 0.5 * other[:, None]).max() < 1e-3


def test_an_inverted_channel_stays_inverted(speech, other):
    said = speech[: len(other)]
    placement = Placement(16000, 2)
    channels = np.stack([said, -said], axis=1)
    made = np.concatenate([placement(0.5 * other, said, channels), placement.finish()])
    assert np.allclose(made[:, 0], -made[:, 1], atol=1e-4)


def test_each_band_has_its_own_place(speech, other):
    said = speech[: len(other)]
    spectrum = np.fft.rfft(said)
    spectrum[len(spectrum) // 4 :] = 0
    low = np.fft.irfft(spectrum, len(said)).astype(np.float32)
    # Below 2 kHz left, above it right.
    made = placed(0.3 * other, np.stack([low, said - low], axis=1))
    left, right = (np.square(np.abs(np.fft.rfft(made[:, k]))) for k in (0, 1))
    n = len(left)
    assert left[: n // 5].sum() > 100 * right[: n // 5].sum()
    assert right[n // 3 :].sum() > 100 * left[n // 3 :].sum()


def test_a_voice_that_moves_is_followed(speech, other):
    said, half = speech[: len(other)], len(other) // 2
    channels = np.stack([said, 0.2 * said], axis=1)
    channels[half:] = channels[half:, ::-1]
    made = placed(0.3 * other, channels)
    near = 16000 // 2
    assert level_db(made[: half - near, 0]) - level_db(made[: half - near, 1]) == pytest.approx(14, abs=0.5)
    assert level_db(made[half + near :, 1]) - level_db(made[half + near :, 0]) == pytest.approx(14, abs=0.5)


def test_blocks_and_the_whole_are_placed_the_same(speech, other):
    channels = np.stack([speech[: len(other)], delayed(speech[: len(other)], 5), 0.1 * other], axis=1)
    assert np.array_equal(placed(other, channels, 1111), placed(other, channels))


def test_sources_are_read_as_they_are_needed(speech, other):
    channels = np.stack([speech[: len(other)], 0.5 * speech[: len(other)]], axis=1)
    mix = channels.mean(axis=1)
    made = np.concatenate(
        list(place([other[:9000], other[9000:]], np.array_split(mix, 7), np.array_split(channels, 3), 16000, 2))
    )
    assert np.array_equal(made, placed(other, channels))
    taker = Taker([np.ones(3), np.ones(3)])
    assert [list(taker(n)) for n in (2, 3, 3)] == [[1, 1], [1, 1, 1], [1, 0, 0]]


def test_peaks_of_a_stream_are_limited_as_those_of_the_whole(speech):
    loud = (3 * speech / np.abs(speech).max()).astype(np.float32)
    limiter = RunningLimiter(1)
    made = np.concatenate([*(limiter(loud[n : n + 1000, None]) for n in range(0, len(loud), 1000)), limiter.finish()])
    assert np.abs(made).max() <= PEAK_LIMIT + 1e-6
    assert np.abs(made[:, 0] - limit_peaks(loud)).max() < 1e-5


def test_stereo_at_48_khz_comes_back_as_stereo_at_48_khz(model, voice, speech, tmp_path):
    wide = resample(speech[:32000], 16000, 48000)
    source = Sound(np.stack([wide, 0.25 * delayed(wide, 20)], axis=1), 48000)
    path = model.convert(source, reference=voice).save(tmp_path / "out.wav")
    made, rate = soundfile.read(path)
    assert (rate, made.shape) == (48000, source.shape)
    assert lag_of(made[:, 0], made[:, 1]) == 20
    assert level_db(made[:, 1]) - level_db(made[:, 0]) == pytest.approx(-12, abs=0.5)
    mono = model.convert(source, reference=voice, channels="mono")
    assert mono.shape == (96000,)
    # Frames of 10 ms are loud where the source's are.
    power = [np.log(np.square(x[: 200 * 480]).reshape(-1, 480).mean(axis=1) + 1e-7) for x in (made[:, 0], source.wav[:, 0])]
    assert np.corrcoef(*power)[0, 1] > 0.9


def test_channels_and_the_high_band_stay_at_another_speed(model, voice, speech):
    """Hiss above 8 kHz in the first half of the source: it is in the first half of the result, and nowhere else."""
    wide = resample(speech[:32000], 16000, 48000)
    hiss = np.random.default_rng(0).normal(0, 1, len(wide)).astype(np.float32)
    hiss = hiss - resample(resample(hiss, 48000, 16000), 16000, 48000)[: len(wide)]
    wide[:48000] += 0.3 * np.abs(wide[:48000]) * hiss[:48000]
    source = Sound(np.stack([wide, 0.25 * delayed(wide, 20)], axis=1), 48000)
    made = model.convert(source, reference=voice, speed=1.25).wav
    assert made.shape == (76800, 2)
    assert lag_of(made[:, 0], made[:, 1]) == 20
    assert level_db(made[:, 1]) - level_db(made[:, 0]) == pytest.approx(-12, abs=0.5)
    power = np.square(np.abs(np.fft.rfft(made[:76800, 0].reshape(2, -1))))
    n = power.shape[1]
    shares = power[:, n * 9 // 24 : n * 16 // 24].sum(axis=1) / power[:, n * 5 // 24 : n * 7 // 24].sum(axis=1)
    assert shares[0] > 30 * shares[1]


@pytest.mark.parametrize("speed", [0.6, 1.7])
def test_overlap_add_keeps_levels_in_time_and_between_channels(speed):
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, 40000).astype(np.float32) * np.repeat([1.0, 0.1], 20000).astype(np.float32)
    both = np.stack([noise, 0.5 * delayed(noise, 7)], axis=1)
    n = round(40000 / speed)
    made = np.concatenate(list(overlap_add([both], n, speed, 128)))
    assert made.shape == (n, 2)
    for part, level in ((made[: n // 2 - 200], 0.0), (made[n // 2 + 200 :], -20.0)):
        assert level_db(part[:, 0]) == pytest.approx(level, abs=0.3)
        assert level_db(part[:, 1]) == pytest.approx(level - 6, abs=0.3)
    assert lag_of(made[:, 0], made[:, 1]) == 7
    split = np.concatenate(list(overlap_add(np.array_split(both, 37), n, speed, 128)))
    assert np.array_equal(made, split)
    # White noise stays white: without a lag at which it repeats.
    same = np.fft.irfft(np.square(np.abs(np.fft.rfft(made[: n // 2, 0]))))
    assert np.abs(same[16:1000]).max() < 0.08 * same[0]
    longer = np.concatenate(list(overlap_add([both[:, 0]], n + 5000, speed, 128)))
    assert np.allclose(longer[: n - 256], made[: n - 256, 0])
    assert not longer[n + 256 :].any()


def test_a_file_is_read_by_several_at_once_and_gives_what_its_samples_give(model, voice, speech, tmp_path):
    wide = resample(speech[:24000], 16000, 44100)
    channels = np.stack([wide, 0.5 * wide], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, 44100, subtype="FLOAT")
    with SoundReader(tmp_path / "a.wav") as source:
        made = np.concatenate(list(convert_long(model, source, voice, section_s=0.5).blocks))
    wanted = np.concatenate(list(convert_long(model, Sound(channels, 44100), voice, section_s=0.5).blocks))
    assert np.array_equal(made, wanted)


def test_channels_with_a_speaker_each_are_converted_each(model, voice, speech):
    first, second = speech[:24000], speech[40000:64000]
    source = Sound(np.stack([first, np.zeros_like(first), 0.5 * second], axis=1), 16000)
    shares = []
    options = ConvertOptions(channels="separate")
    done = convert_long(model, source, voice, options, section_s=1.0, progress=shares.append)
    made = np.concatenate(list(done.blocks))
    assert made.shape == source.shape
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert not made[:, 1].any()
    for k, own in ((0, first), (2, 0.5 * second)):
        alone = model.convert(own, 16000, voice).wav
        assert np.abs(made[:, k] - alone).max() < 1e-3


def test_silent_channels_and_wrong_options_are_refused(model, voice):
    silence = Sound(np.zeros((16000, 2), np.float32), 16000)
    for channels in ("keep", "separate"):
        with pytest.raises(vcae.AudioError, match="is silent"):
            model.convert(silence, reference=voice, channels=channels)
    with pytest.raises(vcae.ConfigError, match="channels is 'left'; allowed are keep, mono, separate"):
        ConvertOptions(channels="left")


def test_a_format_with_fewer_channels_gets_fewer(tmp_path):
    assert [channels_of(f"a{suffix}", 3) for suffix in (".wav", ".mp3", ".m4a")] == [3, 1, 1]
    assert [channels_of(f"a{suffix}", 2) for suffix in (".wav", ".mp3", ".m4a")] == [2, 2, 2]
