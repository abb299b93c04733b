"""Transcription: decoding, lexicon, files, and the command on real speech."""

import io
import itertools
import json
import re

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

import vcae
from tests.conftest import CLIPS
from vcae.cli.app import app
from vcae.errors import CheckpointError, ConfigError, DataError
from vcae.model.config import TranscriberConfig
from vcae.model.transcriber import LETTERS, PHONES, Transcriber
from vcae.text.ctc import WordSearch, collapse
from vcae.text.errors import count_edits, error_rate
from vcae.text.lexicon import Lexicon, load_lexicon, save_lexicon
from vcae.text.transcribe import transcribe_source
from vcae.text.transcript import FORMATS, Symbol, Transcript, format_transcript

SAID = "the norsemen considered the rainbow as a bridge over which the gods passed from earth to their home in the sky"
# Its phones by the pronouncing dictionary.
PHONES_SAID = (
    "DH AH N AO R S M IH N K AH N S IH D ER D DH AH R EY N B OW AE Z AH B R IH JH OW V ER W IH CH DH AH G AA D Z "
    "P AE S T F R AH M ER TH T UW DH EH R HH OW M IH N DH AH S K AY"
)
NUMBER = {phone: 1 + n for n, phone in enumerate(PHONES)}
# Words that differ in one phone, that begin alike, and that sound alike.
TOY = {"cat": "K AE T", "cats": "K AE T S", "sat": "S AE T", "a": "AH", "two": "T UW", "to": "T UW"}


def run(*words, code=0, stdin=None):
    done = CliRunner().invoke(app, [*map(str, words)], input=stdin)
    assert done.exit_code == code, done.output
    return done


def log_probs(path, sure=0.9):
    """Return (T, 40): each step has its phone ('' for a blank) with a probability, and the rest for all others."""
    rows = np.full((len(path), 1 + len(PHONES)), (1 - sure) / len(PHONES))
    for row, phone in zip(rows, path, strict=True):
        row[NUMBER.get(phone, 0)] = sure
    return np.log(rows)


def toy(bigrams=None):
    words = list(TOY)
    said = [(n, [NUMBER[p] for p in TOY[word].split()]) for n, word in enumerate(words)]
    unigrams = np.log(np.full(len(words), 1 / len(words)))
    return (
        words,
        said,
        unigrams,
        np.append(np.full(len(words), -0.5), 0.0),
        {(words.index(a), words.index(b)): p for (a, b), p in (bigrams or {}).items()},
    )


def found(lexicon, rows, **weights):
    search = WordSearch(lexicon, **weights)
    search.add(rows)
    return [word for word, _, _ in search.finish()]


def test_the_best_path_without_blanks_and_repetitions():
    rows = log_probs(["", "K", "K", "", "K", "AE", ""])
    assert collapse(rows) == [(NUMBER["K"], 1, 3), (NUMBER["K"], 4, 5), (NUMBER["AE"], 5, 6)]
    assert collapse(log_probs(["", ""])) == []


def test_edits():
    assert count_edits("kitten", "sitting") == 3
    assert count_edits("", "abc") == count_edits("abc", "") == 3
    assert error_rate([("abcd", "abcd"), ("ab", "cab")]) == pytest.approx(1 / 6)


def test_words_are_found_with_their_times():
    search = WordSearch(Lexicon(*toy()))
    search.add(log_probs(["", "K", "AE", "AE", "T", "", "", "S", "AE", "T", "T", ""]))
    assert search.finish() == [("cat", 1, 5), ("sat", 7, 11)]


def test_sound_decides_between_words_that_begin_alike_and_the_lexicon_mends_a_phone():
    assert found(Lexicon(*toy()), log_probs(["K", "AE", "T", "S", "", "AH"])) == ["cats", "a"]
    rows = log_probs(["K", "AE", "T"])
    rows[1] = log_probs(["EH"], 0.6)[0]
    assert found(Lexicon(*toy()), rows) == ["cat"]


def test_the_language_model_decides_between_words_that_sound_alike():
    rows = log_probs(["AH", "", "T", "UW"])
    for word in ("to", "two"):
        assert found(Lexicon(*toy({("a", word): -0.01})), rows) == ["a", word]


def test_no_word_is_found_in_silence_and_an_unfinished_one_is_dropped():
    assert found(Lexicon(*toy()), log_probs([""] * 5)) == []
    assert found(Lexicon(*toy()), log_probs(["K", "AE", "T", "", "", "S", ""])) in (["cat"], ["cats"])


def test_the_search_finds_what_trying_everything_finds():
    """The likeliest of all sequences of up to three words, each scored by all its alignments' best."""
    lexicon, rng = Lexicon(*toy({("a", "cat"): -0.7})), np.random.default_rng(0)

    def best_alignment(phones, rows):
        states = [0, *itertools.chain.from_iterable((NUMBER[p], 0) for p in phones)]
        scores = np.full(len(states), -np.inf)
        scores[:2] = rows[0, states[:2]]
        for row in rows[1:]:
            new = np.maximum(scores, np.append(-np.inf, scores[:-1]))
            for s in range(2, len(states)):
                if states[s] and states[s] != states[s - 2]:
                    new[s] = max(new[s], scores[s - 2])
            scores = new + row[states]
        return scores[-2:].max()

    for _ in range(5):
        # Few phones are likely, so that nothing is left out of the beam.
        rows = rng.normal(0, 1.5, (7, 1 + len(PHONES)))
        rows[:, [n for p, n in NUMBER.items() if p not in ("K", "AE", "T", "S", "AH", "UW")]] -= 3
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        best, wanted = -np.inf, None
        for n in range(1, 4):
            for words in itertools.product(TOY, repeat=n):
                phones = " ".join(TOY[w] for w in words).split()
                numbers = [lexicon.words.index(w) for w in words]
                score = best_alignment(phones, rows) + sum(
                    0.8 * lexicon.log_probability(a, b) + 0.5 for a, b in itertools.pairwise([-1, *numbers])
                )
                if score > best:
                    best, wanted = score, list(words)
        assert found(lexicon, rows, beam=5000, language_weight=0.8, word_score=0.5) == wanted


def test_pieces_give_what_the_whole_gives():
    rows = log_probs(["K", "AE", "T", "", "S", "AE", "T", "", "AH"], 0.7)
    search = WordSearch(Lexicon(*toy()))
    for piece in np.array_split(rows, 4):
        search.add(piece)
    assert [word for word, _, _ in search.finish()] == found(Lexicon(*toy()), rows) == ["cat", "sat", "a"]


def test_a_lexicon_is_stored_and_damage_is_told(tmp_path):
    path = tmp_path / "toy.safetensors"
    metadata = json.dumps({"format": 1, "lexicon": {}, "info": {}})
    made = toy({("a", "cat"): -0.7, ("a", "sat"): -1.5, ("to", "cats"): -2.0})
    made[4][Lexicon.START, 2] = -3.0
    save_lexicon(path, *made, metadata)
    kept = load_lexicon(path)
    assert kept.words == list(TOY)
    for pair, likely in made[4].items():
        assert kept.log_probability(*pair) == pytest.approx(likely, abs=1 / 32)
    cat, a = (kept.words.index(word) for word in ("cat", "a"))
    assert kept.log_probability(a, cat) == pytest.approx(-0.7, abs=1 / 32)
    assert kept.log_probability(cat, a) == pytest.approx(made[2][0] - 0.5, abs=1 / 16)
    assert found(kept, log_probs(["K", "AE", "T"])) == ["cat"]
    words, said, *rest = made
    save_lexicon(tmp_path / "bad.safetensors", words[:2], said, *rest, metadata)
    with pytest.raises(CheckpointError, match=r"bad.safetensors is a damaged lexicon"):
        load_lexicon(tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match="holds no lexicon"):
        load_lexicon("denoiser")


def test_the_network_ignores_padding():
    network = Transcriber(TranscriberConfig(latent_dim=6, width=16, n_blocks=2)).eval()
    latent = torch.randn(1, 6, 30)
    padded = torch.cat([latent, torch.randn(1, 6, 9)], dim=2)
    mask = (torch.arange(39) < 30).float()[None, None]
    phones, letters = network(latent)
    assert phones.shape == (1, 1 + len(PHONES), 30)
    assert letters.shape == (1, 1 + len(LETTERS), 30)
    torch.testing.assert_close(phones.exp().sum(1), torch.ones(1, 30))
    for made, wanted in zip(network(padded, mask), (phones, letters), strict=True):
        torch.testing.assert_close(made[..., :30], wanted, atol=1e-5, rtol=0)


TALK = Transcript("talk", "words", (Symbol("one", 0.1, 0.5), Symbol("two", 0.6, 1.0), Symbol("three", 2.5, 3.0)), 4.0)


def test_files():
    assert format_transcript(TALK, "text") == "one two three\n"
    read = json.loads(format_transcript(TALK, "json"))
    assert (read["text"], read["words"][1]) == ("one two three", {"label": "two", "start_s": 0.6, "end_s": 1.0})
    assert format_transcript(TALK, "srt") == (
        "1\n00:00:00,100 --> 00:00:01,000\none two\n\n2\n00:00:02,500 --> 00:00:03,000\nthree\n\n"
    )
    assert format_transcript(TALK, "vtt").startswith("WEBVTT\n\n00:00:00.100 --> 00:00:01.000\none two\n\n")
    from praatio.utilities.textgrid_io import parseTextgridStr

    (tier,) = parseTextgridStr(format_transcript(TALK, "textgrid"), includeEmptyIntervals=False)["tiers"]
    assert [(float(a), float(b), label) for a, b, label in tier["entries"]] == [
        (s.start_s, s.end_s, s.label) for s in TALK.symbols
    ]
    with pytest.raises(DataError, match="cannot be written as 'docx'; allowed are text"):
        format_transcript(TALK, "docx")


def test_subtitles_are_short():
    many = Transcript("x", "words", tuple(Symbol("word", 0.3 * n, 0.3 * n + 0.25) for n in range(100)), 31.0)
    cues = many.cues()
    assert all(end - start <= 6.3 and len(text) <= 85 for start, end, text in cues)
    assert " ".join(text for _, _, text in cues) == many.text
    spelled = Transcript("x", "letters", tuple(Symbol(c, 0.1 * n, 0.1 * n + 0.1) for n, c in enumerate("ab cd" * 20)), 10.0)
    assert " ".join(text for _, _, text in spelled.cues()).split() == spelled.text.split()


@pytest.fixture(scope="module")
def heard(model, speech):
    """The bundled clip as words, phones and letters."""
    sound = vcae.Sound(speech, 16000)
    return {kind: transcribe_source(model, sound, kind) for kind in ("words", "phones", "letters")}


def test_real_speech_is_read(heard, speech):
    """A clip of a speaker that was not trained on: far from perfect, and nearer to what is said than to what another clip says."""
    other = "six spoons of fresh snow peas five thick slabs of blue cheese and maybe a snack for her brother bob"
    assert error_rate([(SAID, heard["letters"].text)]) < 0.8 * error_rate([(other, heard["letters"].text)])
    assert error_rate([(PHONES_SAID.split(), [s.label for s in heard["phones"].symbols])]) < 0.5
    assert error_rate([(SAID, heard["letters"].text)]) < 0.5
    assert error_rate([(SAID.split(), heard["words"].text.split())]) < 0.85
    assert heard["words"].duration_s == pytest.approx(len(speech) / 16000)
    for made in heard.values():
        times = [(s.start_s, s.end_s) for s in made.symbols]
        assert all(0 <= a < b <= made.duration_s for a, b in times)
        assert all(b <= c + 1e-9 for (_, b), (c, _) in itertools.pairwise(times))
    assert {s.label for s in heard["phones"].symbols} <= set(PHONES)


def test_sections_give_what_the_whole_gives(model, speech, monkeypatch, heard):
    monkeypatch.setattr("vcae.text.transcribe.SECTION_S", 1.0)
    again = transcribe_source(model, vcae.Sound(speech, 16000), "phones")
    assert again.symbols == heard["phones"].symbols


def test_other_latents_and_unknown_kinds_are_refused(model, speech):
    with pytest.raises(ConfigError, match="as is 'haiku'; allowed are words, phones, letters"):
        transcribe_source(model, vcae.Sound(speech, 16000), "haiku")
    with pytest.raises(CheckpointError, match="the transcriber reads 64; use the checkpoint 'default'"):
        transcribe_source(vcae.load("vq-narrow", device="cpu"), vcae.Sound(speech, 16000))


def test_the_command(tmp_path, heard, clips):
    said = run("transcribe", clips["source"]).stdout
    assert said == heard["words"].text + "\n"
    data = clips["source"].read_bytes()
    assert run("transcribe", "-", "--as", "phones", stdin=data).stdout == heard["phones"].text + "\n"
    for form, suffix in FORMATS.items():
        out = tmp_path / f"talk{suffix}"
        run("transcribe", clips["source"], "-o", out, "-q")
        text = out.read_text()
        assert text == format_transcript(
            Transcript("source.flac", "words", heard["words"].symbols, heard["words"].duration_s), form
        )
    again = run("transcribe", clips["source"], "-o", tmp_path / "talk.srt", code=2)
    assert "exists; add --force" in again.stderr
    assert "suffix '.docx'; allowed are .txt" in run("transcribe", clips["source"], "-o", tmp_path / "x.docx", code=2).stderr


def test_several_and_a_folder(tmp_path, clips):
    folder = tmp_path / "in"
    folder.mkdir()
    wav, rate = soundfile.read(clips["source"])
    for name in "ab":
        soundfile.write(folder / f"{name}.wav", wav[: 2 * rate], rate)
    (folder / "bad.wav").write_text("no sound")
    out = tmp_path / "out"
    done = run("transcribe", folder, "--as", "letters", "--format", "vtt", "--out-dir", out, "--jobs", 1, "--json", code=1)
    assert json.loads(done.stdout)["transcribed"] == 2
    assert "bad.wav is not a sound file" in done.stderr
    assert sorted(p.name for p in out.iterdir()) == ["a.vtt", "b.vtt", "report.jsonl"]
    assert (out / "a.vtt").read_text() == (out / "b.vtt").read_text()
    assert re.match(r"WEBVTT\n\n00:00:0\d", (out / "a.vtt").read_text())
    assert (
        "2 recordings do not fit in one srt file"
        in run("transcribe", folder / "a.wav", folder / "b.wav", "--format", "srt", code=2).stderr
    )


def test_noise_is_no_crash(model):
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    made = transcribe_source(model, vcae.Sound(noise, 16000))
    assert made.duration_s == 1.0
    with io.StringIO() as out:
        out.write(format_transcript(made, "srt"))


def test_python_as_the_readme_says():
    made = vcae.transcribe(CLIPS / "source.flac", kind="phones")
    assert isinstance(made, vcae.Transcript)
    assert len(made.symbols) > 40
