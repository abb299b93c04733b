import math

import pytest
import torch
import torch.nn.functional as F

from vcae.errors import ConfigError
from vcae.model.config import QuantizerConfig
from vcae.model.quantizer import (
    BinaryQuantizer,
    Codebook,
    OneHotQuantizer,
    ResidualQuantizer,
    kmeans,
    make_quantizer,
    perplexity,
)

KINDS = {
    "vq": (QuantizerConfig(codebook_size=16), 4),
    "residual": (QuantizerConfig(codebook_size=16, n_stages=3), 4),
    "binary": (QuantizerConfig(kind="binary", codebook_size=16), 4),
    "onehot": (QuantizerConfig(kind="onehot", codebook_size=16), 16),
}


def _make(name):
    config, dim = KINDS[name]
    quantizer = make_quantizer(config, dim)
    quantizer.train()
    quantizer(torch.randn(4, dim, 50))
    return quantizer.eval(), dim


@pytest.mark.parametrize("name", ["vq", "residual", "binary"])
def test_the_gradient_passes_straight_through(name):
    quantizer, dim = _make(name)
    latent = torch.randn(2, dim, 9, requires_grad=True)
    slope = torch.randn(2, dim, 9)
    (quantizer(latent).quantized * slope).sum().backward()
    assert torch.equal(latent.grad, slope)


def test_the_one_hot_gradient_is_that_of_the_softmax():
    quantizer, dim = _make("onehot")
    latent = torch.randn(2, dim, 9, requires_grad=True)
    slope = torch.randn(2, dim, 9)
    (quantizer(latent).quantized * slope).sum().backward()
    other = latent.detach().clone().requires_grad_()
    (torch.softmax(other, 1) * slope).sum().backward()
    torch.testing.assert_close(latent.grad, other.grad)


@pytest.mark.parametrize("name", KINDS)
def test_codes_to_quantized_to_codes_is_the_identity(name):
    quantizer, dim = _make(name)
    latent = torch.randn(2, dim, 33)
    codes = quantizer.encode(latent)
    out = quantizer(latent)
    assert torch.equal(codes, out.codes)
    torch.testing.assert_close(quantizer.decode(codes), out.quantized)
    if quantizer.config.n_stages == 1:
        assert torch.equal(quantizer.encode(quantizer.decode(codes)), codes)


@pytest.mark.parametrize("name", KINDS)
def test_pieces_give_the_codes_of_the_whole(name):
    quantizer, dim = _make(name)
    latent = torch.randn(3, dim, 64)
    whole = quantizer.encode(latent)
    pieces = [quantizer.encode(piece) for piece in latent.split(7, dim=-1)]
    assert torch.equal(torch.cat(pieces, -1), whole)
    assert torch.equal(torch.cat([quantizer.encode(item[None]) for item in latent]), whole)


@pytest.mark.parametrize("name", KINDS)
def test_padding_counts_for_nothing(name):
    quantizer, dim = _make(name)
    latent = torch.randn(2, dim, 40)
    mask = torch.ones(2, 1, 40)
    mask[:, :, 30:] = 0
    changed = torch.where(mask > 0, latent, 9 * torch.randn(2, dim, 40))
    for training in (False, True):
        results = []
        for x in (latent, changed):
            torch.manual_seed(0)
            copy = make_quantizer(*KINDS[name])
            copy.load_state_dict(quantizer.state_dict())
            results.append(copy.train(training)(x, mask))
        a, b = results
        torch.testing.assert_close(a.quantized, b.quantized)
        torch.testing.assert_close(a.commitment_loss, b.commitment_loss)
        assert torch.equal(a.perplexity, b.perplexity)
        assert not a.quantized[:, :, 30:].any()


def test_commitment_moves_the_encoder_and_not_the_codebook():
    quantizer, dim = _make("vq")
    latent = torch.randn(2, dim, 20, requires_grad=True)
    out = quantizer(latent)
    out.commitment_loss.backward()
    expected = 2 * (latent.detach() - out.quantized.detach()) / latent.numel()
    torch.testing.assert_close(latent.grad, expected)
    assert not list(quantizer.parameters())


def test_the_moving_mean_by_hand():
    book = Codebook(QuantizerConfig(codebook_size=2, ema_decay=0.75, dead_code_threshold=1e-6), 1)
    book.vectors.copy_(torch.tensor([[0.0], [10.0]]))
    book.counts.copy_(torch.tensor([4.0, 2.0]))
    book.sums.copy_(torch.tensor([[0.0], [20.0]]))
    latent = torch.tensor([[1.0], [3.0], [9.0]])
    codes = book.nearest(latent)
    assert codes.tolist() == [0, 0, 1]
    book.learn(latent, codes)
    # Counts: .75 * 4 + .25 * 2 = 3.5 and .75 * 2 + .25 * 1 = 1.75; sums: .25 * 4 = 1 and .75 * 20 + .25 * 9 = 17.25.
    torch.testing.assert_close(book.counts, torch.tensor([3.5, 1.75]))
    torch.testing.assert_close(book.sums, torch.tensor([[1.0], [17.25]]))
    torch.testing.assert_close(book.vectors, torch.tensor([[1 / 3.5], [17.25 / 1.75]]), rtol=1e-4, atol=1e-5)


def test_dead_codes_revive():
    torch.manual_seed(1)
    config = QuantizerConfig(codebook_size=8, ema_decay=0.5, dead_code_threshold=0.5)
    quantizer = ResidualQuantizer(config, 2)
    book = quantizer.stages[0]
    book.started.fill_(1.0)
    # All but one code lie where no latent ever is.
    book.vectors.copy_(torch.full((8, 2), 100.0) + torch.arange(8)[:, None])
    book.vectors[0] = 0
    book.sums.copy_(book.vectors)
    quantizer.train()
    latent = torch.randn(4, 2, 64)
    first = quantizer(latent).perplexity
    for _ in range(20):
        last = quantizer(latent).perplexity
    assert first == 1
    assert last > 6


def test_kmeans_finds_clusters_and_starts_the_codebook():
    torch.manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    points = centres.repeat_interleave(50, 0) + 0.1 * torch.randn(200, 2)
    means, counts = kmeans(points, 12, 20)
    assert counts.sum() == 200
    assert torch.cdist(points, means).min(dim=1).values.mean() < 0.2
    quantizer = make_quantizer(QuantizerConfig(codebook_size=12), 2).train()
    out = quantizer(points.T[None])
    assert quantizer.stages[0].started == 1
    assert out.commitment_loss < 0.1


def test_fewer_latents_than_codes():
    quantizer = make_quantizer(QuantizerConfig(codebook_size=64), 2).train()
    out = quantizer(torch.randn(1, 2, 5))
    assert out.quantized.isfinite().all()
    assert out.commitment_loss < 1e-6


def test_stages_refine():
    torch.manual_seed(0)
    quantizer = make_quantizer(QuantizerConfig(codebook_size=32, n_stages=3, stage_dropout=0.0), 4).train()
    latent = torch.randn(8, 4, 100)
    for _ in range(30):
        quantizer(latent)
    quantizer.eval()
    codes = quantizer.encode(latent)
    errors = [float((quantizer.decode(codes[:, :s]) - latent).square().mean()) for s in (1, 2, 3)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    assert quantizer.bits == 15


def test_stage_dropout_ends_items_early():
    torch.manual_seed(0)
    quantizer = make_quantizer(QuantizerConfig(codebook_size=8, n_stages=2, stage_dropout=1.0), 4).train()
    latent = torch.randn(64, 4, 10)
    out = quantizer(latent)
    first = F.embedding(out.codes[:, 0], quantizer.stages[0].vectors)
    vectors_moved = [s.vectors.isfinite().all() for s in quantizer.stages]
    assert all(vectors_moved)
    quantizer.eval()
    both = quantizer.decode(quantizer.encode(latent))
    # In training, some items are the first stage alone and some both; the codebook has moved a little since.
    ends_early = [(out.quantized[i] - first[i].T).abs().max() < 0.2 for i in range(64)]
    assert 10 < sum(map(bool, ends_early)) < 54
    assert both.shape == latent.shape


def test_binary_codes_are_the_bits():
    quantizer = BinaryQuantizer(QuantizerConfig(kind="binary", codebook_size=8))
    latent = torch.tensor([[[0.5], [-2.0], [3.0]]])
    assert quantizer.encode(latent).item() == 0b101
    assert quantizer(latent).quantized.flatten().tolist() == [1, -1, 1]
    quantizer.train()
    even = quantizer(torch.tensor([[[1.0, -1.0], [1.0, -1.0], [1.0, -1.0]]])).commitment_loss
    constant = quantizer(torch.ones(1, 3, 2)).commitment_loss
    assert even < constant


def test_one_hot_temperature_falls_and_draws():
    config = QuantizerConfig(kind="onehot", codebook_size=4, temperature=2.0, final_temperature=0.5, temperature_steps=10)
    quantizer = OneHotQuantizer(config).train()
    assert quantizer.temperature == 2.0
    latent = torch.zeros(1, 4, 400)
    out = quantizer(latent)
    assert out.perplexity > 3.5
    assert out.quantized.sum(dim=1).allclose(torch.ones(1, 400))
    assert out.commitment_loss < 1e-5
    for _ in range(20):
        quantizer(latent)
    assert math.isclose(quantizer.temperature, 0.5)
    assert quantizer.eval()(latent).perplexity == 1


def test_perplexity():
    assert perplexity(torch.tensor([0, 1, 2, 3]), 8).item() == pytest.approx(4)
    assert perplexity(torch.tensor([5, 5]), 8).item() == pytest.approx(1)
    assert perplexity(torch.tensor([], dtype=torch.long), 8).item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("config", "dim", "message"),
    [
        (QuantizerConfig(kind="binary", codebook_size=100), 8, "a binary code of 8 channels has 256 codes, not 100"),
        (
            QuantizerConfig(kind="onehot", codebook_size=100),
            8,
            "content.latent_dim equal to quantizer.codebook_size; got 8 and 100",
        ),
    ],
)
def test_widths_that_do_not_fit_are_named(config, dim, message):
    with pytest.raises(ConfigError, match=message):
        make_quantizer(config, dim)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "vqq"}, "quantizer.kind is 'vqq'; allowed are vq, binary, onehot"),
        ({"codebook_size": 1}, "quantizer.codebook_size is 1"),
        ({"kind": "binary", "n_stages": 2}, "only kind vq has several stages"),
        ({"ema_decay": 1.5}, "quantizer.ema_decay is 1.5"),
    ],
)
def test_bad_settings_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        QuantizerConfig(**values)


def test_unknown_codes_are_named():
    quantizer, _ = _make("vq")
    with pytest.raises(ConfigError, match="codes run from 0 to 16; this model has 0 to 15"):
        quantizer.decode(torch.tensor([[[0, 16]]]))
    with pytest.raises(ConfigError, match="1 to 1 stages is needed"):
        quantizer.decode(torch.zeros(1, 2, 3, dtype=torch.long))


def test_like_vector_quantize_pytorch():
    other = pytest.importorskip(
        "vector_quantize_pytorch", reason="vector-quantize-pytorch not installed; the extra dev brings it"
    )
    torch.manual_seed(0)
    theirs = other.VectorQuantize(
        dim=6,
        codebook_size=12,
        decay=0.9,
        commitment_weight=1.0,
        threshold_ema_dead_code=0,
        kmeans_init=False,
        sync_codebook=False,
    )
    ours = ResidualQuantizer(QuantizerConfig(codebook_size=12, ema_decay=0.9, dead_code_threshold=1e-9), 6)
    book = ours.stages[0]
    start = torch.randn(12, 6)
    inner = theirs._codebook
    inner.embed.data.copy_(start[None])
    inner.embed_avg.data.copy_(start[None])
    inner.cluster_size.data.fill_(1.0)
    for mine, value in (
        (book.vectors, start),
        (book.sums, start),
        (book.counts, torch.ones(12)),
        (book.started, torch.ones(())),
    ):
        mine.copy_(value)
    theirs.train()
    ours.train()
    for _ in range(5):
        latent = torch.randn(3, 6, 40)
        quantized, codes, loss = theirs(latent.transpose(1, 2))
        out = ours(latent)
        assert torch.equal(codes, out.codes[:, 0])
        torch.testing.assert_close(quantized.transpose(1, 2), out.quantized)
        torch.testing.assert_close(loss.squeeze(), out.commitment_loss)
    torch.testing.assert_close(inner.embed[0], book.vectors, rtol=1e-4, atol=1e-4)


def test_residual_like_vector_quantize_pytorch():
    other = pytest.importorskip(
        "vector_quantize_pytorch", reason="vector-quantize-pytorch not installed; the extra dev brings it"
    )
    theirs = other.ResidualVQ(dim=6, codebook_size=12, num_quantizers=3, kmeans_init=False).eval()
    ours = ResidualQuantizer(QuantizerConfig(codebook_size=12, n_stages=3), 6).eval()
    for layer, book in zip(theirs.layers, ours.stages, strict=True):
        vectors = torch.randn(12, 6)
        layer._codebook.embed.data.copy_(vectors[None])
        book.vectors.copy_(vectors)
    latent = torch.randn(3, 6, 40)
    quantized, codes, _ = theirs(latent.transpose(1, 2))
    out = ours(latent)
    assert torch.equal(codes.permute(0, 2, 1), out.codes)
    torch.testing.assert_close(quantized.transpose(1, 2), out.quantized)


def test_binary_like_vector_quantize_pytorch():
    other = pytest.importorskip(
        "vector_quantize_pytorch", reason="vector-quantize-pytorch not installed; the extra dev brings it"
    )
    theirs = other.LFQ(codebook_size=16, dim=4).eval()
    ours = BinaryQuantizer(QuantizerConfig(kind="binary", codebook_size=16)).eval()
    latent = torch.randn(3, 4, 40)
    found = theirs(latent.transpose(1, 2))
    out = ours(latent)
    assert torch.equal(found.indices, out.codes[:, 0])
    torch.testing.assert_close(found.quantized.transpose(1, 2), out.quantized)
