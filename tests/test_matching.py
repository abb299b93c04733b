import torch

from vcae.voice.matching import MAX_MEMORY, band_quantiles, correct_errors, map_quantiles, measure_errors


def _f0(n, voiced_from=0):
    f0 = torch.full((1, n), 120.0)
    f0[:, :voiced_from] = 0
    return f0


def _matched(mel, f0, wanted, strength=1.0):
    return map_quantiles(mel, f0, band_quantiles([mel], [f0]), wanted, strength)


def test_quantiles_equal_torchs():
    mel = torch.randn(1, 80, 333)
    _, voiced = band_quantiles([mel], [_f0(333)])
    expected = torch.quantile(mel[0], torch.linspace(0.02, 0.98, 25), dim=1).T
    assert torch.allclose(voiced, expected, atol=1e-5)


def test_bands_take_the_wanted_distribution_class_by_class():
    f0 = _f0(600, 250)
    wanted_mel = torch.randn(1, 80, 600) * 1.5 - 4
    wanted_mel[..., :250] += 1
    wanted = band_quantiles([wanted_mel], [f0])
    mel = torch.randn(1, 80, 600) * 0.5 - 3
    matched = band_quantiles([_matched(mel, f0, wanted)], [f0])
    before = band_quantiles([mel], [f0])
    for kind in range(2):
        assert torch.allclose(matched[kind], wanted[kind], atol=0.3)
        assert not torch.allclose(before[kind], wanted[kind], atol=0.6)


def test_order_within_a_band_is_kept():
    mel, f0 = torch.randn(1, 80, 300), _f0(300)
    matched = _matched(mel, f0, band_quantiles([torch.randn(1, 80, 300) * 2], [f0]))
    assert torch.equal(mel[0, 7].argsort(), matched[0, 7].argsort())


def test_matching_a_mel_to_itself_changes_nothing_and_strength_blends():
    mel, f0 = torch.randn(1, 80, 300), _f0(300, 100)
    assert torch.allclose(_matched(mel, f0, band_quantiles([mel], [f0])), mel, atol=1e-3)
    wanted = band_quantiles([mel + 2], [f0])
    assert torch.equal(_matched(mel, f0, wanted, 0.0), mel)
    assert torch.allclose(_matched(mel, f0, wanted, 0.5), mel + 1, atol=1e-2)


def test_a_class_with_too_few_frames_is_left_alone():
    mel = torch.randn(1, 80, 100)
    wanted = band_quantiles([torch.randn(1, 80, 100)], [_f0(100, 10)])
    assert wanted[0] is None
    matched = _matched(mel, _f0(100, 50), wanted)
    assert torch.equal(matched[..., :50], mel[..., :50])
    assert not torch.equal(matched[..., 50:], mel[..., 50:])


def test_errors_are_put_right_where_the_same_is_said():
    """Two sounds with far codes: each gets the error that was measured on it."""
    n, f0 = 100, _f0(100)
    latent = torch.zeros(1, 4, n // 2)
    latent[..., 25:] = 5.0
    mel = torch.randn(1, 80, n) * 0.1
    copy = mel.clone()
    copy[..., :50] -= 1.0
    copy[..., 50:] += 0.5
    errors = measure_errors([mel], [copy], [latent], [f0], 2)
    decoded = torch.zeros(1, 80, n)
    corrected = correct_errors(decoded, latent.flip(-1), f0, 2, errors)
    assert torch.allclose(corrected[..., :50], torch.tensor(-0.5), atol=1e-3)
    assert torch.allclose(corrected[..., 50:], torch.tensor(1.0), atol=1e-3)
    half = correct_errors(decoded, latent.flip(-1), f0, 2, errors, 0.5)
    assert torch.allclose(half, corrected / 2, atol=1e-5)


def test_memory_is_bounded_and_blocks_change_nothing():
    n = 3 * MAX_MEMORY
    mel, f0, latent = torch.randn(1, 80, n), _f0(n), torch.randn(1, 4, n)
    errors = measure_errors([mel], [mel * 0.9], [latent], [f0], 1)
    assert len(errors.keys) == len(errors.values) <= MAX_MEMORY
    long = correct_errors(mel[..., :5000], latent[..., :5000], f0[:, :5000], 1, errors)
    piece = correct_errors(mel[..., 3000:3010], latent[..., 3000:3010], f0[:, 3000:3010], 1, errors)
    assert torch.allclose(long[..., 3000:3010], piece, atol=1e-4)
