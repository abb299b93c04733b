import pytest
import torch

from tests.conftest import ATTENDING
from vcae.config import from_dict
from vcae.errors import ConfigError
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import AutoencoderConfig
from vcae.model.reference import Reference, ReferenceAttention, ReferenceEncoder


@pytest.fixture
def looking(attending_autoencoder):
    return attending_autoencoder.requires_grad_(False)


@pytest.fixture
def attention():
    torch.manual_seed(0)
    made = ReferenceAttention(16, 4, 12).requires_grad_(False)
    torch.nn.init.normal_(made.output.weight, std=0.5)
    return made


def _reference(n, seed, batch=1):
    random = torch.Generator().manual_seed(seed)
    return Reference(torch.randn(batch, n, 4, generator=random), torch.randn(batch, n, 12, generator=random))


def test_before_training_the_reference_changes_nothing():
    model = Autoencoder(from_dict(AutoencoderConfig, ATTENDING)).eval()
    latent, f0, speaker = torch.randn(1, 4, 20), torch.full((1, 40), 150.0), torch.randn(1, 8)
    with torch.no_grad():
        reference = model.encode_reference(torch.randn(1, 80, 60) - 5)
        assert torch.equal(model.decode(latent, f0, speaker, reference=reference), model.decode(latent, f0, speaker))


def test_the_order_of_the_references_steps_does_not_matter(attention):
    x, r = torch.randn(1, 10, 16), _reference(30, 1)
    order = torch.randperm(30)
    assert torch.allclose(attention(x, r), attention(x, Reference(r.keys[:, order], r.values[:, order])), atol=1e-5)


def test_steps_without_weight_are_never_found(attention):
    x, r, other = torch.randn(1, 10, 16), _reference(30, 1), _reference(20, 2)
    both = Reference(
        torch.cat([r.keys, other.keys], 1),
        torch.cat([r.values, other.values], 1),
        torch.cat([torch.zeros(1, 30), torch.full((1, 20), -1e4)], 1),
    )
    assert torch.allclose(attention(x, r), attention(x, both), atol=1e-5)
    assert not torch.allclose(attention(x, r), attention(x, other), atol=1e-2)


def test_a_voice_that_is_joined_to_itself_is_itself_however_many_steps_it_has(attention):
    x, r = torch.randn(1, 10, 16), _reference(30, 1)
    twice = Reference(r.keys.repeat(1, 3, 1), r.values.repeat(1, 3, 1))
    assert torch.allclose(attention(x, r), attention(x, Reference.join([r, twice], [0.2, 0.8])), atol=1e-5)


def test_a_joined_voice_goes_from_one_to_the_other(attention):
    x, a, b = torch.randn(1, 10, 16), _reference(30, 1), _reference(200, 2)
    only = attention(x, a)
    away = [float((attention(x, Reference.join([a, b], [1 - w, w])) - only).norm()) for w in (1e-6, 0.3, 0.7, 1 - 1e-6)]
    assert away[0] < 1e-3 < away[1] < away[2] < away[3]


def test_the_gate_scales_what_is_found(attention):
    x, r = torch.randn(2, 10, 16), _reference(30, 1, batch=2)
    gated = attention(x, r, torch.tensor([0.0, 1.0]).view(2, 1, 1))
    assert torch.equal(gated[0], x[0])
    assert torch.allclose(gated[1], attention(x, r)[1])


@pytest.mark.parametrize("n", [1, 2, 59, 60])
def test_values_stand_at_the_contents_steps(n):
    torch.manual_seed(0)
    encoder = ReferenceEncoder(80, 12, 1, 2).eval()
    mel = torch.randn(1, 80, n)
    assert encoder(mel).shape == (1, (n + 1) // 2, 12)


def test_a_value_depends_on_its_reach_alone():
    torch.manual_seed(0)
    encoder = ReferenceEncoder(80, 12, 2, 2).eval()
    mel = torch.randn(1, 80, 100)
    changed = mel.clone()
    changed[..., 60:] = 0
    same = (encoder(mel) == encoder(changed)).all(-1)[0]
    first = (60 - encoder.reach) // 2
    assert bool(same[:first].all())
    assert not bool(same[first + 1])


def test_the_reference_reaches_the_output(looking):
    latent, f0, speaker = torch.randn(1, 4, 20), torch.full((1, 40), 150.0), torch.randn(1, 8)
    one, two = (looking.encode_reference(torch.randn(1, 80, 60) - 5) for _ in range(2))
    assert not torch.allclose(
        looking.decode(latent, f0, speaker, reference=one), looking.decode(latent, f0, speaker, reference=two), atol=1e-3
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"decoder": {"n_blocks": 2, "attention": [3]}}, "from 1 to n_blocks"),
        ({"decoder": {"attention": [1, 1]}}, "different blocks"),
        ({"decoder": {"width": 18, "attention": [1]}}, "multiple of its 4 heads"),
        ({"speaker": None, "decoder": {"attention": [1]}}, "no reference"),
    ],
)
def test_configs_that_cannot_work_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        from_dict(AutoencoderConfig, changes)
