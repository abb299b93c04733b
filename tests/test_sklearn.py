"""The transformers among scikit-learn's own: its checks, pipelines, clones and pickles."""

import pickle

import numpy as np
import pytest
import soundfile
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from tests.conftest import CLIPS
from vcae.audio.io import Sound
from vcae.errors import AudioError, CheckpointError, ConfigError
from vcae.sklearn import ContentEmbedder, SpeakerEmbedder
from vcae.tasks.embed import embed

# What sound cannot do, and why.
CANNOT = {
    "check_estimators_dtypes": "it rounds numbers below 1 to whole ones, which makes silent clips of them; silence is refused, having no voice",
}


@pytest.fixture(scope="module")
def clips():
    """Three voices, four clips of a second each: (12, 16000), and their names."""
    wavs, names = [], []
    for name in ("source", "reference", "reference2"):
        wav, _ = soundfile.read(CLIPS / f"{name}.flac", dtype="float32")
        wavs += [wav[n * 16000 : (n + 1) * 16000] for n in range(4)]
        names += [name] * 4
    return np.stack(wavs), np.array(names)


@pytest.mark.parametrize("make", [SpeakerEmbedder, ContentEmbedder])
def test_scikit_learns_own_checks(make, tiny_checkpoint):
    few = {"n_steps": 2} if make is ContentEmbedder else {}
    estimator = make(str(tiny_checkpoint), device="cpu", **few)
    # A check that fails and is not among the expected ones raises.
    results = check_estimator(estimator, expected_failed_checks=CANNOT, on_skip=None)
    status = {r["check_name"]: r["status"] for r in results}
    assert sum(s == "passed" for s in status.values()) >= 30
    assert [name for name, s in status.items() if s == "xfail"] == list(CANNOT)


def test_rows_are_those_of_embed(model, clips):
    wavs, _ = clips
    found = SpeakerEmbedder(device="cpu").fit_transform(wavs)
    assert found.dtype == np.float32
    assert np.allclose(found[5], embed(model, Sound(wavs[5], 16000)).values[0], atol=1e-5)
    content = ContentEmbedder(device="cpu", n_steps=6).fit_transform(wavs[:2])
    expected = embed(model, Sound(wavs[1], 16000), "content", "steps", 6).values
    assert np.allclose(content[1], expected.ravel(), atol=1e-5)


def test_a_pipeline_learns_voices(clips):
    wavs, names = clips
    pipeline = make_pipeline(SpeakerEmbedder(device="cpu"), LogisticRegression(C=10))
    pipeline.fit(wavs[::2], names[::2])
    # Six clips of a second by three voices.
    assert (pipeline.predict(wavs[1::2]) == names[1::2]).sum() >= 5


def test_lists_of_clips_and_paths(clips):
    wavs, _ = clips
    paths = [CLIPS / "source.flac", str(CLIPS / "reference.flac")]
    embedder = SpeakerEmbedder(device="cpu").fit(paths)
    of_files = embedder.transform(paths)
    assert of_files.shape == (2, 128)
    waves = [soundfile.read(path, dtype="float32")[0] for path in paths]
    assert len(waves[0]) != len(waves[1])
    assert np.allclose(embedder.transform(waves), of_files, atol=1e-5)
    assert np.allclose(embedder.transform(np.array([str(p) for p in paths])), of_files)
    assert embedder.transform([wavs[0][:2000]]).shape == (1, 128)
    with pytest.raises(AudioError, match="clip 1 is silent"):
        embedder.transform([wavs[0], np.zeros(16000, np.float32)])
    with pytest.raises(AudioError, match="does not exist"):
        embedder.transform(["nonesuch.wav"])
    with pytest.raises(ValueError, match=r"clip 0 has shape \(2, 8000\)"):
        embedder.transform([wavs[0].reshape(2, -1)])


def test_names_clones_and_pickles(clips, tiny_checkpoint):
    wavs, _ = clips
    embedder = ContentEmbedder(str(tiny_checkpoint), n_steps=3, device="cpu")
    assert clone(embedder).get_params() == embedder.get_params()
    embedder.fit(wavs[:2])
    names = embedder.get_feature_names_out()
    assert (len(names), names[0], names[-1]) == (12, "contentembedder0", "contentembedder11")
    data = pickle.dumps(embedder)
    assert len(data) < 2000
    assert np.array_equal(pickle.loads(data).transform(wavs[:2]), embedder.transform(wavs[:2]))


def test_another_checkpoint_under_the_same_name_is_refused(clips, tiny_checkpoint, tiny_vocoder):
    import os

    from tests.conftest import TINY
    from vcae import checkpoint
    from vcae.config import from_dict
    from vcae.model.autoencoder import Autoencoder
    from vcae.model.config import AutoencoderConfig

    wavs, _ = clips
    embedder = SpeakerEmbedder(str(tiny_checkpoint), device="cpu").fit(wavs[:2])
    before = embedder.transform(wavs[:2])
    checkpoint.save(
        tiny_checkpoint, Autoencoder(from_dict(AutoencoderConfig, TINY)).eval(), tiny_vocoder, {"author": "another"}
    )
    os.utime(tiny_checkpoint, ns=(1, 1))
    with pytest.raises(CheckpointError, match="is not the one of `fit`"):
        embedder.transform(wavs[:2])
    assert np.abs(embedder.fit_transform(wavs[:2]) - before).max() > 1e-3


def test_bad_parameters_are_named(clips, tiny_checkpoint):
    wavs, _ = clips
    with pytest.raises(ConfigError, match="pool is 'none'; allowed are steps and mean"):
        ContentEmbedder(str(tiny_checkpoint), pool="none", device="cpu").fit(wavs[:1])
    with pytest.raises(AudioError, match="sample rate of 400 Hz"):
        SpeakerEmbedder(str(tiny_checkpoint), sample_rate=400, device="cpu").fit(wavs[:1])
    with pytest.raises(CheckpointError, match="nonesuch"):
        SpeakerEmbedder("nonesuch", device="cpu").fit(wavs[:1])
