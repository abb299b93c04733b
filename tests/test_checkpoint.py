import json
import pickle
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from vcae import checkpoint
from vcae.config import from_dict
from vcae.errors import CheckpointError
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import ProsodyConfig, QuantizerConfig
from vcae.model_file import PICKLES, STEPS
from vcae.vocoder.config import VocoderConfig
from vcae.vocoder.neural import HarmonicNoiseVocoder


def test_save_and_load_give_the_same_output(tiny_checkpoint, tiny_autoencoder, tiny_vocoder):
    loaded = checkpoint.load(tiny_checkpoint)
    mel, f0, noise = torch.randn(1, 80, 30) - 5, torch.full((1, 30), 120.0), torch.randn(1, 29 * 256)
    with torch.no_grad():
        assert torch.equal(loaded.autoencoder(mel, f0).mel, tiny_autoencoder(mel, f0).mel)
        assert torch.equal(loaded.vocoder(mel, f0, noise=noise), tiny_vocoder(mel, f0, noise=noise))
    assert loaded.metadata["info"]["author"] == "a test"
    assert loaded.autoencoder.config == tiny_autoencoder.config


def test_half_precision_is_close(tmp_path, tiny_vocoder):
    checkpoint.save(tmp_path / "h.safetensors", vocoder=tiny_vocoder, half=True)
    assert all(v.dtype == torch.float16 for v in load_file(tmp_path / "h.safetensors").values())
    loaded = checkpoint.load(tmp_path / "h.safetensors")
    assert loaded.autoencoder is None
    for key, value in tiny_vocoder.state_dict().items():
        assert torch.allclose(loaded.vocoder.state_dict()[key], value, atol=1e-3)


def test_the_shipped_checkpoint_is_whole_and_small():
    path = checkpoint.find("default")
    loaded = checkpoint.load("default")
    assert path.stat().st_size < 40e6
    assert path.with_suffix(".sha256").read_text().split()[0] == loaded.sha256
    assert loaded.autoencoder is not None
    assert loaded.vocoder is not None
    n = sum(p.numel() for p in loaded.autoencoder.parameters())
    assert 5e6 < n < 10e6
    assert {"author", "license", "training_data"} <= set(loaded.metadata["info"])
    assert path.with_suffix(".md").exists()


def _rewrite_metadata(path, change):
    metadata = {"vcae": json.dumps(change(checkpoint.read_metadata(path)))}
    save_file(load_file(path), path, metadata)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def _flip_header(path):
    data = bytearray(path.read_bytes())
    data[8:40] = b"\xff" * 32
    path.write_bytes(data)


def _huge_header(path):
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])


def _not_finite(path):
    tensors = load_file(path)
    next(iter(tensors.values())).fill_(float("nan"))
    save_file(tensors, path, {"vcae": json.dumps(checkpoint.read_metadata(path))})


def _drop_tensor(path):
    metadata = {"vcae": json.dumps(checkpoint.read_metadata(path))}
    tensors = load_file(path)
    tensors.pop("vocoder.output.bias")
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "damaged"),
        (_flip_header, "damaged header"),
        (_huge_header, "not a complete safetensors file"),
        (lambda p: p.write_bytes(b""), r"not a complete safetensors file \(0 bytes\)"),
        (_not_finite, "not finite"),
        (_drop_tensor, "does not fit its own config"),
        (lambda p: save_file({"a": torch.zeros(1)}, p), "from another program"),
        (lambda p: _rewrite_metadata(p, lambda m: m | {"format": 99}), "format 99; this version reads format 1"),
        (lambda p: _rewrite_metadata(p, lambda m: m | {"vocoder": {"depth": 3}}), "config this version does not know"),
        (lambda p: p.unlink(), "does not exist"),
    ],
)
def test_damaged_files_are_refused(tiny_checkpoint, damage, message):
    damage(tiny_checkpoint)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tiny_checkpoint)


def _rewrite_header(path, change):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + data[8 + length :])


def _first(header):
    return header[next(key for key in header if key != "__metadata__")]


def _many(header):
    header.update({f"x{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(5000)})


def _sized(**sizes):
    return lambda p: _rewrite_metadata(p, lambda m: m | {"vocoder": m["vocoder"] | sizes})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: _rewrite_header(p, _many), r"holds \d+ tensors; at most 4096"),
        (lambda p: _rewrite_header(p, lambda h: _first(h).update(dtype="I8")), "its header says .*'I8'"),
        (lambda p: _rewrite_header(p, lambda h: _first(h).update(shape=[1 << 40, 1 << 20])), "its header says"),
        (lambda p: _rewrite_header(p, lambda h: _first(h).update(shape=[-1])), "its header says"),
        (lambda p: _rewrite_header(p, lambda h: _first(h).update(shape=[1] * 9)), "its header says"),
        (lambda p: _rewrite_header(p, lambda h: _first(h).update(data_offsets=[0, 1 << 60])), "its header says"),
        (lambda p: _rewrite_header(p, lambda h: _first(h).update(data_offsets="all")), "its header says"),
        (lambda p: _rewrite_header(p, lambda h: h.update(x=3)), "its header says 3 of 'x'"),
        (_sized(width=1 << 40), "width is 1099511627776; at most 65536"),
        (_sized(width=60000), "does not fit its own config"),
        (_sized(n_blocks=60000), "n_blocks is 60000; at most 256"),
    ],
)
def test_what_a_header_claims_is_checked_before_memory_is_given(tiny_checkpoint, damage, message, monkeypatch):
    damage(tiny_checkpoint)
    monkeypatch.setattr("safetensors.torch.load_file", lambda path: pytest.fail("the tensors were read"))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tiny_checkpoint)


@pytest.mark.parametrize("suffix", PICKLES)
def test_pickles_are_refused_unopened(tmp_path, suffix):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"is a pickle .* can run any code"):
        checkpoint.load(path)
    assert not (tmp_path / "exploded").exists()


def test_unknown_name_lists_what_is_shipped():
    with pytest.raises(
        CheckpointError, match="no checkpoint is called 'defualt'; shipped are: acoustic, babble, codec, default"
    ):
        checkpoint.load("defualt")


def test_sha_mismatch_is_refused(tiny_checkpoint):
    tiny_checkpoint.with_suffix(".sha256").write_text("0" * 64 + "  tiny.safetensors\n")
    with pytest.raises(CheckpointError, match="does not match its SHA-256"):
        checkpoint.load(tiny_checkpoint)


def test_different_mels_refuse_to_be_joined(tmp_path, tiny_autoencoder):
    other = HarmonicNoiseVocoder(from_dict(VocoderConfig, {"width": 16, "n_blocks": 1, "mel": {"n_mels": 100}}))
    with pytest.raises(CheckpointError, match=r"n_mels=80.*n_mels=100"):
        checkpoint.save(tmp_path / "a.safetensors", tiny_autoencoder, other)
    assert not list(tmp_path.glob("a*"))


def test_a_vocoder_can_be_shared(tmp_path, tiny_autoencoder, tiny_vocoder):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, tiny_autoencoder, shared_vocoder="default")
    found, default = checkpoint.load(path), checkpoint.load("default")
    assert found.vocoder.config == default.vocoder.config
    for name, value in default.vocoder.state_dict().items():
        assert torch.equal(found.vocoder.state_dict()[name], value)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=r"one to share \(default\); give one of them"):
        checkpoint.save(path, tiny_autoencoder, tiny_vocoder, shared_vocoder="default")


@pytest.mark.parametrize(
    ("name", "message"),
    [("nonesuch", "'nonesuch', which is not shipped"), ("../../etc/x", "which is not a valid name"), (3, "of '3'|of 3")],
)
def test_a_shared_vocoder_must_be_a_shipped_one(tmp_path, tiny_autoencoder, name, message):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, tiny_autoencoder)
    _write_metadata(path, checkpoint.read_metadata(path) | {"shared_vocoder": name})
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(path)


@pytest.fixture(scope="module")
def units_on_default():
    found = checkpoint.load("default").autoencoder
    quantizer, prosody = QuantizerConfig(codebook_size=8), ProsodyConfig(width=16, n_blocks=1)
    made = Autoencoder(replace(found.config, quantizer=quantizer, prosody=prosody))
    made.load_state_dict(made.state_dict() | found.state_dict())
    return made.eval()


def test_an_autoencoder_can_be_shared(tmp_path, units_on_default):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, units_on_default, shared_vocoder="default", shared_autoencoder="default")
    assert path.stat().st_size < 100_000
    assert {name.split(".")[1] for name in load_file(path)} == {"quantizer", "prosody"}
    found = checkpoint.load(path)
    assert found.vocoder is not None
    for name, value in units_on_default.state_dict().items():
        assert torch.equal(found.autoencoder.state_dict()[name], value), name


def test_a_shared_autoencoder_must_be_the_same(tmp_path, tiny_autoencoder):
    with pytest.raises(CheckpointError, match="the autoencoder to save is not that of default"):
        checkpoint.save(tmp_path / "a.safetensors", tiny_autoencoder, shared_autoencoder="default")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder_sha256": "0" * 64}, r"was made for the content encoder 0{12}\.\.\., and that of default is"),
        ({"encoder_sha256": None}, "was made for the content encoder None"),
        ({"shared_autoencoder": "nonesuch"}, "shares the autoencoder of 'nonesuch', which is not shipped"),
        ({"shared_autoencoder": "vq"}, "of 'vq', which has none of its own"),
        ({"shared_autoencoder": "../default"}, "which is not a valid name"),
        ({"shared_autoencoder": "vq-narrow"}, "does not fit its own config"),
    ],
)
def test_a_file_of_another_encoder_is_refused(tmp_path, units_on_default, changed, message):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, units_on_default, shared_autoencoder="default")
    _write_metadata(path, checkpoint.read_metadata(path) | changed)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(path)


def _write_metadata(path, metadata):
    checkpoint.write_tensors(path, load_file(path), {"vcae": json.dumps(metadata)})


def test_eight_bits_are_close_small_and_checked(tmp_path, attending_autoencoder):
    path, whole = tmp_path / "eight.safetensors", tmp_path / "half.safetensors"
    checkpoint.save(path, attending_autoencoder, half=True, eight_bit=True)
    checkpoint.save(whole, attending_autoencoder, half=True)
    stored = load_file(path)
    rounded = {name.removesuffix(STEPS) for name in stored if name.endswith(STEPS)}
    assert rounded
    assert all(stored[name].dtype == torch.int8 for name in rounded)
    n = sum(v.numel() for v in stored.values() if v.dtype == torch.int8)
    # A byte less for each weight that is rounded; the steps and their names take some again.
    assert path.stat().st_size < whole.stat().st_size - 0.5 * n
    loaded = checkpoint.load(path).autoencoder.state_dict()
    for key, value in attending_autoencoder.state_dict().items():
        # Half a step of the largest weight, and what float16 rounds of the step.
        most = value.abs().amax() / 220 if f"autoencoder.{key}" in rounded else value.abs().amax() / 2000
        assert (loaded[key] - value).abs().max() <= 1.01 * most + 1e-6, key


@pytest.mark.parametrize("change", ["lost", "shape"])
def test_steps_that_fit_nothing_are_refused(tmp_path, attending_autoencoder, change):
    path = tmp_path / "eight.safetensors"
    checkpoint.save(path, attending_autoencoder, eight_bit=True)
    header, tensors = {"vcae": json.dumps(checkpoint.read_metadata(path))}, load_file(path)
    name = next(n for n in tensors if n.endswith(STEPS))
    if change == "lost":
        del tensors[name.removesuffix(STEPS)]
    else:
        tensors[name] = tensors[name].flatten()
    save_file(tensors, path, header)
    with pytest.raises(CheckpointError, match="fit no tensor"):
        checkpoint.load(path)


def test_a_channel_of_zeros_stays_zero():
    weight = torch.randn(4, 400)
    weight[1] = 0
    back = checkpoint.restore_weights(checkpoint.round_weights({"weight": weight}))
    assert torch.equal(back["weight"][1], torch.zeros(400))
    assert (back["weight"] - weight).abs().max() < weight.abs().max() / 200
