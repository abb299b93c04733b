"""Properties of whatever reads files and settings: any bytes give a result or one of our errors."""

import io
import json
import math

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcae import checkpoint
from vcae.audio.io import BLOCK_SAMPLES, SoundReader, read_sound
from vcae.batch.jobs import plan_table, read_report
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import AudioError, CheckpointError, ConfigError, DataError, VcaeError
from vcae.model.config import AutoencoderConfig
from vcae.options import ConvertOptions
from vcae.vocoder.config import VocoderConfig

EASY = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 40), 1 << 40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _outcome(error, function, *args):
    """What a function gives, or our own error; any other exception is a failure."""
    try:
        return function(*args)
    except error as known:
        return known


def _encoded(kind):
    out, n = io.BytesIO(), 4000
    soundfile.write(out, np.sin(np.arange(n) / 9) * 0.3, 16000, format=kind)
    return out.getvalue()


FILES = {kind: _encoded(kind) for kind in ("WAV", "FLAC", "OGG", "AIFF", "AU", "CAF")}


@EASY
@given(
    data=st.binary(max_size=300), head=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"FORM", b"ID3\x03", b"\xff\xfb\x90"])
)
def test_any_bytes_are_a_sound_or_an_error(tmp_path, data, head):
    path = tmp_path / "x.wav"
    path.write_bytes(head + data)
    found = _outcome(AudioError, read_sound, path)
    assert isinstance(found, AudioError) or len(found.wav)


@EASY
@given(
    kind=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    kept=st.floats(0, 1),
)
def test_a_damaged_sound_is_finite_or_an_error(tmp_path, kind, changes, kept):
    data = bytearray(FILES[kind])
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path / "x.bin"
    path.write_bytes(data[: round(len(data) * kept)])
    found = _outcome(AudioError, read_sound, path)
    if not isinstance(found, AudioError):
        assert np.isfinite(found.wav).all()
        assert 8000 <= found.sample_rate <= 192000


@EASY
@given(
    samples=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50),
    channels=st.integers(1, 8),
    rate=st.integers(8000, 192000),
)
def test_what_is_written_is_what_is_read(tmp_path, samples, channels, rate):
    wav = np.array(samples, np.float32)
    soundfile.write(tmp_path / "x.wav", np.repeat(wav[:, None], channels, axis=1), rate, subtype="FLOAT")
    with SoundReader(tmp_path / "x.wav") as reader:
        blocks = list(reader.blocks())
    assert reader.sample_rate == rate
    assert all(len(block) <= BLOCK_SAMPLES for block in blocks)
    assert np.allclose(np.concatenate(blocks), wav, atol=1e-6)


@EASY
@given(values=PLAIN)
@pytest.mark.parametrize("cls", [AutoencoderConfig, VocoderConfig, ConvertOptions])
def test_any_settings_are_a_config_or_an_error(cls, values):
    made = _outcome(ConfigError, from_dict, cls, values)
    assert isinstance(made, ConfigError | cls)


@EASY
@given(key=st.sampled_from(sorted(to_dict(ConvertOptions()))), value=PLAIN)
def test_any_option_of_conversion_is_taken_or_refused(key, value):
    made = _outcome(ConfigError, from_dict, ConvertOptions, {key: value})
    if isinstance(made, ConvertOptions):
        assert 0 <= made.strength <= 1
        assert made.pitch in ("auto", "keep") or abs(float(made.pitch)) <= 36
        assert made.loudness in ("source", "flat")


@EASY
@given(data=st.binary(max_size=100) | st.text(alphabet="ab:-[]{}&*!|>'\"\n #1.", max_size=60).map(str.encode))
def test_any_yaml_is_a_config_or_an_error(tmp_path, data):
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    made = _outcome(ConfigError, load_config, VocoderConfig, path)
    assert isinstance(made, ConfigError | VocoderConfig)


@EASY
@given(st.floats(8000, 48000), st.integers(1, 400), st.integers(1, 400))
def test_configs_come_back_from_plain_data(rate, width, blocks):
    values = {"width": width, "n_blocks": blocks, "mel": {"sample_rate": round(rate)}}
    made = _outcome(ConfigError, from_dict, VocoderConfig, values)
    if isinstance(made, VocoderConfig):
        assert from_dict(VocoderConfig, json.loads(json.dumps(to_dict(made)))) == made


@EASY
@given(
    data=st.binary(max_size=200)
    | st.text(alphabet='source,speaker\n"; output.wav/', max_size=80).map(lambda t: f"source,speaker\n{t}".encode())
)
def test_any_table_is_a_plan_or_an_error(tmp_path, data):
    path = tmp_path / "x.csv"
    path.write_bytes(data)
    made = _outcome(DataError, plan_table, path, tmp_path / "out")
    if not isinstance(made, DataError):
        assert len({job.output for job in made}) == len(made)
        assert all(job.output.startswith(str(tmp_path / "out")) for job in made)


@EASY
@given(data=st.binary(max_size=200), rows=st.lists(PLAIN, max_size=3))
def test_any_report_can_be_gone_on_from(tmp_path, data, rows):
    path = tmp_path / "report.jsonl"
    path.write_bytes(data + b"\n" + "\n".join(json.dumps(row) for row in rows).encode() + b'\n{"output": "a", "key": "k"}\n')
    assert read_report(path)["a"] == {"output": "a", "key": "k"}


@settings(EASY, max_examples=40)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=5),
    kept=st.just(1.0) | st.floats(0, 1),
)
def test_any_model_file_is_a_model_or_an_error(tmp_path_factory, shared_checkpoint, changes, kept):
    data = bytearray(shared_checkpoint)
    length = int.from_bytes(data[:8], "little") + 8
    for where, value in changes:
        data[min(int(where * length), len(data) - 1)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(data[: round(len(data) * kept)])
    found = _outcome(CheckpointError, checkpoint.load, path)
    assert isinstance(found, CheckpointError | checkpoint.Checkpoint)


@pytest.fixture(scope="module")
def shared_checkpoint(tmp_path_factory):
    from tests.conftest import TINY
    from vcae.model.autoencoder import Autoencoder
    from vcae.vocoder.neural import HarmonicNoiseVocoder

    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    vocoder = HarmonicNoiseVocoder(from_dict(VocoderConfig, {"width": 16, "n_blocks": 2}))
    checkpoint.save(path, Autoencoder(from_dict(AutoencoderConfig, TINY)), vocoder)
    return path.read_bytes()


@EASY
@given(text=st.text(max_size=30) | st.floats().map(str))
def test_any_speaker_is_one_or_an_error(text):
    from vcae.voice.speakers import Speaker, parse_speaker

    made = _outcome(VcaeError, parse_speaker, text)
    if isinstance(made, Speaker):
        assert made.weight is None or (math.isfinite(made.weight) and made.weight >= 0)
