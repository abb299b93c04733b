"""The band above the model's, and the output's sample rate."""

import numpy as np
import pytest

from vcae.audio.high_band import BandMeter, BandProfile, HighBand, has_high_band, mean_bands, measure_bands
from vcae.audio.io import resample
from vcae.audio.output_rate import OutputRate, change_rate

RATE = 48000


@pytest.fixture(scope="module")
def hiss():
    """Bursts of noise that falls by 12 dB above 7.5 kHz, like fricatives, two a second for 2 s."""
    rng = np.random.default_rng(1)
    spectrum = np.fft.rfft(rng.standard_normal(2 * RATE))
    spectrum[np.fft.rfftfreq(2 * RATE, 1 / RATE) > 7500] *= 10 ** (-12 / 20)
    bursts = np.abs(np.sin(2 * np.pi * np.arange(2 * RATE) / RATE)) ** 4
    return (0.05 * np.fft.irfft(spectrum) * bursts).astype(np.float32)


def lowpass(wav):
    return resample(wav, 16000, RATE)


def low_of(wav):
    """Return what a model that changes nothing gives of a wav: its band up to 8 kHz."""
    return lowpass(resample(wav, RATE, 16000))[: len(wav)]


def density_db(wav, low, high):
    """Return the power density between two frequencies in dB."""
    hertz = np.fft.rfftfreq(len(wav), 1 / RATE)
    return 10 * np.log10(np.square(np.abs(np.fft.rfft(wav)))[(hertz >= low) & (hertz < high)].mean())


def run(band, low, source, step=10**9):
    pieces = [band(low[n : n + step], source[n : n + step]) for n in range(0, len(low), step)]
    return np.concatenate([*pieces, band.finish()])


def test_levels_are_measured_relative_to_the_guide_band(hiss):
    levels = measure_bands(hiss, RATE).levels_db
    assert np.abs(np.array(levels) + 12).max() < 1


def test_sound_without_the_band_has_no_levels(hiss):
    assert measure_bands(low_of(hiss), RATE) is None
    assert measure_bands(hiss, 16000) is None
    assert not has_high_band(16000)
    assert has_high_band(22050)


def test_levels_do_not_depend_on_blocks(hiss):
    whole, parts = BandMeter(RATE), BandMeter(RATE)
    whole.add(hiss)
    for n in range(0, len(hiss), 1001):
        parts.add(hiss[n : n + 1001])
    assert parts.profile().levels_db == pytest.approx(whole.profile().levels_db)


def test_an_unchanged_voice_gets_its_own_band_back(hiss):
    made = run(HighBand(RATE, lowpass, 16000), low_of(hiss), hiss)
    assert len(made) == len(hiss)
    # Sample by sample: the band is neither moved in time nor shaped.
    assert np.square(made - hiss).mean() < 0.02 * np.square(hiss - low_of(hiss)).mean()


def test_the_band_follows_the_envelope_of_the_new_sound(hiss):
    late = np.roll(low_of(hiss), RATE // 4)
    made = run(HighBand(RATE, lowpass, 16000), late, hiss)
    high = made - late
    loud = np.square(high.reshape(-1, RATE // 20)).mean(axis=1)
    wanted = np.square(late.reshape(-1, RATE // 20)).mean(axis=1)
    assert np.corrcoef(loud, wanted)[0, 1] > 0.95


def test_the_band_below_is_not_touched(hiss):
    low = low_of(hiss)
    made = run(HighBand(RATE, lowpass, 16000), low, hiss)
    assert abs(density_db(made, 100, 7000) - density_db(low, 100, 7000)) < 0.01


def test_a_reference_sets_the_levels(hiss):
    own = measure_bands(hiss, RATE)
    brighter = BandProfile(tuple(level + 8 for level in own.levels_db), 1e6)
    own = BandProfile(own.levels_db, 1e6)
    plain, moved = (run(HighBand(RATE, lowpass, 16000, own, t), low_of(hiss), hiss) for t in (None, brighter))
    for band in ((9000, 10000), (12000, 13000), (20000, 23000)):
        assert density_db(moved, *band) - density_db(plain, *band) == pytest.approx(8, abs=0.5)


def test_a_source_without_the_band_gets_noise_of_likely_levels(hiss):
    low, nothing = low_of(hiss), BandProfile((), 0.0)
    made = run(HighBand(RATE, lowpass, 16000, nothing), low, np.zeros_like(low))
    assert density_db(made, 8000, 9000) - density_db(made, 5000, 7000) == pytest.approx(-6.3, abs=2)
    again, other = (run(HighBand(RATE, lowpass, 16000, nothing, None, seed), low, np.zeros_like(low)) for seed in (0, 1))
    assert np.array_equal(made, again)
    assert not np.array_equal(made, other)


@pytest.mark.parametrize("source", [None, BandProfile((), 0.0)])
def test_blocks_and_the_whole_give_the_same_samples(hiss, source):
    low = low_of(hiss)
    whole = run(HighBand(RATE, lowpass, 16000, source), low, hiss)
    assert np.array_equal(run(HighBand(RATE, lowpass, 16000, source), low, hiss, 777), whole)


def test_silence_stays_silent():
    silence = np.zeros(RATE, np.float32)
    assert not run(HighBand(RATE, lowpass, 16000), silence, silence).any()
    assert not run(HighBand(RATE, lowpass, 16000, BandProfile((), 0.0)), silence, silence).any()


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("quick", [False, True])
def test_output_is_as_long_as_its_source(hiss, rate, quick):
    low = resample(hiss, RATE, 16000)
    change = OutputRate(16000, RATE, rate, quick=quick)
    blocks = (low[n : n + 5000] for n in range(0, len(low), 5000))
    made = np.concatenate(list(change_rate(change, blocks, iter([hiss]))))
    assert len(made) == len(hiss) * rate / RATE


def test_a_click_stays_where_it_was(hiss):
    click = np.zeros(RATE, np.float32)
    click[30000] = 0.5
    low = resample(click, RATE, 16000)
    for rate, quick in ((48000, False), (48000, True), (24000, False)):
        made = np.concatenate(list(change_rate(OutputRate(16000, RATE, rate, quick=quick), [low], iter([click]))))
        assert np.abs(made).argmax() == 30000 * rate // RATE


def test_levels_are_averaged_over_the_bands_that_all_have():
    known = [(BandProfile((-4.0, -8.0), 2.0), 1.0), (BandProfile((-10.0, -20.0, -30.0), 1.0), 2.0), (None, 5.0)]
    mean = mean_bands(known)
    assert mean.levels_db == pytest.approx((-8.0, -16.0))
    assert mean.seconds == 3.0
    assert mean_bands([(None, 1.0)]) is None
