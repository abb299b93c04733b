"""Live conversion: blocks in, blocks out, from pipes and devices."""

import io
import re
import struct
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
import torch

import vcae
from tests.conftest import CLIPS
from tests.forked import python
from vcae.audio.f0 import estimate_f0
from vcae.audio.loudness import active_level
from vcae.audio.pcm import PcmReader, QuickResampler, to_pcm, wav_header
from vcae.errors import AudioError, CheckpointError, ConfigError
from vcae.options import ConvertOptions
from vcae.tasks.live import LiveConverter

REFERENCE = str(CLIPS / "reference.flac")


@pytest.fixture(scope="module")
def heard(model):
    wav = soundfile.read(REFERENCE, dtype="float32")[0]
    return model.voice(wav, 16000), model.analyse(wav, 16000)


def _run(converter, wav):
    """Every block's output, then what is left."""
    size = converter.block_samples
    return [converter(wav[at : at + size]) for at in range(0, len(wav) // size * size, size)] + [converter.finish()]


@pytest.fixture(scope="module")
def live(model, heard, speech):
    wav = np.tile(speech, 2)[: 150 * 1280]
    return wav, _run(LiveConverter(model, *heard), wav)


def test_the_latency_is_what_is_stated(model, heard, live):
    converter, (wav, pieces) = LiveConverter(model, *heard), live
    assert converter.latency_ms == 240
    assert converter.block_s == pytest.approx(0.08)
    given = np.cumsum([len(piece) for piece in pieces[:-1]])
    taken = np.arange(1, len(given) + 1) * 1280
    # When a block is done, all but the look ahead has come out: a sample waits for that, and for its block.
    assert (taken - given)[2:].max() / 16 + 80 <= 240
    assert sum(map(len, pieces)) == len(wav)
    assert LiveConverter(model, *heard, block_ms=32).latency_ms == 192
    with pytest.raises(ConfigError, match="latency of 256 ms; allowed are blocks up to 90 ms"):
        LiveConverter(model, *heard, block_ms=96)
    with pytest.raises(ConfigError, match="live it can only be 1"):
        LiveConverter(model, *heard, ConvertOptions(strength=0.5))


def test_nothing_beyond_the_look_ahead_is_heard(model, heard, live):
    wav, pieces = live
    other = wav.copy()
    other[40 * 1280 :] = np.random.default_rng(0).standard_normal(len(wav) - 40 * 1280) * 0.1
    again = _run(LiveConverter(model, *heard), other[: 60 * 1280])
    assert all(np.array_equal(a, b) for a, b in zip(pieces[:40], again[:40], strict=True))
    assert not np.array_equal(pieces[40], again[40])


def test_live_resembles_what_the_whole_gives(model, heard, live):
    wav, pieces = live
    made, whole = np.concatenate(pieces), model.convert(wav, 16000, heard[0]).wav
    mels = [model.log_mel(torch.from_numpy(x)[None]) for x in (made, whole, wav)]
    sound = mels[1] > -6
    far = [float((mels[i] - mels[1])[sound].abs().mean()) for i in (0, 2)]
    assert far[0] < 0.5 * far[1]
    later = slice(mels[0].shape[-1] // 2, None)
    assert (mels[0] - mels[1])[..., later][sound[..., later]].abs().mean() < far[0]
    f0 = [estimate_f0(x) for x in (made, whole)]
    assert ((f0[0] > 0) == (f0[1] > 0)).mean() > 0.9
    both = (f0[0] > 0) & (f0[1] > 0)
    assert np.median(np.abs(12 * np.log2(f0[0][both] / f0[1][both]))) < 0.5
    assert active_level(made) == pytest.approx(active_level(wav), rel=0.3)
    speakers = [model.autoencoder.encode_speaker(model.analyse(x, 16000).mel)[0] for x in (made, wav)]
    embedding = heard[0].speaker_embedding[0]
    assert float(speakers[0] @ embedding) > float(speakers[1] @ embedding) + 0.3


def test_blocks_join_without_clicks(live):
    _, pieces = live
    made = np.concatenate(pieces)
    steps = np.abs(np.diff(made, n=2))
    seams = np.cumsum([len(piece) for piece in pieces[:-1]])[5:] - 1
    assert steps[seams].mean() < 1.5 * steps.mean()
    assert np.quantile(steps[seams], 0.9) < 1.5 * np.quantile(steps, 0.9)


def test_silence_then_speech_then_loud_speech(model, heard, speech):
    wav = np.concatenate([np.zeros(1280 * 20, np.float32), 0.02 * speech[:51200], np.clip(8 * speech[:51200], -1, 1)])
    made = np.concatenate(_run(LiveConverter(model, *heard), wav))
    assert np.isfinite(made).all()
    assert np.abs(made).max() <= 0.98
    assert np.abs(made[: 1280 * 18]).max() < 0.01
    assert active_level(made[25600 + 25600 : 25600 + 51200]) < 0.1 * active_level(made[-25600:])


def test_units_and_flat_loudness_and_a_plain_autoencoder(heard, model, speech, tmp_path, tiny_autoencoder):
    vq = vcae.load("vq", device="cpu")
    wav = soundfile.read(REFERENCE, dtype="float32")[0]
    converter = LiveConverter(vq, vq.voice(wav, 16000), vq.analyse(wav, 16000), ConvertOptions(loudness="flat", pitch=3))
    assert sum(map(len, _run(converter, speech[:25600]))) == 25600
    vcae.checkpoint.save(tmp_path / "a.safetensors", autoencoder=tiny_autoencoder)
    plain = vcae.load(tmp_path / "a.safetensors", device="cpu")
    with pytest.raises(CheckpointError, match="holds no vocoder"):
        LiveConverter(plain, *heard)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_quick_resampling(speech, rate):
    wav = soxr.resample(speech[:48000], 16000, rate)
    resampler = QuickResampler(rate, 16000)
    pieces, taken, given = [], 0, 0
    for at in range(0, len(wav), 777):
        pieces.append(resampler(wav[at : at + 777]))
        taken, given = taken + len(wav[at : at + 777]), given + len(pieces[-1])
        assert 1000 * (taken / rate - given / 16000) <= resampler.delay_ms + 0.2
    made = np.concatenate([*pieces, resampler.finish()])
    assert resampler.delay_ms < 3.5
    assert abs(len(made) - 48000) <= 1
    n = min(len(made), 48000)
    wanted = soxr.resample(wav, rate, 16000)[:n]
    low = [np.fft.irfft(np.fft.rfft(x[:n])[: int(n / 2 * 0.85 * min(1, rate / 16000))]) for x in (made, wanted)]
    assert np.abs(low[0] - low[1]).max() < 0.01 * np.abs(low[1]).max()


@pytest.mark.parametrize(
    ("subtype", "near"),
    [("PCM_U8", 1e-2), ("PCM_16", 1e-4), ("PCM_24", 1e-6), ("PCM_32", 1e-6), ("FLOAT", 1e-7), ("DOUBLE", 1e-7)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_wavs_are_read_as_they_come(speech, subtype, near, channels):
    out = io.BytesIO()
    soundfile.write(out, np.repeat(speech[:5000, None], channels, axis=1), 22050, format="WAV", subtype=subtype)

    class Dribble(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 1001) if size > 0 else size)

    reader = PcmReader(Dribble(out.getvalue()))
    blocks = list(reader.blocks(0.05))
    assert reader.sample_rate == 22050
    assert {len(block) for block in blocks[:-1]} == {1102}
    assert np.abs(np.concatenate(blocks) - speech[:5000]).max() < near


def test_our_header_is_a_wavs(speech):
    reader = PcmReader(io.BytesIO(wav_header(16000) + to_pcm(speech[:3000])))
    assert np.allclose(np.concatenate(list(reader.blocks(0.1))), speech[:3000], atol=1e-4)
    raw = PcmReader(io.BytesIO(to_pcm(speech[:3000]) + b"x"), 8000)
    assert np.allclose(np.concatenate(list(raw.blocks(0.1))), speech[:3000], atol=1e-4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"fLaC" + bytes(40), "is not a wav; for raw PCM"),
        (wav_header(16000)[:16], "ends inside its header"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "has no format chunk before its samples"),
        (b"RIFF\0\0\0\0WAVEfmt \x04\0\0\0abcd", "damaged header"),
        (b"RIFF\0\0\0\0WAVEjunk" + struct.pack("<I", 1 << 30), "at most 65536 are read"),
        (wav_header(16000).replace(struct.pack("<HH", 1, 1), struct.pack("<HH", 7, 1)), "format 7 of 16 bits"),
        (wav_header(4000), "4000 Hz; allowed are 8000"),
    ],
)
def test_what_is_no_stream(data, message):
    with pytest.raises(AudioError, match=message):
        PcmReader(io.BytesIO(data))


def _stream(*args, stdin):
    command = [*python(), "-m", "vcae", "stream", "-s", REFERENCE, *args]
    return subprocess.run(command, input=stdin, capture_output=True)


def test_streams_through_pipes(speech):
    n = 20000
    raw = _stream("--rate", "16000", stdin=to_pcm(speech[:n]))
    assert raw.returncode == 0, raw.stderr
    assert len(raw.stdout) == 2 * n
    assert b"latency 240 ms" in raw.stderr
    assert b"underruns" in raw.stderr
    out = io.BytesIO()
    soundfile.write(out, soxr.resample(speech[:n], 16000, 48000), 48000, format="WAV")
    wav = _stream("-q", stdin=out.getvalue())
    assert (wav.returncode, wav.stderr) == (0, b"")
    made, rate = soundfile.read(io.BytesIO(wav.stdout))
    assert (rate, len(made)) == (48000, 3 * n)
    assert np.abs(made).max() > 0.01
    # The first sample belongs to the first sample: it is loud where the model's own rate is.
    narrow, rate = soundfile.read(io.BytesIO(_stream("-q", "--rate-out", "16000", stdin=out.getvalue()).stdout))
    assert rate == 16000
    power = [np.log(np.square(x).reshape(-1, 500).mean(axis=1) + 1e-7) for x in (soxr.resample(made, 48000, 16000), narrow)]
    assert np.corrcoef(*power)[0, 1] > 0.99
    for args, stdin, message in (
        (("--rate", "16000", "--block-ms", "160"), b"", b"latency of 320 ms"),
        ((), b"x" * 99, b"is not a wav"),
    ):
        bad = _stream(*args, stdin=stdin)
        assert bad.returncode == 2
        assert message in bad.stderr
        assert bad.stderr.count(b"\n") == 1
        assert bad.stdout == b""


def test_sound_devices(monkeypatch, speech, tmp_path):
    """A sound card is not to be had in a test: its library is played by a stand-in that misses one block."""
    from typer.testing import CliRunner

    from vcae.cli.app import app

    played, opened = [], []

    class Card:
        def __init__(self, **how):
            opened.append(how)
            self.at = 0

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def read(self, n):
            if self.at >= 10 * n:
                raise KeyboardInterrupt
            self.at += n
            return speech[self.at - n : self.at, None], self.at == 3 * n

        def write(self, wav):
            played.append(wav[:, 0])
            return False

    class PortAudioError(Exception):
        pass

    card = types.SimpleNamespace(InputStream=Card, OutputStream=Card, PortAudioError=PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    done = CliRunner().invoke(app, ["stream", "-s", REFERENCE, "--device-in", "default", "--device-out", "3"])
    assert done.exit_code == 0, done.output
    assert [how["device"] for how in opened] == [None, 3]
    assert sum(map(len, played)) == 10 * 1280
    assert "1 missed by a device" in done.stderr
    rows = [("Headset", 1, 0), ("Speakers", 0, 2)]
    names = ("name", "max_input_channels", "max_output_channels")
    found = [dict(zip(names, row, strict=True)) | {"default_samplerate": 48000.0} for row in rows]
    card.query_devices, card.default = lambda: found, types.SimpleNamespace(device=[0, 1])
    listed = CliRunner().invoke(app, ["stream", "--list-devices"])
    assert listed.exit_code == 0, listed.output
    assert re.search(r"0 +1 +0 +48000 Hz  Headset   \(the usual microphone\)", listed.stdout)
    assert re.search(r"1 +0 +2 +48000 Hz  Speakers   \(the usual loudspeaker\)", listed.stdout)
    found.clear()
    assert "no sound device was found" in CliRunner().invoke(app, ["stream", "--list-devices"]).stderr
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    missing = CliRunner().invoke(app, ["stream", "-s", REFERENCE, "--device-in", "default"])
    assert missing.exit_code == 2
    assert "pip install 'vcae[live]'" in missing.stderr


def test_live_looks_up_the_reference(attending_checkpoint, heard, speech):
    """Live as whole: without what the decoder attends to, the sound is another."""
    model = vcae.load(attending_checkpoint)
    reference = soundfile.read(REFERENCE, dtype="float32")[0]
    voice, analysis = model.voice(reference, 16000), model.analyse(reference, 16000)
    with_it, without = (
        np.concatenate(_run(LiveConverter(model, v, analysis), speech[:32000]))
        for v in (voice, replace(voice, reference=None, recordings=()))
    )
    assert np.abs(with_it - without).max() > 0.05 * np.abs(with_it).max()


def test_stereo_is_mixed_as_files_are(model, heard, speech):
    voice, prior = heard
    short = speech[:32000]
    one, two = (LiveConverter(model, voice, prior) for _ in range(2))
    mono = np.concatenate(_run(one, short))
    stereo = np.concatenate(_run(two, np.stack([short, -short], axis=1)))
    assert np.allclose(stereo, mono, atol=1e-4)
    data = to_pcm(np.stack([short, 0 * short], axis=1).reshape(-1))
    header = bytearray(wav_header(16000))
    header[22:24], header[32:34] = struct.pack("<H", 2), struct.pack("<H", 4)
    read = np.concatenate(list(PcmReader(io.BytesIO(bytes(header) + data)).blocks(0.08)))
    assert np.allclose(read, short, atol=1e-4)
