"""Recordings of any length: sections give what the whole gives, in bounded memory."""

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import soxr
import torch

import vcae
from vcae.audio.f0 import BLOCK_FRAMES, _detector, estimate_f0
from vcae.audio.io import Sound, SoundReader, read_sound, resample, resample_blocks, write_blocks
from vcae.audio.loudness import LevelMeter, follow_envelope, follow_envelope_sections, limit_peaks
from vcae.audio.sections import LazySections, SectionRunner, StoredSections
from vcae.engine.listening import analyse_sections, encode_content_sections, encode_speaker_sections
from vcae.errors import AudioError
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert_long

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def half_a_minute(speech):
    """Speech of no round length whose level changes, so that nothing about its sections is alike."""
    wav = np.tile(speech, 5)[: 30 * 16000 + 77]
    return wav * (0.6 + 0.4 * np.sin(np.arange(len(wav)) / 16000)).astype(np.float32)


def _far_db(a, b):
    return 20 * np.log10(np.abs(a - b).max() / np.abs(a).max() + 1e-12)


@pytest.mark.parametrize("name", ["default", "vq"])
@pytest.mark.parametrize("options", [ConvertOptions(), ConvertOptions(2, 0.6, "flat", speed=1.3, formant=-3, expression=0.7)])
def test_sections_give_what_the_whole_gives(half_a_minute, clips, name, options):
    model = vcae.load(name, device="cpu")
    voice = model.voice(read_sound(clips["reference"]).wav, 16000)
    source = Sound(half_a_minute, 16000)
    whole, *others = (
        np.concatenate(list(convert_long(model, source, voice, options, section_s).blocks)) for section_s in (99, 7.3, 1.0)
    )
    assert len(whole) == round(len(half_a_minute) / options.speed)
    for other in others:
        assert len(other) == len(whole)
        assert _far_db(whole, other) < -60


def test_what_is_heard_by_sections_is_what_the_autoencoder_says(model, half_a_minute):
    seen = model.analyse(half_a_minute, 16000)
    with torch.inference_mode():
        heard, runner = analyse_sections(
            model, Sound(half_a_minute, 16000), 0.5, lambda n: SectionRunner(200, n > 200, model.device)
        )
        content = encode_content_sections(model, heard.mel, heard.active, runner)
        assert (content.read(0, content.n) - model.autoencoder.encode_content(seen.mel)).abs().max() < 1e-3
        speaker = encode_speaker_sections(model, heard.mel, heard.active, runner)
        assert (speaker - model.autoencoder.encode_speaker(seen.mel)).abs().max() < 1e-5
    assert torch.equal(heard.f0, seen.f0)
    assert heard.level == pytest.approx(seen.level)


def test_f0_in_blocks_is_f0_of_the_whole(half_a_minute):
    assert 1 + len(half_a_minute) // 256 > BLOCK_FRAMES
    loud = half_a_minute * (0.5 / np.abs(half_a_minute).max())
    result = _detector().detect(np.pad(loud, (0, 256)), 16000, 50.0, 600.0)
    whole = np.where(result.confidence >= 0.35, result.pitch_hz, 0.0)[: 1 + len(half_a_minute) // 256]
    f0 = estimate_f0(half_a_minute)
    assert np.array_equal(f0 > 0, whole > 0)
    assert np.allclose(f0, whole, rtol=1e-4)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_resampling_in_blocks_is_resampling(speech, rate):
    pieces = np.concatenate(list(resample_blocks(np.array_split(speech, 7), rate, 16000)))
    assert np.array_equal(pieces, soxr.resample(speech, rate, 16000, quality="HQ"))
    assert np.array_equal(pieces, resample(speech, rate, 16000))


def test_level_by_sections(speech):
    meter = LevelMeter()
    for piece in np.array_split(speech, 13):
        meter.add(piece)
    whole = LevelMeter.of(speech)
    assert np.allclose(meter.powers(), whole.powers(), rtol=1e-6)
    assert (meter.n, meter.peak) == (whole.n, whole.peak)
    changed, really = whole.changed(-0.3, 3.0), LevelMeter.of((speech + np.float32(0.3)) * 3)
    assert np.allclose(changed.powers(), really.powers(), rtol=1e-4)
    assert (changed.peak, changed.mean) == (pytest.approx(really.peak), pytest.approx(really.mean))
    assert really.has_offset()
    assert not whole.has_offset()


def test_shaping_and_limiting_by_sections(speech):
    wav = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    wav[40000:40050] *= 9
    level = 0.4
    whole = follow_envelope(wav, speech, level)
    assert not np.allclose(limit_peaks(whole * 1.2), whole * 1.2)
    meters = LevelMeter.of(wav), LevelMeter.of(speech)
    pieces = list(follow_envelope_sections(lambda a, b: wav[a:b], *meters, level, 5000))
    assert len(pieces) == -(-len(wav) // 5000)
    assert np.allclose(np.concatenate(pieces), whole, atol=1e-6)


@pytest.mark.parametrize("on_disk", [False, True])
def test_kept_sections_come_back(on_disk):
    rows = torch.randn(1, 3, 1000)
    kept = SectionRunner(64, on_disk, CPU).store(LazySections(1000, lambda a, b: rows[..., a:b]))
    assert isinstance(kept, StoredSections)
    assert kept.n == 1000
    assert torch.equal(kept.read(0, 1000), rows)
    assert torch.equal(kept.read(63, 257), rows[..., 63:257])


def test_kept_sections_come_back_where_files_have_one_position(monkeypatch):
    """Windows cannot read at an offset; the position for writing must stay at the end."""
    monkeypatch.delattr(os, "preadv")
    rows, kept = torch.randn(1, 3, 1000), StoredSections(True, CPU)
    for start in range(0, 1000, 100):
        kept.append(rows[..., start : start + 100])
        assert torch.equal(kept.read(start // 2, start + 9), rows[..., start // 2 : start + 9])
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda start: kept.read(start, start + 100), range(900)))
    assert all(torch.equal(one, rows[..., start : start + 100]) for start, one in enumerate(read))


def test_a_full_disk_for_what_is_kept_is_said(monkeypatch):
    kept = StoredSections(True, CPU)

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "_file", Full())
    with pytest.raises(AudioError, match=r"No space left on device.*TMPDIR"):
        kept.append(torch.zeros(1, 2, 5))


def test_files_and_pipes_are_read_in_blocks(monkeypatch, tmp_path, clips, speech):
    monkeypatch.setattr("vcae.audio.io.BLOCK_SAMPLES", 10000)
    soundfile.write(tmp_path / "a.mp3", speech, 16000)
    soundfile.write(tmp_path / "a.ogg", speech, 16000)
    for path in (clips["source"], tmp_path / "a.mp3", tmp_path / "a.ogg"):
        with SoundReader(path) as reader:
            blocks = list(reader.blocks())
        assert len(blocks) > 9
        assert np.allclose(np.concatenate(blocks), soundfile.read(path, dtype="float32")[0], atol=1e-6)
    with SoundReader("-", io.BytesIO(clips["source"].read_bytes())) as reader:
        assert np.array_equal(np.concatenate(list(reader.blocks())), speech)
    assert len(read_sound(clips["source"], first_s=1.5).wav) == 24000


def test_blocks_are_written_whole_or_not_at_all(tmp_path, speech):
    write_blocks(tmp_path / "a.wav", np.array_split(speech, 5), 16000, "a test")
    assert np.allclose(soundfile.read(tmp_path / "a.wav")[0], speech, atol=1e-4)

    def breaks():
        yield speech[:30000]
        raise AudioError("the source broke off")

    with pytest.raises(AudioError, match="broke off"):
        write_blocks(tmp_path / "b.wav", breaks(), 16000, "a test")
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def _peak_kb(tmp_path, clips, wav, seconds):
    path = tmp_path / f"{seconds}.wav"
    with soundfile.SoundFile(path, "w", 16000, 1) as out:
        for _ in range(seconds // 30):
            out.write(wav[: 30 * 16000])
    code = (
        "import sys; from vcae.cli.app import main\n"
        f"sys.argv = ['vcae', 'convert', {str(path)!r}, '-s', {str(clips['reference'])!r}, '-o', {str(path) + '.flac'!r}, '-q']\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code\n"
        # Not ru_maxrss, which begins at what the test process held when it started this one.
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert soundfile.info(f"{path}.flac").frames == seconds * 16000
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_length(tmp_path, clips, half_a_minute):
    short, long = (_peak_kb(tmp_path, clips, half_a_minute, seconds) for seconds in (90, 390))
    assert long < 1.2e6
    assert long - short < 60e3
