import torch

from vcae.training.critic import MelCritic, critic_losses


def _given():
    torch.manual_seed(0)
    critic = MelCritic(8, width=4)
    return critic, torch.randn(2, 80, 40), torch.randn(2, 80, 40, requires_grad=True), torch.randn(2, 8)


def test_what_the_critic_learns_by_does_not_reach_the_decoder():
    critic, real, decoded, voice = _given()
    critic_losses(critic, real, decoded, voice)["critic"].backward()
    assert decoded.grad is None
    assert all(p.grad is not None and bool(p.grad.any()) for p in critic.parameters())


def test_what_the_decoder_learns_by_does_not_reach_the_critic():
    critic, real, decoded, voice = _given()
    losses = critic_losses(critic, real, decoded, voice)
    (losses["passing"] + losses["features"]).backward()
    assert decoded.grad is not None
    assert bool(decoded.grad.any())
    assert all(p.grad is None for p in critic.parameters())


def test_it_learns_to_tell_recordings_from_blur(speech):
    from vcae.audio.config import MelConfig
    from vcae.audio.mel import LogMel

    torch.manual_seed(0)
    mel = LogMel(MelConfig())(torch.from_numpy(speech[: 16000 * 3])[None])
    mel = (mel - mel.mean()) / mel.std()
    real = torch.stack([mel[0, :, at : at + 40] for at in range(0, 120, 20)])
    blurred = torch.nn.functional.avg_pool2d(real[:, None], 5, 1, 2)[:, 0]
    critic, voice = MelCritic(8, width=8), torch.zeros(len(real), 8)
    optimizer = torch.optim.AdamW(critic.parameters(), 0.003)
    for _ in range(40):
        optimizer.zero_grad()
        critic_losses(critic, real, blurred, voice)["critic"].backward()
        optimizer.step()
    with torch.no_grad():
        assert critic(real, voice)[0].mean() > critic(blurred, voice)[0].mean() + 0.5


def test_the_voice_counts():
    critic, real, _, voice = _given()
    with torch.no_grad():
        assert not torch.allclose(critic(real, voice)[0], critic(real, voice.flip(0))[0], atol=1e-4)
