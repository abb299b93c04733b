"""Words in a recording are found by their phones, and replaced in the same voice; the rest stays as it is."""

import json

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import vcae
from tests.conftest import CLIPS
from tests.test_transcribe import NUMBER, log_probs
from vcae.audio.f0 import estimate_f0
from vcae.audio.io import read_comment, resample
from vcae.audio.splice import write_spliced
from vcae.cli.app import app
from vcae.cli.edit import parse_replacement
from vcae.errors import AudioError, ConfigError, DataError
from vcae.text.change import Change, find_change, parse_change, widen
from vcae.text.edit import match_level
from vcae.text.spotting import find_phones

STEP_S = 0.032


def run(*words, code=0):
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done


def numbers(phones):
    return [NUMBER[phone] for phone in phones.split()]


def test_phones_are_found_with_their_steps():
    rows = log_probs(["", "S", "", "K", "K", "AE", "", "T", "", "D", "AO", "G", ""])
    (spot,) = find_phones(rows, numbers("K AE T"))
    assert spot.spans == ((3, 5), (5, 6), (7, 8))
    assert spot.score == pytest.approx(0)
    assert find_phones(rows, numbers("T AE K")) == []


def test_equal_phones_need_a_blank_between_them():
    assert len(find_phones(log_probs(["", "T", "", "T", ""]), numbers("T T"))) == 1
    assert find_phones(log_probs(["", "T", "T", ""]), numbers("T T")) == []


def test_the_better_one_of_two_that_overlap_is_found_and_all_that_do_not():
    rows = log_probs(["K", "AE", "T", "", "K", "AE", "", "", "K", "AE", "T"])
    assert [spot.start for spot in find_phones(rows, numbers("K AE T"))] == [0, 8]
    # One phone of three is another, which costs log(0.9 / (0.1 / 39)).
    spots = find_phones(log_probs(["", "K", "EH", "T", ""]), numbers("K AE T"))
    assert [spot.score for spot in spots] == [pytest.approx(-np.log(0.9 * 39 / 0.1) / 3)]


def test_words_that_both_texts_have_at_their_ends_stay():
    change = parse_change("see you on Monday", "see you on Friday!")
    assert (change.old, change.new) == (("M", "AH1", "N", "D", "IY0"), ("F", "R", "AY1", "D", "IY0"))
    assert change.before[:2] == ("S", "IY1")
    assert change.after == ()
    assert parse_change("the cat", "the the cat") == Change(
        ("DH", "AH0"), ("K", "AE1", "T"), ("DH", "AH0", "K", "AE1", "T"), ()
    )
    # A word of each is left.
    assert parse_change("the cat sat", "the sat") == Change(
        ("DH", "AH0"), ("K", "AE1", "T", "S", "AE1", "T"), ("S", "AE1", "T"), ()
    )


def test_words_to_replace_are_checked():
    with pytest.raises(ConfigError, match="replaced by themselves"):
        parse_change("Monday", "monday.")
    with pytest.raises(DataError, match="no English word"):
        parse_change("monday", "\u4f60\u597d")
    assert parse_replacement("a cat = a dog") == ("a cat", "a dog")
    for wrong in ("monday", "=friday", "monday=", "a=b=c"):
        with pytest.raises(ConfigError, match='give old and new words as "old=new"'):
            parse_replacement(wrong)


def test_a_word_that_is_spoken_twice_needs_a_choice():
    rows = log_probs(["", "K", "AE", "T", "", "DH", "AH", "", "K", "AE", "T", ""])
    change = Change((), ("K", "AE1", "T"), ("D", "AO1", "G"), ())
    with pytest.raises(
        DataError, match=r"'cat' was found 2 times, at 0\.03 s, 0\.26 s; choose one with nth, or give more words"
    ):
        find_change(rows, change, "cat", None, STEP_S)
    assert find_change(rows, change, "cat", 2, STEP_S).start == 8
    with pytest.raises(DataError, match="nth is 3; allowed are 1 to 2"):
        find_change(rows, change, "cat", 3, STEP_S)
    with pytest.raises(DataError, match="'dog' was not found in the recording"):
        find_change(rows, Change((), ("D", "AO1", "G"), (), ()), "dog", None, STEP_S)
    # The word before it says which one; only the cat is replaced.
    spot = find_change(rows, Change(("DH", "AH0"), *[("K", "AE1", "T")] * 2, ()), "the cat", None, STEP_S)
    assert (spot.start, spot.stop) == (8, 11)
    # The blank between the words goes with it.
    assert widen(rows, spot) == (7, 11)


def test_the_level_follows_the_neighbours_and_the_old_words():
    """The decoded sound has half the neighbours' level; the old words have a quarter of theirs."""
    wav, made = np.ones(900, np.float32), np.full(1000, 0.5, np.float32)
    wav[400:500] = 0.25
    matched = match_level(wav, made, (400, 500, 400, 600), 100, 20)
    assert matched[:400] == pytest.approx(1)
    assert matched[600:] == pytest.approx(1)
    assert matched[420:580] == pytest.approx(0.5)
    assert np.abs(np.diff(matched)).max() < 0.05


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """The clip at 44.1 kHz with two channels of 24 bits, before and after, and what the command reports."""
    folder = tmp_path_factory.mktemp("edit")
    own = vcae.read_sound(CLIPS / "source.flac")
    wav = resample(own.wav, own.sample_rate, 44100)
    soundfile.write(folder / "talk.flac", np.stack([wav, 0.5 * wav], axis=1), 44100, subtype="PCM_24")
    said = run("edit", folder / "talk.flac", "--replace", "rainbow=garden", "-o", folder / "other.flac", "--json")
    return folder / "talk.flac", folder / "other.flac", json.loads(said.stdout)


def test_a_word_is_replaced_and_nothing_else(edited):
    before, after, told = edited
    info = soundfile.info(after)
    assert (info.samplerate, info.channels, info.subtype) == (44100, 2, "PCM_24")
    old, new = (soundfile.read(path, dtype="int32")[0] for path in (before, after))
    # The clip says: the norsemen considered the rainbow as a bridge.
    assert told["rest_unchanged"]
    assert 1.2 < told["start_s"] < told["end_s"] < 2.1
    differ = np.flatnonzero((old[: len(new)] != new[: len(old)]).any(axis=1))
    assert abs(differ[0] / 44100 - told["start_s"]) < 0.02
    n_after = len(new) - round((told["new_end_s"] + 0.02) * 44100)
    assert np.array_equal(old[-n_after:], new[-n_after:])
    # The second channel keeps its level.
    part = new[round(told["start_s"] * 44100) : round(told["new_end_s"] * 44100)].astype(float)
    assert np.std(part[:, 1]) == pytest.approx(0.5 * np.std(part[:, 0]), rel=0.05)
    assert read_comment(after).startswith("edited by vcae")


def test_the_new_word_is_spoken_there_in_the_same_voice(edited):
    _, after, told = edited
    found = vcae.edit(after, "garden", "rainbow")
    assert found.times_s == pytest.approx((told["start_s"], told["new_end_s"]), abs=0.1)
    with pytest.raises(DataError, match="'rainbow' was not found"):
        vcae.edit(after, "rainbow", "garden")
    wav, rate = soundfile.read(after, dtype="float32")
    start, stop = (round(told[key] * 16000) for key in ("start_s", "new_end_s"))
    f0 = estimate_f0(resample(np.ascontiguousarray(wav[:, 0]), rate, 16000))
    inside, around = (
        f0[start // 256 : stop // 256],
        np.r_[f0[start // 256 - 50 : start // 256], f0[stop // 256 : stop // 256 + 50]],
    )
    assert np.median(inside[inside > 0]) == pytest.approx(np.median(around[around > 0]), rel=0.2)


def test_bad_input_gets_one_sentence(tmp_path):
    clip = CLIPS / "source.flac"
    for arguments, message in (
        ((clip, "--replace", "rainbow"), 'give old and new words as "old=new"'),
        (("-", "--replace", "a=b"), "cannot come from standard input"),
        ((clip, "--replace", "rainbow=\u4f60\u597d"), "has no English word"),
        ((clip, "--replace", "elephants=garden"), "'elephants' was not found in the recording"),
        ((tmp_path / "none.wav", "--replace", "a=b"), "does not exist"),
    ):
        done = run("edit", *arguments, "-o", tmp_path / "new.wav", code=2)
        assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "new.wav").exists()


def test_a_file_of_other_numbers_is_written_as_any_sound(tmp_path):
    rng = np.random.default_rng(0)
    wav = rng.normal(0, 0.1, 16000).astype(np.float32)
    soundfile.write(tmp_path / "float.wav", wav, 16000, subtype="FLOAT")
    assert not write_spliced(tmp_path / "new.wav", tmp_path / "float.wav", vcae.Sound(wav, 16000), (100, 200), "edited")
    made, _ = soundfile.read(tmp_path / "new.wav", dtype="float32")
    assert np.abs(made - wav).max() < 1e-4
    with pytest.raises(AudioError, match="exists"):
        write_spliced(tmp_path / "new.wav", tmp_path / "float.wav", vcae.Sound(wav, 16000), (100, 200), "edited")
