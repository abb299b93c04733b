"""The codec's parts against what they must be, and the whole on a real recording."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import CLIPS, ROOT
from vcae.audio.io import Sound, read_sound
from vcae.codec import bitstream
from vcae.codec.base import level_code, level_of
from vcae.codec.block import Block, BlockCoder, phase_needed, reachable
from vcae.codec.codec import Codec
from vcae.codec.coder import Decoder, Encoder
from vcae.codec.config import CodecConfig
from vcae.codec.files import step_tables
from vcae.codec.integer import HALF, ONE, IntegerNetwork, Softmax, exponentials, logistic_tables, shift_down, to_integers
from vcae.codec.model import CodecNetworks
from vcae.codec.network import Enhancement
from vcae.codec.pitch import REACH, dequantize_f0, quantize_f0, reference_code, reference_hz, spread_phase, turns
from vcae.codec.prior import ContextNetwork, logistic_bits, table_sizes
from vcae.codec.speaker import Levels, fit_levels
from vcae.errors import BitstreamError, CheckpointError, ConfigError

SMALL = CodecConfig(width=16, n_blocks=1, latent_dim=6, prior_width=24, pitch_width=8)
CODES = 16


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(1)
    networks = CodecNetworks(SMALL, 80, CODES)
    with torch.no_grad():
        for parameter in networks.priors.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15)
    return networks


@pytest.fixture(scope="module")
def coder(networks):
    integers = {"exponentials": exponentials(), "logistic": logistic_tables(), **step_tables(networks.enhancement)}
    integers["phase"] = torch.randint(1, 100, (17, 16), dtype=torch.int32)
    for name in table_sizes(CODES):
        integers |= {f"{name}.{key}": value for key, value in to_integers(getattr(networks.priors, name)).items()}
    return BlockCoder(integers, CODES, SMALL.latent_dim)


def _block(n_steps, seed=0, spread=3.0):
    rng = np.random.default_rng(seed)
    voicing, place = rng.integers(0, 4, n_steps), rng.integers(-20, 20, n_steps)
    phase = np.where(phase_needed(voicing), rng.integers(0, 16, -(-n_steps // 4)), 0)
    latent = np.round(rng.normal(0, spread, (SMALL.latent_dim, n_steps))).astype(np.int64)
    return Block(rng.integers(0, CODES, (2, n_steps)), voicing, place, phase, latent)


def _same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("codes", "voicing", "place", "phase", "latent"))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(2, 60), st.integers(0, 12))
def test_range_coder_returns_what_it_was_given_in_as_many_bits_as_it_should(seed, n, k, power):
    rng = np.random.default_rng(seed)
    rows = np.floor(rng.random((n, k)) ** power * (1 << 16)) + 1
    symbols = np.array([rng.choice(k, p=row / row.sum()) for row in rows], dtype=np.int64)
    encoder = Encoder()
    encoder.encode(symbols, rows)
    payload = encoder.finish()
    assert np.array_equal(Decoder(payload).decode(rows) if n else symbols, symbols)
    bits = -np.log2(rows[np.arange(n), symbols] / rows.sum(axis=1)).sum()
    assert len(payload) * 8 < bits + 9


def test_integer_network_follows_the_one_in_floating_point():
    torch.manual_seed(0)
    network = ContextNetwork([5, 7], 3, 32, 11)
    symbols, numbers = torch.stack([torch.arange(40) % 5, torch.arange(40) % 7], dim=1), torch.randn(40, 3)
    whole = IntegerNetwork(to_integers(network), network.table_sizes)
    given_numbers = np.round(numbers.numpy().astype(np.float64) * 1024)
    got = whole(symbols.numpy(), given_numbers)
    assert np.array_equal(got, np.floor(got))
    wanted = network(symbols, torch.from_numpy(given_numbers / 1024).float()).detach().numpy()
    assert np.abs(got / ONE - wanted).max() < 0.01
    # Row by row or together, and with the sums in any order: the same integers.
    assert np.array_equal(got, np.concatenate([whole(symbols.numpy()[i : i + 1], given_numbers[i : i + 1]) for i in range(40)]))


def test_integers_do_not_hang_on_the_order_of_sums():
    rng = np.random.default_rng(0)
    weight, x = rng.integers(-(2**15), 2**15, (256, 64)).astype(np.float64), rng.integers(0, 2**15, (5, 256)).astype(np.float64)
    order = rng.permutation(256)
    assert np.array_equal(x @ weight, x[:, order] @ weight[order])
    assert np.array_equal(x @ weight, (x.astype(np.int64) @ weight.astype(np.int64)).astype(np.float64))
    assert shift_down(np.array([3.0, -3.0, 5.0]), 1).tolist() == [2.0, -1.0, 3.0]


def test_tables_are_distributions():
    softmax = Softmax(exponentials())
    weights = softmax(np.array([[0.0, ONE, 2.0 * ONE]]))[0]
    assert np.abs(weights / weights.sum() - np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()).max() < 0.003
    table = logistic_tables().numpy()
    assert (table >= 1).all()
    assert np.abs(table.sum(axis=2) / 2**22 - 1).max() < 1e-3
    # A scale of one step, a mean of one eighth: against the closed form.
    row = table[20, 1] / 2**22
    mass = 1 / (1 + np.exp(-(0.5 - 0.125))) - 1 / (1 + np.exp(-(-0.5 - 0.125)))
    assert row[HALF] == pytest.approx(mass, abs=1e-6)
    bits = logistic_bits(torch.tensor([0.0]), torch.tensor([0.125]), torch.tensor([0.0]))
    assert float(bits) == pytest.approx(-np.log2(mass), abs=1e-3)


@pytest.mark.parametrize("quality", [0, 1, 128, 255])
def test_blocks_return_alone_and_together(coder, quality):
    blocks = [_block(n, seed=n, spread=6.0) for n in (64, 64, 7, 1)]
    written = [coder.encode(block, quality) for block in blocks]
    payloads, sent = [payload for payload, _ in written], [block for _, block in written]
    for block, kept in zip(blocks, sent, strict=True):
        assert np.array_equal(block.codes, kept.codes)
        assert np.array_equal(block.voicing, kept.voicing)
        assert np.array_equal(kept.place, reachable(block.voicing, block.place)[1])
        assert np.array_equal(kept.latent, block.latent if quality else block.latent * 0)
    together = coder.decode(payloads, [block.n_steps for block in blocks], quality)
    alone = [coder.decode([payload], [block.n_steps], quality)[0] for payload, block in zip(payloads, blocks, strict=True)]
    assert all(_same(a, b) and _same(a, c) for a, b, c in zip(sent, together, alone, strict=True))
    base = coder.decode(payloads, [block.n_steps for block in blocks], quality, base_only=True)
    assert all(np.array_equal(a.codes, b.codes) and np.array_equal(a.place, b.place) for a, b in zip(sent, base, strict=True))


@pytest.mark.parametrize("quality", [0, 200])
def test_a_payload_is_as_long_as_the_priors_say(networks, coder, quality):
    block, priors = _block(400, seed=4), networks.priors
    payload, sent = coder.encode(block, quality)
    codes, voicing, place, latent = (torch.from_numpy(x)[None] for x in (sent.codes, sent.voicing, sent.place, sent.latent))
    with torch.no_grad():
        bits = float(priors.code_bits(codes).sum() + priors.pitch_bits(codes, voicing, place).sum())
        if quality:
            share = torch.tensor([(quality - 1) / 254])
            steps = torch.from_numpy(coder.step_size(quality)).float()[None]
            mean, log2_scale = priors.latent_guess(codes, voicing, latent * steps, share)
            bits += float(logistic_bits(latent.float(), mean / steps, log2_scale - torch.log2(steps)).sum())
            turns_known = coder._phase / coder._phase.sum(axis=1, keepdims=True)
            last = turn = 0
            for i in np.flatnonzero(phase_needed(sent.voicing)):
                change = int(sent.phase[i] - last) % 16
                bits -= float(np.log2(turns_known[turn, change]))
                last, turn = int(sent.phase[i]), 1 + change
    assert 8 * len(payload) == pytest.approx(bits, rel=2e-3, abs=16)


def test_values_beyond_the_window_are_held_at_its_edge(coder):
    block = _block(20)
    block.latent[2, 5] = 4000
    payload, sent = coder.encode(block, 200)
    assert 0 < sent.latent[2, 5] < 4000
    assert _same(coder.decode([payload], [20], 200)[0], sent)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 255), st.integers(1, 40))
def test_any_bytes_decode_or_are_refused(payload, quality, n_steps):
    torch.manual_seed(1)
    try:
        block = _CODER[0].decode([payload], [n_steps], quality)[0]
    except BitstreamError:
        return
    assert block.n_steps == n_steps
    assert block.codes.max() < CODES
    assert np.abs(block.place).max() <= REACH


_CODER = []


@pytest.fixture(autouse=True)
def _known(coder):
    _CODER[:] = [coder]


def test_f0_comes_back_within_a_quarter_semitone():
    f0 = torch.tensor([[0.0, 0, 100, 102, 104, 0, 0, 210, 205, 190, 0]])
    reference = torch.tensor([reference_hz(reference_code(f0[0]))])
    voicing, place = quantize_f0(f0, reference)
    assert voicing.tolist() == [[0, 3, 1, 2, 3, 0]]
    back = dequantize_f0(voicing, place, reference, f0.shape[1])
    assert torch.equal(back > 0, f0 > 0)
    inside = (f0 > 0) & (torch.tensor([1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1]) > 0)
    assert float((12 * torch.log2(back[inside] / f0[inside])).abs().max()) < 0.75
    moves, reached = reachable(np.array([3, 3, 3]), np.array([50, 50, -50]))
    assert moves.tolist() == [40, 10, -40]
    assert reached.tolist() == [40, 50, 10]


def test_phase_goes_the_shorter_way_and_turns_add_up():
    phase = spread_phase(torch.tensor([15, 1, 9]), torch.tensor([True, True, False]), 16, 4, 12)
    assert phase[:5].tolist() == pytest.approx([15 / 16, 15.5 / 16, 1.0, 16.5 / 16, 17 / 16])
    assert phase[8:].tolist() == pytest.approx([17 / 16] * 4)
    added = turns(torch.zeros(3, dtype=torch.long), 125.0)
    assert added.tolist() == pytest.approx([0, 2, 4, 6, 8, 10])


def test_speaker_levels_keep_the_voice():
    rows = torch.nn.functional.normalize(torch.randn(400, 24) @ torch.diag(0.9 ** torch.arange(24.0)), dim=1)
    levels = Levels(fit_levels(rows[:300], 10))
    data = [levels.encode(row[None]) for row in rows[300:]]
    back = torch.cat([levels.decode(one) for one in data])
    assert {len(one) for one in data} == {10}
    assert float((back * rows[300:]).sum(dim=1).mean()) > 0.93
    coarse = Levels(fit_levels(rows[:300], 4))
    assert float((coarse.decode(coarse.encode(rows[301:302])) * rows[301]).sum()) < 0.999
    with pytest.raises(BitstreamError, match="takes 9 bytes and should take 10"):
        levels.decode(data[0][:9])


def test_levels_have_half_a_decibel():
    for level in (1e-4, 0.03, 1.0, 2.5):
        assert abs(20 * np.log10(level_of(level_code(level)) / level)) <= 0.251


def test_enhancement_is_causal_in_nothing_but_its_reach():
    enhancement = Enhancement(SMALL, 80).eval()
    torch.nn.init.normal_(enhancement.synthesis_output.weight)
    mel, base, quality = torch.randn(1, 80, 61), torch.randn(1, 80, 61), torch.tensor([0.5])
    latent = enhancement.encode(mel, base, quality)
    assert latent.shape == (1, 6, 31)
    assert enhancement.decode(latent, base, quality).shape == mel.shape
    changed = mel.clone()
    changed[..., 40:] += 1
    first = (40 - enhancement.reach) // 2
    assert torch.allclose(enhancement.encode(changed, base, quality)[..., :first], latent[..., :first], atol=1e-5)
    assert not torch.allclose(enhancement.encode(changed, base, quality), latent, atol=1e-3)


@pytest.fixture(scope="module")
def codec():
    return Codec(device="cpu")


@pytest.fixture(scope="module")
def recording():
    return read_sound(CLIPS / "source.flac")


@pytest.fixture(scope="module")
def written(codec, recording):
    return {kbps: codec.compress(recording, kbps) for kbps in (0.6, 1.5, 3, 6)}


def _log_mel_distance(codec, wav, other):
    mels = [codec.model.log_mel(torch.from_numpy(x)[None]).clamp(min=-7) for x in (wav, other)]
    return float((mels[0] - mels[1]).abs().mean())


def test_rates_are_kept_and_more_bits_bring_it_nearer(codec, recording, written):
    seconds = len(recording.wav) / 16000
    distances = []
    for kbps, data in written.items():
        assert len(data) * 8 / 1000 / seconds <= kbps
        if kbps in (1.5, 3):
            assert len(data) * 8 / 1000 / seconds >= 0.93 * kbps
        done = codec.decompress(data)
        assert done.damage == ()
        assert done.sound.sample_rate == 16000
        assert len(done.sound.wav) == len(recording.wav)
        distances.append(_log_mel_distance(codec, done.sound.wav, recording.wav))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.6 * distances[0]


def test_the_same_bytes_with_any_number_of_threads(tmp_path, written):
    path = tmp_path / "out.npy"
    code = (
        "import torch, numpy, io; from vcae.codec.codec import Codec; from vcae.codec.bitstream import Reader\n"
        f"torch.set_num_threads(1); codec = Codec(device='cpu'); data = open({str(tmp_path / 'in.vcz')!r}, 'rb').read()\n"
        "reader = Reader(io.BytesIO(data)); blocks = list(reader); steps = [reader.header.steps_of(b.index) for b in blocks]\n"
        "done = codec.file.coder.decode([b.payload for b in blocks], steps, reader.header.quality)\n"
        f"numpy.save({str(path)!r}, numpy.concatenate([b.latent for b in done], axis=1))\n"
    )
    (tmp_path / "in.vcz").write_bytes(written[3])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Prescott"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
    codec = Codec(device="cpu")
    reader = bitstream.Reader(io.BytesIO(written[3]))
    blocks = list(reader)
    steps = [reader.header.steps_of(block.index) for block in blocks]
    here = codec.file.coder.decode([block.payload for block in blocks], steps, reader.header.quality)
    assert np.array_equal(np.concatenate([block.latent for block in here], axis=1), np.load(path))


def test_another_voice_takes_that_voice(codec, written):
    voice = codec.voice(*soundfile.read(CLIPS / "reference.flac", dtype="float32"))
    own = codec.model.autoencoder.encode_speaker

    def embedding(wav):
        return own(codec.model.log_mel(torch.from_numpy(np.ascontiguousarray(wav))[None]))

    plain, changed = (codec.decompress(written[1.5], who).sound.wav for who in (None, voice))
    assert len(plain) == len(changed)
    nearer = torch.cosine_similarity(embedding(changed), voice.speaker_embedding)
    assert float(nearer) > float(torch.cosine_similarity(embedding(plain), voice.speaker_embedding)) + 0.2


def test_damage_is_silent_and_the_rest_sounds_as_before(codec, recording):
    wav = np.tile(recording.wav, 4)
    data = codec.compress(Sound(wav, 16000, "long"), 1.5)
    reader = bitstream.Reader(io.BytesIO(data))
    payloads = [block.payload for block in reader]
    offset = data.index(payloads[2])
    broken = bytearray(data)
    broken[offset + 5] ^= 0x40
    whole, done = codec.decompress(data), codec.decompress(bytes(broken))
    (damage,) = done.damage
    start, stop = round(damage.start_s * 16000), round(damage.stop_s * 16000)
    assert (start, stop) == (2 * 64 * 512 - 128, 3 * 64 * 512 - 128)
    assert np.abs(done.sound.wav[start + 8000 : stop - 8000]).max() < 1e-3
    assert np.abs(done.sound.wav[: start - 40000] - whole.sound.wav[: start - 40000]).max() < 1e-4
    tail = slice(stop + 40000, None)
    assert np.abs(done.sound.wav[tail] - whole.sound.wav[tail]).max() < 1e-3
    assert np.abs(whole.sound.wav[tail]).max() > 0.05
    with pytest.raises(BitstreamError, match="damaged"):
        codec.decompress(bytes(broken), strict=True)
    cut = codec.decompress(data[: offset + 10])
    assert len(cut.sound.wav) == 2 * 64 * 512
    assert len(cut.damage) == 1
    with pytest.raises(BitstreamError, match="nothing of"):
        codec.decompress(data[: data.index(payloads[0]) + 3])


def test_pieces_join_to_the_same_sound(codec, recording, monkeypatch):
    from vcae.codec import playback

    wav = np.tile(recording.wav, 3)
    for kbps in (0.6, 3):
        data = codec.compress(Sound(wav, 16000, "long"), kbps)
        small = np.concatenate(list(codec.stream(io.BytesIO(data))))
        monkeypatch.setattr(playback, "FIRST_STEPS", 100000)
        whole = np.concatenate(list(codec.stream(io.BytesIO(data))))
        monkeypatch.undo()
        assert len(small) == len(whole) == len(wav)
        assert np.abs(small - whole).max() < 0.02 * np.abs(whole).max()


def test_the_base_layer_is_found_by_its_hash_under_its_present_name(codec):
    assert codec.file.config.base == "vq"
    assert codec.model.checkpoint.path.stem == "vq-narrow"
    assert codec.model.checkpoint.sha256 == codec.file.metadata["base_sha256"]


def test_mistakes_say_what_is_wrong(codec, recording, written, tmp_path):
    with pytest.raises(ConfigError, match=r"kbps is 9; allowed are 0\.6 to 6"):
        codec.compress(recording, 9)
    other = bytearray(written[0.6])
    header = bitstream.Reader(io.BytesIO(written[0.6])).header
    foreign = bitstream.write(
        bitstream.Header(b"\0\1\2\3", header.n_samples, 0, header.block_steps, header.level, header.f0, header.speaker),
        [block.payload for block in bitstream.Reader(io.BytesIO(bytes(other)))],
    )
    with pytest.raises(BitstreamError, match=r"was written with the codec 00010203\.\.\., and the one in use is"):
        codec.decompress(foreign)
    with pytest.raises(CheckpointError, match="is not a codec"):
        Codec("vq-narrow")
    with pytest.raises(CheckpointError, match="no checkpoint is called"):
        Codec("none")


def test_module_level_calls(recording):
    import vcae

    data = vcae.compress(recording.wav, 16000, 0.6)
    wav = vcae.decompress(data)
    assert isinstance(data, bytes)
    assert wav.shape == (len(recording.wav),)
