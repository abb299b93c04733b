import csv
import importlib.util
import json
import math
import re
import shutil

import numpy as np
import pytest
import soundfile

from tests.conftest import CLIPS
from tests.test_cli import vcae as command
from vcae.errors import DataError
from vcae.evaluation.judges import EQUAL_ERROR_COSINE, INDEPENDENT, Column, OwnSpeaker, Pitch, Score, choose_judges, mean
from vcae.evaluation.pairs import Conversion, choose_own_pairs, choose_pairs, read_pairs, read_references, write_pairs
from vcae.evaluation.report import judge_pairs, table, write_report


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


def _needs(*packages):
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed; the extra eval brings it")


def test_pairs_round_trip(tmp_path, rows):
    write_pairs(tmp_path / "pairs.csv", rows)
    again = read_pairs(tmp_path / "pairs.csv")
    assert again == rows
    assert str(tmp_path) not in (tmp_path / "pairs.csv").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("converted,source\na,b\n", "no column 'target_ref'; it has converted, source"),
        ("converted,source,target_ref\n", "has no rows"),
        (
            "converted,source,target_ref\nsource.flac,source.flac,gone.wav\n",
            r"line 2 of .*target_ref .*gone.wav does not exist",
        ),
    ],
)
def test_bad_pairs_are_named(tmp_path, rows, text, message):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_pairs(tmp_path / "p.csv")
    with pytest.raises(DataError, match="does not exist; make one with the columns"):
        read_pairs(tmp_path / "q.csv")


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
    assert {p.source["speaker"] for p in pairs} == {p.judged["speaker"] for p in pairs} == set("abc")
    with pytest.raises(DataError, match=r"0 speakers of the split 'dev'.*17 s"):
        choose_pairs(manifest, "dev", 3, 0, 3.0, reference_s=17.0)


def test_own_pairs_are_three_recordings_of_one_speaker(manifest):
    for pair in choose_own_pairs(manifest, "dev", 9, 0, 3.0):
        rows = [pair.source, *pair.references, pair.judged]
        assert len({r["speaker"] for r in rows}) == 1
        assert len({r["path"] for r in rows}) == 3
    with pytest.raises(DataError, match="no speaker of the split 'dev'"):
        choose_own_pairs(manifest, "dev", 9, 0, 5.0)


def test_references_hold_the_seconds_asked_for(manifest):
    pair = choose_pairs(manifest, "dev", 1, 0, 3.0, reference_s=10.0)[0]
    clips = read_references(manifest.parent, pair, 10.0)
    assert sum(c.duration_s for c in clips) == pytest.approx(10.0)
    assert len(clips) == 3


def test_means_count_by_weight_and_leave_out_what_is_missing():
    assert mean([Score(0.5, 10), Score(1.0, 30), Score(math.nan, 5), Score(7.0, 0)]) == pytest.approx(0.875)
    assert math.isnan(mean([Score(math.nan)]))


def test_our_ears_tell_speakers_and_pitches_apart(model, rows):
    own = OwnSpeaker(model)
    unchanged, other = (own.score(row) for row in rows)
    assert unchanged["own_source"].value == pytest.approx(1.0, abs=1e-4)
    assert other["own_target"].value > unchanged["own_target"].value + 0.3
    pitch = Pitch()
    assert pitch.score(rows[1])["f0_semitones"].value + 3 < pitch.score(rows[0])["f0_semitones"].value


@_needs(*INDEPENDENT, "rapidfuzz")
def test_independent_judges_agree_with_the_ear(model, rows):
    """A recording judged against itself, and a speaker against herself."""
    judges, missing = choose_judges(model)
    assert not missing
    report = judge_pairs(rows, judges)
    means = report.means()
    unchanged, other = means["nothing"], means["the voice itself"]
    assert unchanged["per"] == unchanged["wer"] == 0
    assert unchanged["cosine_source"] == pytest.approx(1.0, abs=1e-4)
    assert (unchanged["accepted"], other["accepted"]) == (0, 1)
    assert unchanged["cosine_target"] < EQUAL_ERROR_COSINE < other["cosine_target"]
    assert other["per"] > 0.5
    assert 2 < unchanged["ovrl"] < 4.5


class _Fixed:
    columns = (Column("a", "A", "up", 1), Column("b", "B", "down", -1))

    def score(self, conversion):
        return {"a": Score(0.25 if conversion.label == "nothing" else 0.75), "b": Score(2.0)}


def test_the_page_plays_what_was_judged(tmp_path, rows):
    report = judge_pairs(rows, [_Fixed()], ["resemblyzer"])
    page = write_report(report, tmp_path / "report", {"checkpoint": "x"}, pictures=False)
    text = page.read_text()
    links = re.findall(r'src="([^"]+)"', text)
    assert len(links) == 6
    wav, rate = soundfile.read(page.parent / links[2])
    assert (rate, len(wav)) == (16000, soundfile.info(CLIPS / "source.flac").frames)
    assert "what &lt;is&gt; said" in text
    assert "Not scored by resemblyzer" in text
    assert not re.search(r"https?://", text)
    assert json.loads((page.parent / "means.json").read_text())["means"]["nothing"] == {"a": 0.25, "b": 2.0}
    assert table(report)[1:] == [["nothing", "0.250", "2.00*"], ["the voice itself", "0.750*", "2.00*"]]
    assert len(list(csv.DictReader((page.parent / "scores.csv").open()))) == 2


def test_pictures_are_drawn(tmp_path, rows):
    pytest.importorskip("matplotlib", reason="the extras train and eval bring it")
    page = write_report(judge_pairs(rows[:1], [_Fixed()]), tmp_path / "report", {})
    assert (page.parent / "media/000.png").stat().st_size > 20_000


def test_the_command(tmp_path, rows):
    write_pairs(tmp_path / "pairs.csv", rows)
    done = command("evaluate", "pairs.csv", "--no-pictures", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["n"] == 2
    assert said["means"]["nothing"]["own_source"] == pytest.approx(1.0, abs=1e-4)
    assert (tmp_path / said["page"]).is_file()
    shown = command("evaluate", "pairs.csv", "--no-pictures", "-o", "again", cwd=tmp_path)
    assert b"own cosine" in shown.stdout
    bad = command("evaluate", "nothing.csv", cwd=tmp_path)
    assert bad.returncode == 2
    assert b"nothing.csv does not exist" in bad.stderr
