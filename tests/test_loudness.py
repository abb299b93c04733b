import numpy as np
import pytest
import soundfile

from vcae.audio.io import resample
from vcae.audio.loudness import (
    PEAK_LIMIT,
    TARGET_LEVEL,
    LevelMeter,
    active_level,
    cut_reach,
    cut_rumble,
    follow_envelope,
    follow_envelope_running,
    limit_peaks,
    normalize_level,
)


def test_active_level_ignores_pauses(tone):
    # Whole frames, so that the pause begins with one.
    wav = tone(level=0.2)[: 62 * 256]
    with_pause = np.concatenate([wav, np.zeros(32000, np.float32)])
    assert np.isclose(active_level(wav), 0.2 / np.sqrt(2), rtol=0.01)
    assert np.isclose(active_level(with_pause), active_level(wav), rtol=0.01)
    assert active_level(np.zeros(5000, np.float32)) == 0.0


def test_normalize_level(speech):
    for gain in (0.01, 1.0, 3.0):
        assert np.isclose(active_level(normalize_level(speech * gain)), TARGET_LEVEL, rtol=0.02)
    click = np.zeros(16000, np.float32)
    click[8000] = 1.0
    assert np.abs(normalize_level(click)).max() <= PEAK_LIMIT + 1e-6


def test_output_takes_the_sources_level_and_envelope(speech):
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    speech = speech * 0.3
    shaped = follow_envelope(noise, speech)
    assert np.isclose(active_level(shaped), active_level(speech), rtol=0.05)

    def frames(x):
        return np.log(np.square(x[: len(x) // 4000 * 4000].reshape(-1, 4000)).mean(axis=1) + 1e-9)

    assert np.corrcoef(frames(shaped), frames(speech))[0, 1] > 0.9
    assert abs(np.corrcoef(frames(noise), frames(speech))[0, 1]) < 0.5


def test_output_never_clips(tone):
    loud = follow_envelope(np.random.default_rng(0).standard_normal(16000).astype(np.float32), tone(level=1.0))
    assert np.abs(loud).max() <= PEAK_LIMIT + 1e-6


def test_limiter_touches_only_the_surroundings_of_peaks(speech):
    wav = speech * 0.5
    wav[50000] = 3.0
    wav[50010] = -2.0
    limited = limit_peaks(wav)
    assert np.abs(limited).max() <= PEAK_LIMIT + 1e-6
    assert np.array_equal(limited[:49800], wav[:49800])
    assert np.array_equal(limited[50200:], wav[50200:])
    assert np.array_equal(limit_peaks(speech * 0.5), speech * 0.5)


@pytest.mark.parametrize("hz", [10.0, 25.0, 50.0, 60.0])
@pytest.mark.parametrize("level", [0.1, 0.3, 1.0])
def test_hum_and_rumble_are_no_loudness(speech, tone, hz, level):
    wav = speech + tone(hz, len(speech) / 16000, level=level)[: len(speech)]
    change_db = 20 * np.log10(active_level(wav) / active_level(speech))
    assert abs(change_db) < 1.0


@pytest.mark.parametrize("hz", [10.0, 50.0, 60.0])
def test_rumble_is_cut_and_the_voice_is_not(speech, tone, hz):
    rumble = tone(hz, len(speech) / 16000, level=0.3)[: len(speech)]
    meter = LevelMeter.of(speech + rumble)
    assert meter.has_rumble()
    assert not LevelMeter.of(speech).has_rumble()
    left = (cut_rumble(speech + rumble) - speech)[3200:-3200]
    assert 20 * np.log10(np.sqrt(np.mean(left**2)) / active_level(speech)) < -30


def test_rumble_is_cut_alike_in_sections(speech):
    reach, whole = cut_reach(16000), cut_rumble(speech)
    part = cut_rumble(speech[20000 - reach : 30000 + reach])[reach:-reach]
    assert np.allclose(part, whole[20000:30000], atol=1e-6)


def test_one_click_changes_neither_level_nor_gain(speech):
    quiet = (speech * 0.02)[16000:72000]
    clicked = quiet.copy()
    clicked[30000] = 1.0
    assert abs(20 * np.log10(active_level(clicked) / active_level(quiet))) < 1.0
    assert abs(20 * np.log10(LevelMeter.of(clicked).gain / LevelMeter.of(quiet).gain)) < 1.0
    assert np.abs(normalize_level(clicked)).max() <= PEAK_LIMIT + 1e-6


def test_the_peaks_of_speech_are_no_clicks(clips):
    for clip in clips.values():
        meter = LevelMeter.of(soundfile.read(clip, dtype="float32")[0])
        assert meter.peak_of_sound == meter.peak


def test_levels_do_not_depend_on_the_rate(speech):
    for rate in (8000, 44100, 48000):
        there = resample(speech, 16000, rate)
        band = speech if rate > 16000 else resample(there, 8000, 16000)
        assert np.isclose(active_level(there, rate), active_level(band), rtol=0.06)


def test_a_meter_in_sections_and_changed_measures_the_same(speech):
    whole, parts = LevelMeter.of(0.5 * (speech - 0.1)), LevelMeter()
    for start in range(0, len(speech), 7001):
        parts.add(speech[start : start + 7001])
    parts = parts.changed(offset=0.1, gain=0.5)
    for name in ("mean", "peak", "peak_of_sound", "gain"):
        assert np.isclose(getattr(whole, name), getattr(parts, name), rtol=1e-5, atol=1e-8)
    assert np.allclose(whole.powers(), parts.powers(), atol=1e-9)


def test_the_envelope_is_followed_in_one_pass_as_in_two(speech):
    """The same gain, however the sound is cut; sound is there before the whole is known; nothing is clipped."""
    rng = np.random.default_rng(0)
    other = (speech * (0.6 + 0.4 * np.sin(np.arange(len(speech)) / 9000)) + 0.001 * rng.standard_normal(len(speech))).astype(
        np.float32
    )
    source, other = normalize_level(speech), normalize_level(other)
    wanted = LevelMeter.of(source)
    for size in (1000, 16000, len(other)):
        pieces = [other[at : at + size] for at in range(0, len(other), size)]
        made = list(follow_envelope_running(iter(pieces), wanted, 0.1))
        whole = np.concatenate(made)
        assert len(whole) == len(other)
        assert np.abs(whole).max() <= PEAK_LIMIT + 1e-6
        assert active_level(whole) == pytest.approx(0.1, rel=0.1)
        two = follow_envelope(other, source, 0.1)
        assert np.corrcoef(whole, two)[0, 1] > 0.999
        if size == 16000:
            assert sum(map(len, made[:2])) > size
    silent = list(follow_envelope_running(iter([other]), LevelMeter.of(np.zeros(16000, np.float32)), 0.1))
    assert np.array_equal(np.concatenate(silent), other)
