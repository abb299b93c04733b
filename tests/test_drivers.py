"""Each encoder has one driver: on a whole mel, by sections and live it gives the same, whatever its settings."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcae.audio.sections import LazySections, SectionRunner
from vcae.config import from_dict
from vcae.engine.listening import encode_content_sections, encode_latent_sections, encode_speaker_sections
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import AutoencoderConfig
from vcae.tasks.live import RunningContent

CPU = torch.device("cpu")


@st.composite
def configs(draw):
    """Draw settings that are allowed, and no others."""
    n_blocks = draw(st.integers(1, 4))
    project = draw(st.booleans())
    variational = project and draw(st.booleans())
    quantizer = None if variational or not draw(st.booleans()) else {"codebook_size": 8, "n_stages": draw(st.integers(1, 2))}
    content = {
        "width": 8,
        "n_blocks": n_blocks,
        "n_normalized": draw(st.integers(0, n_blocks)),
        "latent_dim": draw(st.sampled_from((3, 5))) if project else 8,
        "stride": draw(st.sampled_from((1, 2, 4))),
        "normalize_latent": draw(st.booleans()),
        "early_pool": draw(st.booleans()),
        "project": project,
        "variational": variational,
    }
    speaker = {"width": 8, "n_blocks": draw(st.integers(1, 3)), "speaker_dim": 6}
    return {"content": content, "speaker": speaker, "decoder": {"width": 8, "n_blocks": 1}, "quantizer": quantizer}


def _engine(config, seed):
    torch.manual_seed(seed)
    model = Autoencoder(from_dict(AutoencoderConfig, config)).eval()
    for parameter in model.parameters():
        # Blocks that hardly do anything at first would agree whatever was done to them.
        torch.nn.init.normal_(parameter, std=0.4)
    return SimpleNamespace(autoencoder=model, device=CPU)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    config=configs(),
    seed=st.integers(0, 1000),
    n=st.integers(40, 200),
    step=st.sampled_from((16, 32, 64)),
    on_disk=st.booleans(),
)
def test_whole_sections_and_live_agree(config, seed, n, step, on_disk):
    engine = _engine(config, seed)
    autoencoder, stride = engine.autoencoder, config["content"]["stride"]
    n = n // stride * stride
    mel = torch.randn(1, 80, n) - 5
    # Some frames count for nothing, and the first is one of them.
    mel[..., :3] = -30
    active = (mel.mean(1, keepdim=True) > -20).float()
    runner = SectionRunner(step, on_disk, CPU)
    read = LazySections(n, lambda start, stop: mel[..., start:stop])
    with torch.inference_mode():
        whole = autoencoder.content_encoder(autoencoder.normalize(mel), active)
        latent = encode_latent_sections(engine, read, active, runner)
        assert latent.n == whole.shape[-1] == n // stride
        sections = torch.cat([latent.read(a, b) for a, b in runner.spans(latent.n)], dim=-1)
        torch.testing.assert_close(sections, whole, rtol=1e-3, atol=1e-3)
        assert torch.equal(autoencoder.encode_latent(mel), whole)
        speaker = autoencoder.encode_speaker(mel)
        torch.testing.assert_close(encode_speaker_sections(engine, read, active, runner), speaker, rtol=1e-3, atol=1e-4)
        # Live, with a past that is the recording itself: its moments are then those of the whole.
        nothing = slice(0, 0)
        running = RunningContent(engine, mel, active)(mel, active, nothing)
        if config["quantizer"] is None:
            torch.testing.assert_close(running, whole, rtol=1e-2, atol=1e-2)
        else:
            # Few codes are near a border, where rounding decides.
            offline = encode_content_sections(engine, read, active, runner).read(0, n // stride)
            assert (running - offline).abs().amax(dim=1).lt(1e-3).float().mean() > 0.9


@settings(max_examples=25, deadline=None)
@given(config=configs(), seed=st.integers(0, 1000))
def test_a_step_sees_as_far_as_the_encoder_says_and_no_further(config, seed):
    config["content"] |= {"n_normalized": 0, "normalize_latent": False}
    encoder = _engine(config, seed).autoencoder.content_encoder
    stride, n = config["content"]["stride"], 96
    mel, weight = torch.randn(1, 80, n), torch.ones(1, 1, n)
    at = n // 2 // stride
    with torch.inference_mode():
        before = encoder(mel, weight)[..., at]
        far = mel.clone()
        far[..., : max(at * stride - encoder.reach, 0)] += 1
        far[..., (at + 1) * stride + encoder.reach :] += 1
        assert torch.equal(encoder(far, weight)[..., at], before)
        near = mel.clone()
        near[..., at * stride - encoder.reach : (at + 1) * stride + encoder.reach] += torch.randn(1)
        assert not torch.equal(encoder(near, weight)[..., at], before)


@pytest.mark.parametrize("early_pool", [False, True])
def test_padding_changes_nothing_in_what_is_valid(early_pool):
    config = {"content": {"width": 8, "n_blocks": 3, "n_normalized": 2, "latent_dim": 3, "early_pool": early_pool}}
    config |= {"speaker": {"width": 8, "n_blocks": 1, "speaker_dim": 6}, "decoder": {"width": 8, "n_blocks": 1}}
    autoencoder = _engine(config, 0).autoencoder
    mel = torch.randn(1, 80, 61) - 5
    padded = torch.cat([mel, torch.randn(1, 80, 30)], dim=-1)
    with torch.inference_mode():
        whole, longer = autoencoder.encode_latent(mel), autoencoder.encode_latent(padded, torch.tensor([61]))
    torch.testing.assert_close(longer[..., : whole.shape[-1]], whole, rtol=1e-4, atol=1e-4)
    assert bool((longer[..., whole.shape[-1] :] == 0).all())
