"""Training of the transcriber: what is learned, exact resume, and the recipe's steps on the bundled clips."""

import json
import subprocess

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.forked import python
from vcae.errors import CheckpointError
from vcae.model.config import TranscriberConfig
from vcae.model.transcriber import PHONES
from vcae.text.ctc import collapse
from vcae.training.config import TranscriberRecipe
from vcae.training.transcriber import Reading, TranscriberTraining, batches, make_items, read_readings, vary, write_readings

SAID = {"a": ["AH"], "cat": ["K", "AE", "T"], "sat": ["S", "AE", "T"]}
CODE = {phone: n for n, phone in enumerate(["AH", "K", "AE", "T", "S"])}


def made(text, rng):
    """Return a latent in which each phone is three steps of a channel of its own."""
    latent = np.zeros((0, 6), np.float32)
    for phone in (p for word in text.split() for p in SAID[word]):
        piece = np.zeros((4, 6), np.float32)
        piece[:3, CODE[phone]] = 3
        latent = np.concatenate([latent, piece])
    return torch.from_numpy(latent + rng.normal(0, 0.3, latent.shape).astype(np.float32)).half()


@pytest.fixture
def readings():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list(SAID), rng.integers(1, 5))) for _ in range(60)]
    return [Reading("toy/one", text, made(text, rng)) for text in texts]


def recipe(tmp_path, **settings):
    model = TranscriberConfig(latent_dim=6, width=16, n_blocks=1)
    values = {
        "n_epochs": 25,
        "batch_steps": 300,
        "learning_rate": 0.02,
        "average_decay": 0.8,
        "noise": 0.1,
        "output_dir": str(tmp_path / "run"),
    }
    return TranscriberRecipe(**({"model": model} | values | settings))


def test_readings_are_stored(tmp_path, readings):
    write_readings(tmp_path / "r.safetensors", readings)
    again = read_readings(tmp_path / "r.safetensors")
    assert [(r.speaker, r.text) for r in again] == [(r.speaker, r.text) for r in readings]
    assert all(torch.equal(a.latent, b.latent) for a, b in zip(again, readings, strict=True))
    with pytest.raises(CheckpointError, match="holds no transcribed latents"):
        read_readings(ROOT / "vcae/weights/denoiser.safetensors")


def test_what_cannot_be_learned_is_left_out(readings):
    short = Reading("toy/one", "cat sat cat", torch.zeros(3, 6))
    unknown = Reading("toy/one", "cat dog", torch.zeros(30, 6))
    items = make_items([*readings, short, unknown], str.split, SAID)
    assert len(items) == len(readings)
    assert items[0].phones.tolist() == [1 + PHONES.index(p) for w in readings[0].text.split() for p in SAID[w]]


def test_batches_have_everything_once_and_are_small(readings):
    items = make_items(readings, str.split, SAID)
    groups = list(batches(items, 300, np.random.default_rng(1)))
    assert sorted(id(item) for group in groups for item in group) == sorted(map(id, items))
    assert all(len(group) * max(len(item.latent) for item in group) <= 300 for group in groups)


def test_variations_keep_about_the_length(tmp_path, readings):
    latent, rng = readings[0].latent, np.random.default_rng(0)
    lengths = {len(vary(latent, recipe(tmp_path), rng)) for _ in range(50)}
    assert len(lengths) > 1
    assert min(lengths) >= round(len(latent) / 1.15)
    assert max(lengths) <= round(len(latent) * 1.15)


def test_phones_are_learned_and_resume_is_exact(tmp_path, readings):
    items = make_items(readings, str.split, SAID)
    whole = TranscriberTraining(recipe(tmp_path), items)
    losses = []
    while whole.epoch < 25:
        if whole.epoch == 2:
            copy = {name: value.clone() for name, value in whole.network.state_dict().items()}
            again = TranscriberTraining(recipe(tmp_path), items)
            assert again.epoch == 2
            assert all(torch.equal(copy[name], value) for name, value in again.network.state_dict().items())
            resumed = again.run_epoch()
            losses.append(whole.run_epoch())
            assert resumed == losses[-1]
            continue
        losses.append(whole.run_epoch())
    assert losses[-1] < 0.2 * losses[0]
    network, right = whole.averaged(), 0
    for item in items[:20]:
        with torch.inference_mode():
            phones, _ = network(item.latent.float().T[None])
        right += [s for s, _, _ in collapse(phones[0].T.numpy())] == item.phones.tolist()
    assert right >= 18


def test_the_recipes_steps(tmp_path):
    """From the bundled clips to an evaluation, with too little data to mean anything."""
    pytest.importorskip("pocketsphinx", reason="pocketsphinx is not installed: pip install 'vcae[eval]'")
    latents, words, run = (tmp_path / name for name in ("latents.safetensors", "words.safetensors", "run"))
    settings = [f"latents={latents}"]

    def step(script, conf, *more):
        command = [*python(), f"recipes/transcribe/{script}.py", f"recipes/transcribe/conf/{conf}.yaml", *settings, *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "3 recordings of 3 speakers" in step("prepare", "debug")
    losses = [json.loads(line) for line in step("train", "debug", f"output_dir={run}").splitlines() if line.startswith("{")]
    assert [one["epoch"] for one in losses] == [1, 2]
    settings.clear()
    assert "2000 words" in step("lexicon", "lexicon", f"output={words}", "n_words=2000", "n_pairs=1000")
    released = tmp_path / "small.safetensors"
    command = [*python(), "recipes/transcribe/release.py", str(run / "last.safetensors"), str(released)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    results = tmp_path / "results.json"
    chosen = [f"held={latents}", f"dev={latents}", f"transcriber={released}", f"lexicon={words}", f"output={results}"]
    step("evaluate", "test", *chosen)
    found = json.loads(results.read_text())
    assert found["dev"]["recordings"] == 3
    assert found["held_out"] == {**found["dev"], "search_cpu_s": found["held_out"]["search_cpu_s"]}
    # Two epochs of one clip teach nothing, which the evaluation says.
    assert found["dev"]["phone_errors"] > 0.5
    assert set(found["dev"]["word_errors"]) == {"0.7/-0.5"}
    assert found["dev"]["words_not_in_lexicon"] < 0.3
