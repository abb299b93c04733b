import numpy as np

from vcae.audio.loudness import PEAK_LIMIT, TARGET_LEVEL, active_level, follow_envelope, limit_peaks, normalize_level


def test_active_level_ignores_pauses(tone):
    wav = tone(level=0.2)
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
