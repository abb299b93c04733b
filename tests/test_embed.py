"""Features of recordings: what they are, their times, and the files that `vcae embed` writes."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import CLIPS, ROOT, TINY
from tests.forked import python
from vcae.audio.io import Sound, SoundReader
from vcae.errors import AudioError, ConfigError
from vcae.tasks import embed as module
from vcae.tasks.embed import embed, resample_rows
from vcae.tasks.embed_files import format_embeddings

# Another folder shall not mean another package.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def command(*args, cwd=None, stdin=None):
    line = [*python(), "-m", "vcae", *map(str, args)]
    return subprocess.run(line, cwd=cwd, input=stdin, capture_output=True, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def halves():
    """Each bundled clip in two halves: two recordings of each of three voices."""
    found = []
    for name in ("source", "reference", "reference2"):
        wav, rate = soundfile.read(CLIPS / f"{name}.flac", dtype="float32")
        found += [Sound(wav[: len(wav) // 2], rate, f"{name}-1"), Sound(wav[len(wav) // 2 :], rate, f"{name}-2")]
    return found


def test_the_speaker_is_a_unit_vector_nearest_to_its_other_half(model, halves):
    rows = [embed(model, sound) for sound in halves]
    vectors = np.concatenate([row.values for row in rows])
    assert vectors.shape == (6, model.autoencoder.config.speaker.speaker_dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert all((r.start_s[0], r.end_s[0]) == (0, s.duration_s) for r, s in zip(rows, halves, strict=True))
    cosine = vectors @ vectors.T - 2 * np.eye(6)
    others = cosine.copy()
    others[np.arange(6), np.arange(6) ^ 1] = -2
    assert all(cosine[n, n ^ 1] > others[n].max() for n in range(2, 6))


def test_features_are_what_the_model_computes(model, speech):
    seen = model.analyse(speech, 16000)
    sound = Sound(speech, 16000, "x")
    assert np.allclose(embed(model, sound, "mel").values, seen.mel[0].T.numpy(), atol=1e-5)
    encoded = model.encode(speech, 16000)
    assert np.allclose(embed(model, sound, "content").values, encoded.latent[0].T.numpy(), atol=1e-4)
    assert np.allclose(embed(model, sound).values, encoded.speaker_embedding.numpy(), atol=1e-5)


@pytest.mark.parametrize(("what", "step_s"), [("content", 0.032), ("mel", 0.016)])
def test_times_cover_the_recording(model, speech, what, step_s):
    found = embed(model, Sound(speech, 16000, "x"), what)
    assert found.values.dtype == np.float32
    assert len(found.values) == len(found.start_s) == len(found.end_s) == int(len(speech) / 16000 / step_s) + 1
    assert (found.start_s[0], found.end_s[-1]) == (0, len(speech) / 16000)
    assert np.array_equal(found.start_s[1:], found.end_s[:-1])
    assert np.allclose(np.diff(found.start_s[1:]), step_s)
    assert (found.end_s > found.start_s).all()


def test_a_tone_is_where_its_rows_say(model, tone):
    wav = np.concatenate([tone(1000.0, 1.0, level=0.1), tone(3000.0, 1.0, level=0.1)])
    found = embed(model, Sound(wav, 16000, "x"), "mel")
    peak, middle = found.values.argmax(axis=1), (found.start_s + found.end_s) / 2
    low, high = np.median(peak[middle < 0.9]), np.median(peak[middle > 1.1])
    assert high - low > 15
    changed = middle[np.flatnonzero(peak > (low + high) / 2)[0]]
    assert abs(changed - 1.0) < 0.025


def test_long_recordings_give_the_same_in_sections(model, speech, monkeypatch):
    sound = Sound(speech, 16000, "x")
    whole = {what: embed(model, sound, what) for what in module.WHATS}
    monkeypatch.setattr(module, "SECTION_S", 1.5)
    for what, found in whole.items():
        assert np.allclose(embed(model, sound, what).values, found.values, atol=2e-3), what


def test_pooling(model, speech):
    silence = np.zeros(16000, np.float32)
    padded = Sound(np.concatenate([silence, speech, silence]), 16000, "x")
    mean = embed(model, padded, "mel", "mean")
    assert mean.values.shape == (1, 80)
    # Of the rows with sound: a second of silence at each end changes little, where it would lower a plain mean by far.
    plain = embed(model, padded, "mel").values.mean(axis=0)
    alone = embed(model, Sound(speech, 16000, "y"), "mel", "mean").values[0]
    assert np.abs(mean.values[0] - alone).mean() < 0.2 * np.abs(plain - alone).mean()
    steps = embed(model, padded, "content", "steps", 8)
    assert steps.values.shape == (8, model.autoencoder.config.content.latent_dim)
    assert steps.start_s[0] > 0.9
    assert steps.end_s[-1] < padded.duration_s - 0.9
    assert np.allclose(np.diff(steps.end_s), np.diff(steps.end_s)[0], atol=1e-6)
    assert np.array_equal(steps.start_s[1:], steps.end_s[:-1])


def test_parts_are_means_of_what_they_cover():
    values, borders = np.arange(6, dtype=np.float32)[:, None], np.arange(7) * 0.5
    active = np.array([False, True, True, True, True, False])
    made, edges = resample_rows(values, borders, active, 2)
    assert made[:, 0].tolist() == [1.5, 3.5]
    assert edges.tolist() == [0.5, 1.5, 2.5]
    finer, _ = resample_rows(values, borders, active, 8)
    assert finer[:, 0].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    # A part over two rows in unequal shares.
    third, _ = resample_rows(values, borders, active, 3)
    assert third[0, 0] == pytest.approx((1 + 2 / 3) / (4 / 3))


def test_bad_requests_are_named(model, speech, tiny_autoencoder):
    sound = Sound(speech, 16000, "talk")
    with pytest.raises(ConfigError, match="what is 'pitch'; allowed are speaker, content, mel"):
        embed(model, sound, "pitch")
    with pytest.raises(ConfigError, match="pool is 'max'"):
        embed(model, sound, "mel", "max")
    with pytest.raises(ConfigError, match="n_steps is 0"):
        embed(model, sound, "mel", "steps", 0)
    with pytest.raises(AudioError, match=r"at least 0.5 s"):
        embed(model, replace(sound, wav=speech[:4000]))
    with pytest.raises(ConfigError, match=r"allowed are \.npz, \.parquet"):
        format_embeddings([embed(model, sound)], ".csv", {})


def test_a_file_of_vectors_and_one_of_rows(tmp_path, model, clips):
    out = tmp_path / "new" / "voices.npz"
    done = command("embed", CLIPS, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["n_files"], said["n_rows"], said["failed"]) == (4, 4, [])
    with np.load(out, allow_pickle=False) as kept:
        assert kept["names"].tolist() == ["noisy.flac", "reference.flac", "reference2.flac", "source.flac"]
        assert json.loads(str(kept["facts"]))["sha256"] == model.checkpoint.sha256
        with SoundReader(clips["source"]) as reader:
            assert np.allclose(kept["values"][3], embed(model, reader).values[0], atol=1e-5)
    refused = command("embed", CLIPS, "-o", out)
    assert refused.returncode == 2
    assert b"add --force" in refused.stderr
    piped = command("embed", "-", "--what", "content", "--checkpoint", "vq", stdin=clips["source"].read_bytes())
    assert piped.returncode == 0, piped.stderr
    (tmp_path / "piped.npz").write_bytes(piped.stdout)
    with np.load(tmp_path / "piped.npz", allow_pickle=False) as kept:
        assert kept["names"].tolist() == ["standard input"]
        assert kept["values"].shape == (len(kept["start_s"]), 64)
        assert kept["end_s"][-1] == pytest.approx(soundfile.info(clips["source"]).duration)


def test_one_unreadable_file_does_not_cost_the_others(tmp_path, clips):
    for name in ("source", "reference"):
        (tmp_path / f"{name}.flac").write_bytes(clips[name].read_bytes())
    (tmp_path / "broken.flac").write_text("no sound")
    done = command("embed", "*.flac", "--what", "mel", "-o", "out.npz", cwd=tmp_path)
    assert done.returncode == 1
    assert [line for line in done.stderr.decode().splitlines() if "broken.flac is not a sound file" in line]
    assert b"wrote out.npz: mel of 2 files" in done.stdout
    with np.load(tmp_path / "out.npz", allow_pickle=False) as kept:
        assert kept["names"].tolist() == ["reference.flac", "source.flac"]
        rows = np.bincount(kept["name_index"])
        assert rows.tolist() == [int(soundfile.info(tmp_path / n).duration * 62.5) + 1 for n in kept["names"]]
    nothing = command("embed", "broken.flac", "broken.flac/../broken.flac", "-o", "none.npz", cwd=tmp_path)
    assert nothing.returncode == 2
    assert not (tmp_path / "none.npz").exists()
    missing = command("embed", "*.mp3", cwd=tmp_path)
    assert missing.returncode == 2
    assert b"no file fits *.mp3" in missing.stderr


def test_parquet(tmp_path, clips):
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet brings it")
    out = tmp_path / "a.parquet"
    done = command(
        "embed", clips["source"], clips["reference"], "--what", "content", "--pool", "steps", "--n-steps", 5, "-o", out
    )
    assert done.returncode == 0, done.stderr
    table = parquet.read_table(out)
    assert table.column_names == ["name", "start_s", "end_s", "values"]
    assert table["name"].to_pylist() == ["source.flac"] * 5 + ["reference.flac"] * 5
    assert {len(row) for row in table["values"].to_pylist()} == {64}
    assert json.loads(table.schema.metadata[b"vcae"])["what"] == "content"


def test_parquet_without_pyarrow_is_told_before_work(tmp_path, clips):
    code = "import sys; sys.modules['pyarrow'] = None; from vcae.cli.app import main; main()"
    arguments = ["embed", str(clips["source"]), "-o", str(tmp_path / "a.parquet")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 2
    assert "pip install 'vcae[parquet]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_without_a_speaker_part_is_refused(tmp_path, speech):
    from vcae import checkpoint, load
    from vcae.config import from_dict
    from vcae.model.autoencoder import Autoencoder
    from vcae.model.config import AutoencoderConfig

    plain = from_dict(AutoencoderConfig, {**TINY, "speaker": None})
    checkpoint.save(tmp_path / "plain.safetensors", Autoencoder(plain).eval(), None, {"author": "a test"})
    loaded = load(tmp_path / "plain.safetensors", device="cpu")
    with pytest.raises(ConfigError, match="plain autoencoder"):
        embed(loaded, Sound(speech, 16000, "x"))
    assert embed(loaded, Sound(speech, 16000, "x"), "content").values.shape[1] == 4
    assert torch.is_grad_enabled()
