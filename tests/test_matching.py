import torch

from vcae.tasks.matching import match_quantiles, mel_quantiles


def test_bands_take_the_wanted_distribution():
    mel = torch.randn(1, 80, 500) * 0.5 - 3
    wanted = mel_quantiles([torch.randn(1, 80, 700) * 1.5 - 4])
    matched = match_quantiles(mel, wanted)
    assert torch.allclose(mel_quantiles([matched]), wanted, atol=0.2)
    assert not torch.allclose(mel_quantiles([mel]), wanted, atol=0.5)


def test_order_within_a_band_is_kept():
    mel = torch.randn(1, 80, 300)
    matched = match_quantiles(mel, mel_quantiles([torch.randn(1, 80, 300) * 2]))
    assert torch.equal(mel[0, 7].argsort(), matched[0, 7].argsort())


def test_matching_a_mel_to_itself_changes_nothing_and_strength_blends():
    mel = torch.randn(1, 80, 300)
    assert torch.allclose(match_quantiles(mel, mel_quantiles([mel])), mel, atol=1e-3)
    wanted = mel_quantiles([mel + 2])
    assert torch.equal(match_quantiles(mel, wanted, 0.0), mel)
    assert torch.allclose(match_quantiles(mel, wanted, 0.5), mel + 1, atol=1e-2)
