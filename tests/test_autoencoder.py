import pytest
import torch

from vcae.audio.mel import LogMel
from vcae.config import from_dict
from vcae.errors import ConfigError
from vcae.model.autoencoder import Autoencoder
from vcae.model.blocks import ConvNeXtStack, InstanceNorm
from vcae.model.config import AutoencoderConfig
from vcae.model.decoder import F0Features, harmonic_templates


@pytest.fixture
def mel(speech):
    return LogMel(AutoencoderConfig().mel)(torch.from_numpy(speech[:32000])[None])


def test_shapes(tiny_autoencoder, mel):
    out = tiny_autoencoder(mel, torch.full((1, 126), 120.0))
    assert out.mel.shape == mel.shape == (1, 80, 126)
    assert out.latent.shape == (1, 4, 63)
    assert out.speaker_embedding.shape == (1, 8)
    assert torch.allclose(out.speaker_embedding.norm(dim=-1), torch.ones(1))


def test_padding_changes_nothing_in_the_valid_part(tiny_autoencoder, mel):
    f0 = torch.full((1, 126), 120.0)
    f0[:, 30:60] = 0
    padded, padded_f0 = torch.cat([mel, torch.randn(1, 80, 34)], dim=-1), torch.nn.functional.pad(f0, (0, 34))
    lengths = torch.tensor([126])
    model = tiny_autoencoder
    latent, padded_latent = model.encode_content(mel), model.encode_content(padded, lengths)
    assert torch.allclose(latent, padded_latent[..., :63], atol=1e-5)
    speaker, padded_speaker = model.encode_speaker(mel), model.encode_speaker(padded, lengths)
    assert torch.allclose(speaker, padded_speaker, atol=1e-5)
    decoded = model.decode(latent, f0, speaker)
    padded_decoded = model.decode(padded_latent, padded_f0, speaker, lengths)
    assert torch.allclose(decoded, padded_decoded[..., :126], atol=1e-4)


def test_a_batch_of_two_equals_two_of_one(tiny_autoencoder, mel):
    other = mel.flip(-1) + 0.3
    f0 = torch.rand(2, 126) * 100 + 100
    with torch.no_grad():
        both = tiny_autoencoder(torch.cat([mel, other]), f0).mel
        each = torch.cat([tiny_autoencoder(mel, f0[:1]).mel, tiny_autoencoder(other, f0[1:]).mel])
    assert torch.allclose(both, each, atol=1e-4)


def test_content_does_not_hear_gain_or_tilt(tiny_autoencoder, mel):
    loud = mel.clamp(min=-9)
    tilted = loud + 0.7 + torch.linspace(-1, 1, 80)[:, None]
    a, b = tiny_autoencoder.encode_content(loud), tiny_autoencoder.encode_content(tilted)
    assert (a - b).abs().max() < 0.05 * a.std()
    assert not torch.allclose(tiny_autoencoder.encode_speaker(loud), tiny_autoencoder.encode_speaker(tilted), atol=1e-3)


def test_speaker_and_f0_reach_the_output(tiny_autoencoder, mel):
    for parameter in tiny_autoencoder.decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    latent, f0 = tiny_autoencoder.encode_content(mel), torch.full((1, 126), 120.0)
    speaker = torch.nn.functional.normalize(torch.randn(2, 1, 8), dim=-1)
    base = tiny_autoencoder.decode(latent, f0, speaker[0])
    assert (tiny_autoencoder.decode(latent, f0, speaker[1]) - base).abs().mean() > 1e-3
    assert (tiny_autoencoder.decode(latent, f0 * 1.5, speaker[0]) - base).abs().mean() > 1e-3


def test_plain_autoencoder_is_the_same_classes(mel):
    config = from_dict(
        AutoencoderConfig,
        {"speaker": None, "content": {"width": 16, "n_normalized": 0}, "decoder": {"width": 16, "use_f0": False}},
    )
    model = Autoencoder(config)
    out = model(mel, torch.zeros(1, 126))
    assert out.speaker_embedding is None
    assert out.mel.shape == mel.shape
    with pytest.raises(ConfigError, match="plain autoencoder without a speaker part"):
        model.encode_speaker(mel)


def test_latent_noise_only_in_training(mel):
    config = from_dict(
        AutoencoderConfig, {"content": {"width": 16, "latent_noise": 1.0}, "decoder": {"width": 16, "n_blocks": 1}}
    )
    model, f0 = Autoencoder(config), torch.zeros(1, 126)
    assert not torch.equal(model.train()(mel, f0).mel, model(mel, f0).mel)
    assert torch.equal(model.eval()(mel, f0).mel, model(mel, f0).mel)


def test_instance_norm_gives_zero_mean_and_unit_deviation():
    x = torch.randn(2, 3, 400) * 5 + 7
    y = InstanceNorm()(x, torch.ones(2, 1, 400))
    assert y.mean(-1).abs().max() < 1e-5
    assert (y.std(-1, unbiased=False) - 1).abs().max() < 1e-3


def test_stack_equals_a_depthwise_convolution():
    stack = ConvNeXtStack(8, 1)
    block = stack.blocks[0]
    x = torch.randn(2, 8, 20)
    y = torch.nn.functional.conv1d(x, block.depthwise.T.unsqueeze(1), block.bias, padding=3, groups=8).transpose(1, 2)
    y = block.reduce(torch.nn.functional.gelu(block.expand(block.norm(y)))) * block.scale
    assert torch.allclose(stack(x), x + y.transpose(1, 2), atol=1e-5)


def test_templates_show_the_harmonics():
    templates = harmonic_templates(AutoencoderConfig().mel)
    assert torch.isfinite(templates).all()
    assert templates.mean(dim=1).abs().max() < 1e-5
    features = F0Features(AutoencoderConfig().mel)(torch.tensor([[200.0, 0.0, 200.0]]))
    assert features.shape == (1, 82, 3)
    assert features[0, :, 1].abs().max() == 0
    # 200 Hz: bands at 200 and 400 Hz stand above the one at 300 Hz. Slaney bands are 26 Hz wide here.
    from vcae.audio.mel import mel_band_edges

    centres = mel_band_edges(AutoencoderConfig().mel)[1:-1]
    low, between, high = (int((centres - hz).abs().argmin()) + 2 for hz in (200.0, 300.0, 400.0))
    assert features[0, low, 0] > features[0, between, 0] + 1
    assert features[0, high, 0] > features[0, between, 0] + 1
