import csv
import importlib.util
import itertools
import json
import math

import numpy as np
import pytest
import soundfile
import soxr

from tests.conftest import CLIPS, TINY
from tests.test_recipes import run
from vcae import checkpoint
from vcae.config import from_dict
from vcae.errors import DataError
from vcae.evaluation import units
from vcae.evaluation.alignment import SILENT_PHONES, Interval, align, normalize_transcript, spell_number
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import AutoencoderConfig

needs_pocketsphinx = pytest.mark.skipif(
    importlib.util.find_spec("pocketsphinx") is None, reason="pocketsphinx not installed; the extra eval brings it"
)


def test_information_of_a_table_calculated_by_hand():
    # Code 0 is always a; code 1 is a once and b twice; code 2 is never used.
    codes, labels = np.array([0, 0, 0, 1, 1, 1, 2]), np.array(["a", "a", "a", "a", "b", "b", ""], dtype=object)
    counts = units.count_jointly(codes, labels, 3)
    assert counts.tolist() == [[3, 0], [1, 2], [0, 0]]
    h_code, h_phone = math.log(2), -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    both = -(1 / 2 * math.log(1 / 2) + 1 / 6 * math.log(1 / 6) + 1 / 3 * math.log(1 / 3))
    information = h_code + h_phone - both
    assert units.mutual_information(counts) == pytest.approx(information)
    assert units.normalized_mutual_information(counts) == pytest.approx(2 * information / (h_code + h_phone))
    assert units.phone_normalized_mutual_information(counts) == pytest.approx(information / h_phone)
    assert units.phone_purity(counts) == pytest.approx(5 / 6)


def test_information_at_its_ends():
    assert units.normalized_mutual_information(np.eye(4)) == pytest.approx(1)
    assert units.normalized_mutual_information(np.ones((4, 3))) == pytest.approx(0)
    assert units.normalized_mutual_information(np.array([[7.0]])) == 0
    assert units.phone_purity(np.ones((4, 3))) == pytest.approx(1 / 3)


def test_bits_and_perplexity():
    codes = np.array([3, 3, 3, 5, 5, 5, 3, 3, 5, 5])
    assert units.perplexity(codes) == pytest.approx(2)
    assert units.bit_rate([codes[:4], codes[4:]], 2.0) == pytest.approx(5)
    assert units.collapse(codes).tolist() == [3, 5, 3, 5]
    assert units.collapse(codes[:0]).tolist() == []
    assert units.bit_rate([units.collapse(codes)], 2.0) == pytest.approx(2)
    assert units.perplexity(np.zeros(5)) == pytest.approx(1)


def test_steps_belong_to_the_phone_their_centre_lies_in():
    grid = units.Grid(0.032, 0.008)
    assert grid.times(3) == pytest.approx([0.008, 0.040, 0.072])
    phones = [Interval("SIL", 0, 0.02), Interval("AA", 0.02, 0.072), Interval("B", 0.072, 0.2)]
    assert units.label_steps(phones, 4, grid).tolist() == ["", "AA", "B", "B"]
    assert grid.span(5, 6, 4) == (4, 4)


def _plain_dtw(a, b):
    """Return every path's best, by the book: cost, then length."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    local = np.arccos(np.clip(unit[0] @ unit[1].T, -1, 1)) / np.pi
    best = {}
    for i in range(len(a)):
        for j in range(len(b)):
            before = [best[k] for k in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if k in best] or [(0.0, 0)]
            cost, steps = min(before)
            best[i, j] = (cost + local[i, j], steps + 1)
    cost, steps = best[len(a) - 1, len(b) - 1]
    return cost / steps


def test_time_warping_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    first = [rng.normal(size=(rng.integers(1, 20), 5)) for _ in range(80)]
    second = [rng.normal(size=(rng.integers(1, 20), 5)) for _ in range(70)]
    found = units.dtw_distances(first, second)
    expected = np.array([[_plain_dtw(a, b) for b in second[:9]] for a in first])
    assert found[:, :9] == pytest.approx(expected, abs=2e-6)
    turned = units.dtw_distances(second, first).T
    assert turned == pytest.approx(found)
    assert units.dtw_pairs(first[:70], second, batch=16) == pytest.approx(np.diag(found[:70]))
    same = units.dtw_distances(first[:1], first[:1])
    assert same[0, 0] == pytest.approx(0, abs=1e-6)


def test_one_hot_distance_counts_the_steps_that_differ():
    a, b = units.one_hot(np.array([1, 1, 2]), 4), units.one_hot(np.array([1, 3]), 4)
    # The shortest of the best paths: (1, 1), (1, 1), (2, 3).
    assert units.dtw_distances([a], [b])[0, 0] == pytest.approx(0.5 / 3, abs=1e-6)


def _tokens(values, speakers, phones):
    features = [np.array([v]) for v in values]
    found = [units.Token(p, "l", "r", s, n, 0, 1) for n, (s, p) in enumerate(zip(speakers, phones, strict=True))]
    return features, found


def test_abx_of_a_triple_made_by_hand():
    at = {angle: (math.cos(math.radians(angle)), math.sin(math.radians(angle))) for angle in (0, 10, 20, 25, 90)}
    # Of one speaker p at 0 and 20, q at 25; the other speaker says p at 10, q at 90.
    features, tokens = _tokens([at[0], at[20], at[25], at[10], at[90]], "ssstt", "ppqpq")
    result = units.abx_error(features, tokens)
    # Within, (p, q) of s: X at 0 is nearer to A at 20 than to q; X at 20 is nearer to q at 25 than to A at 0. (q, p): one q only.
    assert (result.within, result.n_within) == (pytest.approx(0.5), 1)
    # Across, A and B of s: X = p at 10, As 10 off, q 15 off: no error. X = q at 90: q is nearer than both ps: none.
    # A and B of t: X = p at 0 and 20: none; X = q at 25: A at 90 is 65 off, p at 10 is 15 off: wrong. (p, q): (0 + 0) / 2, (q, p): (0 + 1) / 2.
    assert (result.across, result.n_across) == (pytest.approx(0.25), 4)
    assert units.abx_error(features, tokens, in_context=False) == result


@pytest.mark.parametrize("in_context", [True, False])
def test_abx_at_its_ends(in_context):
    rng = np.random.default_rng(0)
    phones = [p for p in "pqr" for _ in range(60)]
    speakers = ["s", "t", "u"] * 60
    apart, tokens = _tokens(np.eye(3)[np.repeat(range(3), 60)] + 0.01 * rng.normal(size=(180, 3)), speakers, phones)
    clear = units.abx_error(apart, tokens, in_context)
    assert (clear.within, clear.across) == (0, 0)
    assert (clear.n_within, clear.n_across) == (18, 36)
    alike, tokens = _tokens(rng.normal(size=(180, 3)), speakers, phones)
    blind = units.abx_error(alike, tokens, in_context, max_tokens=20)
    assert blind.within == pytest.approx(0.5, abs=0.06)
    assert blind.across == pytest.approx(0.5, abs=0.06)
    tied = units.abx_error([np.ones((1, 3))] * 180, tokens, in_context)
    assert (tied.within, tied.across) == (0.5, 0.5)


def test_contexts_are_kept_apart():
    features, tokens = _tokens(np.eye(3), "sss", "pqp")
    assert math.isnan(units.abx_error(features, tokens[:2]).within)
    moved = [
        units.Token("p", "l", "r", "s", 0, 0, 1),
        *(units.Token(p, "k", "r", "s", n, 0, 1) for n, p in ((1, "q"), (2, "p"))),
    ]
    assert units.abx_error(features, moved).n_within == 0
    assert units.abx_error(features, moved, in_context=False).n_within == 1


def test_tokens_of_aligned_phones():
    grid = units.Grid(0.02, 0.0)
    said = [Interval(p, 0.1 * n, 0.1 * (n + 1)) for n, p in enumerate(("SIL", "AA", "B", "K", "+SPN+"))]
    phones = units.find_tokens([said], ["s"], [25], grid)
    assert [(t.previous, t.phone, t.following, t.start, t.end) for t in phones] == [
        ("SIL", "AA", "B", 5, 10),
        ("AA", "B", "K", 10, 15),
        ("B", "K", "SIL", 15, 20),
    ]
    triples = units.find_tokens([said], ["s"], [25], grid, triphones=True)
    assert [(t.phone, t.start, t.end) for t in triples] == [("B", 5, 20)]


def test_words_are_told_apart_across_speakers():
    rng = np.random.default_rng(0)
    shapes = {label: rng.normal(size=(8, 4)) for label in "abcdef"}
    known = [(s, label) for s in "st" for label in shapes]
    words = [units.Word(label, s, "the prompt", n, 0, 8) for n, (s, label) in enumerate(known)]
    clear = units.word_error([shapes[label] for _, label in known], words, n_others=3)
    assert (clear.abx, clear.nearest, clear.n) == (0, 0, 12)
    tied = units.word_error([np.ones((8, 4))] * 12, words, n_others=3)
    assert (tied.abx, tied.nearest) == (0.5, 0.75)
    assert math.isnan(units.word_error([shapes["a"]] * 6, words[:6]).abx)


def test_the_probe_finds_speakers_only_where_they_are():
    rng = np.random.default_rng(0)
    speakers = [s for s in "abcd" for _ in range(6)]
    free = [rng.integers(0, 40, 200) for _ in speakers]
    share, chance = units.probe_speaker(free, speakers, 40)
    assert chance == 0.25
    assert share == pytest.approx(chance, abs=0.05)
    # Each speaker has ten codes of their own.
    own = [rng.integers(0, 10, 200) + 10 * "abcd".index(s) for s in speakers]
    assert units.probe_speaker(own, speakers, 40)[0] > 0.99
    nothing = [np.zeros(200, dtype=bool) for _ in speakers[:-1]]
    with pytest.raises(DataError, match="1 speakers have two recordings"):
        units.probe_speaker(own[:7], speakers[:7], 40, nothing)


def test_transcripts_are_read_as_a_dictionary_writes_them():
    said = normalize_transcript("It\u2019s super-imposed, 'twas 21 of 1905!")
    assert " ".join(said) == "it's super imposed twas twenty one of one thousand nine hundred five"
    assert spell_number(700040) == "seven hundred thousand forty"


def _clips():
    with (CLIPS / "manifest.csv").open(newline="") as opened:
        return {row["path"]: row["transcript"] for row in csv.DictReader(opened)}


@needs_pocketsphinx
def test_a_clip_is_aligned(speech):
    transcript = _clips()["source.flac"]
    found = align(speech, transcript)
    assert [w.label for w in found.words] == normalize_transcript(transcript)
    assert [p.label for p in found.phones if p.label not in SILENT_PHONES][:8] == ["DH", "AH", "N", "AO", "R", "S", "M", "IH"]
    for intervals in found.phones, found.words:
        assert all(a.end_s <= b.start_s + 1e-9 for a, b in itertools.pairwise(intervals))
        assert intervals[-1].end_s <= len(speech) / 16000
    # Fricatives lie higher than nasals: zero crossings tell.
    crossings = {"S": [], "M": [], "N": []}
    for phone in found.phones:
        cut = speech[round(phone.start_s * 16000) : round(phone.end_s * 16000)]
        crossings.get(phone.label, []).append(np.mean(np.diff(np.signbit(cut))))
    assert min(crossings["S"]) > 2 * max(crossings["M"] + crossings["N"])


@needs_pocketsphinx
def test_what_cannot_be_aligned_is_named(speech):
    with pytest.raises(DataError, match="dictionary lacks xyzzy of 'Say xyzzy'"):
        align(speech, "Say xyzzy")
    with pytest.raises(DataError, match="has no words"):
        align(speech, " ... ")
    with pytest.raises(DataError, match=r"0.1 s of sound could not be aligned with 'The Norsemen"):
        align(speech[:1600], _clips()["source.flac"])


def test_the_aligner_that_is_missing_is_named(speech, monkeypatch):
    from vcae.evaluation import alignment

    monkeypatch.setattr(alignment.importlib.util, "find_spec", lambda _: None)
    alignment._decoder.cache_clear()
    with pytest.raises(DataError, match=r"alignment needs pocketsphinx.*pip install"):
        align(speech, "words")


@needs_pocketsphinx
def test_the_recipe(tmp_path):
    """Three clips as they are, and a little faster as if by another speaker."""
    with (tmp_path / "manifest.csv").open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "speaker", "corpus", "split", "duration_s", "transcript"])
        for name, transcript in _clips().items():
            wav, rate = soundfile.read(CLIPS / name, dtype="float32")
            for speaker, pace in (("slow", 1.0), ("fast", 0.92)):
                path = f"{speaker}-{name}"
                soundfile.write(tmp_path / path, soxr.resample(wav, rate, round(rate * pace)), rate)
                for split in ("train", "dev"):
                    writer.writerow([path, speaker, split, split, len(wav) / rate, transcript])
    config = from_dict(AutoencoderConfig, {**TINY, "quantizer": {"codebook_size": 32, "n_stages": 2}})
    checkpoint.save(tmp_path / "random.safetensors", Autoencoder(config).eval())
    settings = [
        f"manifest={tmp_path / 'manifest.csv'}",
        f"output_dir={tmp_path / 'out'}",
        f"checkpoints=[{tmp_path / 'random.safetensors'}]",
        "peers=[mfcc-cmvn]",
        "codebook_size=32",
        "words_corpora=[dev]",
        "words_prompts=3",
    ]
    done = run("recipes/units/evaluate.py", "recipes/units/conf/base.yaml", *settings)
    assert done.returncode == 0, done.stderr
    assert "| random |" in done.stdout
    assert len(json.loads((tmp_path / "out/alignments.json").read_text())) == 6
    assert len(list((tmp_path / "out/peers").glob("*.npz"))) == 1
    systems = json.loads((tmp_path / "out/results.json").read_text())["systems"]
    peer, model = systems["k-means mfcc-cmvn"], systems["random"]
    assert peer["recordings"] >= 4
    assert model["codebook_size"] == 32
    assert peer["nmi"] > 0.2
    assert peer["abx_across"] < 0.4
    assert peer["word"] < 0.2
    assert 1 <= model["perplexity"] <= 32
    assert model["bit_s_collapsed"] <= model["bit_s"] <= 5 * 31.25 + 1e-6
    assert len(list(csv.DictReader((tmp_path / "out/results.csv").open()))) == 2
