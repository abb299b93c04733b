import torch

from vcae.audio.frames import active_frames, length_mask, n_frames, weighted_moments


def test_length_mask():
    assert length_mask(torch.tensor([1, 3]), 4)[:, 0].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]


def test_n_frames():
    assert [n_frames(n, 256) for n in (0, 255, 256, 512)] == [1, 1, 2, 3]


def test_active_frames_leave_out_pauses_and_padding():
    mel = torch.full((1, 80, 100), -2.0)
    mel[..., 40:60] = -9.0
    active = active_frames(mel)[0, 0]
    assert active[:40].all()
    assert not active[40:60].any()
    padded = torch.cat([mel, torch.full((1, 80, 50), 5.0)], dim=-1)
    mask = length_mask(torch.tensor([100]), 150)
    assert torch.equal(active_frames(padded, mask)[0, 0, :100], active)


def test_weighted_moments_ignore_what_weighs_nothing():
    x = torch.randn(2, 3, 50)
    weight = torch.ones(2, 1, 50)
    weight[..., 30:] = 0
    mean, deviation = weighted_moments(x, weight, eps=0.0)
    assert torch.allclose(mean[..., 0], x[..., :30].mean(-1), atol=1e-6)
    assert torch.allclose(deviation[..., 0], x[..., :30].std(-1, unbiased=False), atol=1e-6)
