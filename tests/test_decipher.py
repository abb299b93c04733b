"""Decipherment of speech without transcripts: models of phones and text, expectation maximisation, the critic, readability."""

import csv
import itertools
import json
import runpy
import sys

import numpy as np
import pytest
import torch

from tests.conftest import CLIPS, ROOT
from vcae.errors import CheckpointError
from vcae.evaluation.readability import collapse_phones, permuted_errors, word_share
from vcae.model.ngram import Ngram
from vcae.model.phone_hmm import GaussianPhones, PhoneHmm
from vcae.model.segments import choose_penalty, merge, segment, squared_distances
from vcae.text.errors import error_rate
from vcae.training.config import DecipherConfig, TextCriticConfig
from vcae.training.decipher import align, as_steps, decipher, learn_paired, shorten_pauses
from vcae.training.decipher_data import Speech, Text, read_speech, read_text, write_speech, write_text
from vcae.training.text_critic import CriticTraining, channel_text

# A small language: silence and five phones, of which each has one or two likely followers.
N = 6
FOLLOWERS = np.array(
    [
        [0.00, 0.70, 0.20, 0.04, 0.03, 0.03],
        [0.05, 0.00, 0.75, 0.10, 0.05, 0.05],
        [0.05, 0.05, 0.00, 0.80, 0.05, 0.05],
        [0.20, 0.30, 0.05, 0.00, 0.40, 0.05],
        [0.30, 0.05, 0.05, 0.05, 0.00, 0.55],
        [0.60, 0.05, 0.05, 0.25, 0.05, 0.00],
    ]
)
MEANS = np.random.default_rng(5).normal(0, 2.0, (N - 1, 4))


def language(n, rng):
    """Return n sequences of about 20 phones between silences."""
    found = []
    for _ in range(n):
        row = [0]
        while len(row) < 20 or row[-1] != 0:
            row.append(int(rng.choice(N, p=FOLLOWERS[row[-1]])))
        found.append(np.array(row, np.int8))
    return found


def spoken(phones, rng):
    """Return a recording of phones: one to three steps each, normal around the phone's mean."""
    steps = np.repeat(phones, rng.integers(1, 4, len(phones)))
    latent = np.where(steps[:, None] > 0, MEANS[steps - 1], 0) + rng.normal(0, 0.5, (len(steps), 4))
    return Speech("toy", "toy/one", "train", "", torch.from_numpy(latent).half(), torch.from_numpy(steps > 0))


@pytest.fixture(scope="module")
def toy():
    rng = np.random.default_rng(0)
    phones = language(60, rng)
    speech = [spoken(p, rng) for p in phones]
    ngram = Ngram(language(400, rng), N, 3)
    config = DecipherConfig(n_starts=12, iterations=8, trigram_iterations=4, stay=0.45, skip=0.01, scale=1.0, first_scale=0.5)
    steps = as_steps(speech)
    found = decipher(steps, ngram.table(2), ngram.table(3), MEANS[::-1], config, seed=0)
    return phones, speech, ngram, config, steps, found


def pairs_of(toy, found):
    phones, speech = toy[:2]
    return [
        (p[p > 0].tolist(), collapse_phones(found.read(s.latent.float().numpy(), s.active.numpy())))
        for p, s in zip(phones, speech, strict=True)
    ]


def test_a_small_language_is_deciphered_and_a_permuted_key_is_not(toy):
    pairs = pairs_of(toy, toy[-1])
    assert error_rate(pairs) < 0.1
    permuted = permuted_errors(pairs, N - 1, 20)
    assert np.median(permuted) > 0.5
    assert min(permuted) >= error_rate(pairs)


def test_the_likeliest_start_is_the_right_one(toy):
    """A key with two phones exchanged is less likely than the one that was found, though no transcript is known."""
    *_, steps, found = toy
    posterior, right = found.hmm.posteriors(found.phones.scores(steps.latent, steps.active), steps.lengths)
    wrong = GaussianPhones(found.phones.means[[1, 0, 2, 3, 4]], found.phones.covariance, found.phones.scale)
    _, less = found.hmm.posteriors(wrong.scores(steps.latent, steps.active), steps.lengths)
    assert right > less + 100
    assert np.allclose(posterior.sum(axis=1), 1, atol=1e-4)
    assert right / len(steps.latent) >= found.likelihood - 1e-3


def test_the_paired_system_is_an_upper_bound(toy):
    phones, _, ngram, config, steps, found = toy
    best = learn_paired(steps, [p[p > 0].tolist() for p in phones], ngram.table(2), ngram.table(3), config)
    assert error_rate(pairs_of(toy, best)) <= error_rate(pairs_of(toy, found)) + 0.02
    assert np.abs(best.phones.means - MEANS).max() < 0.5


@pytest.mark.parametrize("order", [2, 3])
def test_the_model_sums_over_all_paths(order):
    rng = np.random.default_rng(order)
    n, stay, skip, lengths = 3, 0.2, 0.1, np.array([1, 4, 3])
    bigram, trigram = rng.dirichlet(np.ones(n), n), rng.dirichlet(np.ones(n), (n, n))
    hmm = PhoneHmm(bigram, stay, skip, trigram if order == 3 else None)
    scores = rng.normal(0, 1, (lengths.sum(), n)).astype(np.float32)
    posterior, total = hmm.posteriors(scores, lengths)
    expected, wanted = np.zeros_like(posterior), 0.0
    for first, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        sums, best = np.zeros((length, n)), (-1.0, ())
        # A step either stays, or moves to a phone.
        for choice in itertools.product([None, *range(n)], repeat=length):
            before, here, likely, path = 0, 0, 1.0, []
            for t, phone in enumerate(choice):
                if phone is None:
                    likely *= stay
                else:
                    likely *= hmm.moves[before if order == 3 else 0, here, phone]
                    before, here = here, phone
                path.append(here)
                likely *= np.exp(scores[first + t, here])
            sums[np.arange(length), path] += likely
            best = max(best, (likely, tuple(path)))
        expected[first : first + length] = sums / sums.sum(axis=1, keepdims=True)
        wanted += np.log(sums[0].sum())
        assert hmm.best_path(scores[first : first + length]).tolist() == list(best[1])
    assert total == pytest.approx(wanted, abs=1e-3)
    assert np.allclose(posterior, expected, atol=1e-4)


def test_ngram_probabilities_are_witten_and_bells():
    ngram = Ngram([np.array([1, 2, 1, 2, 1, 1])], 3, 2)
    unigram = (np.array([0, 4, 2]) + 2 / 3) / (6 + 2)
    assert ngram.table(1) == pytest.approx(unigram)
    # After 1 came 2 twice and 1 once.
    assert ngram.table(2)[1] == pytest.approx((np.array([0, 1, 2]) + 2 * unigram) / (3 + 2))
    assert ngram.table(2).sum(axis=1) == pytest.approx(np.ones(3))
    assert ngram.bits([np.array([1, 2, 1, 2])]) < ngram.bits([np.array([2, 0, 0, 2])])


def test_segments_change_rarely_with_a_large_penalty():
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, 5, 40), 4)
    centroids = rng.normal(0, 1, (5, 3)).astype(np.float32)
    distances = squared_distances(centroids[truth] + rng.normal(0, 0.7, (160, 3)).astype(np.float32), centroids)
    plain, smooth = (len(merge(segment(distances, penalty))[0]) for penalty in (0.0, 2.0))
    assert (segment(distances, 0.0) == distances.argmin(axis=1)).all()
    assert smooth < plain
    assert (segment(distances, 2.0) == truth).mean() > (distances.argmin(axis=1) == truth).mean()
    wanted = len(merge(segment(distances, choose_penalty([distances], 40)))[0])
    assert abs(wanted - 40) <= 4


def test_a_recording_is_aligned_with_its_phones():
    scores = np.full((6, 4), -5.0)
    for step, phone in enumerate([2, 2, 1, 3, 3, 3]):
        scores[step, phone] = 0
    assert align(scores, [2, 1, 3]).tolist() == [2, 2, 1, 3, 3, 3]
    assert align(scores[:2], [2, 1, 3, 1]).tolist() == [2, 3]


def test_pauses_are_shortened_to_a_step():
    active = np.array([False, False, True, True, False, False, False, True])
    assert shorten_pauses(active).tolist() == [True, False, True, True, True, False, False, True]


def test_words_and_permuted_keys_are_counted():
    assert word_share([[1, 2, 3, 4, 5, 9]], [[1, 2, 3], [2, 3, 4, 5], [9]]) == pytest.approx(4 / 6)
    assert collapse_phones(np.array([0, 1, 1, 0, 1, 2])) == [1, 1, 2]
    assert permuted_errors([([1, 2, 3], [1, 2, 3])], 3, 6)[0] in (0.0, 2 / 3, 1.0)


def test_text_passes_the_channel_of_units():
    text = language(50, np.random.default_rng(1))
    same = channel_text(text, 0.0, 0.0, np.random.default_rng(0))
    assert not (same[1:] == same[:-1]).any()
    changed = channel_text(text, 0.5, 0.2, np.random.default_rng(0))
    phones = (changed > 0).sum() / (same > 0).sum()
    assert 1.4 < phones < 1.8


def test_the_critic_tells_text_from_a_shuffle_and_reinforce_learns():
    units = [np.concatenate([[0], np.random.default_rng(n).integers(1, 8, 30)]) for n in range(20)]
    text = channel_text(language(200, np.random.default_rng(2)), 0.2, 0.1, np.random.default_rng(0))
    config = TextCriticConfig(width=16, batch_size=16, crop=20, steps=1, reinforce_steps=1, critic_rate=5e-3)
    training = CriticTraining(units, text, (8, N), config, seed=0)
    losses = []
    training.run(60, on_step=lambda _, loss: losses.append(loss))
    assert np.mean(losses[-10:]) < np.mean(losses[:3])
    before = training.frozen()(units[0])
    kept = {name: value.clone() for name, value in training.reader.state_dict().items()}
    training.run(5, reinforce=True)
    assert any(not torch.equal(kept[name], value) for name, value in training.reader.state_dict().items())
    assert set(before.tolist()) <= set(range(N))


def test_speech_and_text_are_stored(tmp_path, toy):
    speech = toy[1][:3]
    write_speech(tmp_path / "s.safetensors", speech)
    again = read_speech(tmp_path / "s.safetensors")
    assert [(s.name, s.speaker, s.split) for s in again] == [(s.name, s.speaker, s.split) for s in speech]
    assert all(torch.equal(a.latent, b.latent) and torch.equal(a.active, b.active) for a, b in zip(again, speech, strict=True))
    text = Text(language(3, np.random.default_rng(0)), {"a": 2})
    write_text(tmp_path / "t.safetensors", text)
    read = read_text(tmp_path / "t.safetensors")
    assert read.words == text.words
    assert all((a == b).all() for a, b in zip(read.sequences, text.sequences, strict=True))
    with pytest.raises(CheckpointError, match="holds no speech; write it with"):
        read_speech(tmp_path / "t.safetensors")


@pytest.fixture
def step(monkeypatch, tmp_path):
    """Function that runs a step of the recipe in this process, with files in a folder of its own."""
    modules = ("settings", "texts", "systems", "synthesis")
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(ROOT / "recipes/text"))
    monkeypatch.chdir(ROOT)

    def run(name, *settings):
        kept = [f"{key}={tmp_path / key}.safetensors" for key in ("speech", "text")]
        kept += [f"output_dir={tmp_path}", f"manifest={tmp_path / 'manifest.csv'}"]
        monkeypatch.setattr(sys, "argv", [name, "recipes/text/conf/debug.yaml", *kept, *settings])
        runpy.run_path(f"recipes/text/{name}.py", run_name="__main__")

    yield run
    for name in modules:
        sys.modules.pop(name, None)


def test_the_recipes_steps(tmp_path, step, capsys):
    """A manifest of two speakers to learn from, one for the test; the text is their transcripts."""
    pytest.importorskip("pocketsphinx")
    rows = list(csv.DictReader((CLIPS / "manifest.csv").open(encoding="utf-8")))[:3] * 2
    places = [("speech", "train"), ("speech", "train"), ("dev", "dev"), *[("text", "train")] * 3]
    with (tmp_path / "manifest.csv").open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        for row, (corpus, split) in zip(rows, places, strict=True):
            writer.writerow(row | {"path": CLIPS / row["path"], "corpus": corpus, "split": split})
    step("prepare")
    assert "3 recordings" in capsys.readouterr().out
    step("measure")
    found = json.loads((tmp_path / "results.json").read_text())
    systems = [row["system"] for row in found]
    assert systems == ["transcripts", "paired", "oracle key", "no critic", "decipherment", "critic", "critic and REINFORCE"]
    assert all(0 <= row["words"] <= 1 for row in found)
    assert all(row["errors_dev"] > 0.3 and row["unit_errors"] >= 0 and -1 <= row["cosine"] <= 1 for row in found[1:])
    with pytest.raises(SystemExit, match="speech is in speech_corpora and in text_corpora"):
        step("prepare", "text_corpora=[speech]")
    with pytest.raises(SystemExit, match="has no transcribed recordings of nonesuch"):
        step("prepare", "speech_corpora=[nonesuch]")
    with pytest.raises(SystemExit, match="there is no book koran; allowed are bible, plays"):
        step("prepare", "books=[koran]")
