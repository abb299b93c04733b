"""Tables of what is judged: their columns, their names for them, and what is wrong with them."""

import csv
import json
import shutil

import pytest

from tests.conftest import ROOT
from tests.test_cli import vcae as command
from vcae.errors import DataError
from vcae.evaluation.tables import CONVERSIONS, COPIES, Conversion, Copy, columns_text, read_table, read_tables, write_table


@pytest.fixture
def here(tmp_path, clips, monkeypatch):
    """A folder with four sounds, as the current one."""
    for name, clip in (("a", "source"), ("b", "reference"), ("c", "reference2"), ("d", "source")):
        shutil.copy(clips[clip], tmp_path / f"{name}.flac")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_tables_round_trip(here):
    a, b, c = (here / f"{n}.flac" for n in "abc")
    rows = [Conversion(a, b, c, "what <is>, said", "one"), Conversion(b, a, c)]
    write_table(here / "pairs.csv", rows)
    assert read_table(here / "pairs.csv").rows == rows
    assert str(here) not in (here / "pairs.csv").read_text()
    copies = [Copy(a, b, "said", "x"), Copy(b, a)]
    write_table(here / "copies.csv", copies)
    found = read_table(here / "copies.csv")
    assert (found.rows, found.copies, found.problems) == (copies, True, [])
    with pytest.raises(DataError, match="2 rows of 2 kinds"):
        write_table(here / "mixed.csv", [rows[0], copies[0]])


def test_the_columns_of_convert_are_understood(here):
    table = put(here / "t.csv", "source,speaker,output\na.flac,b.flac:0.7;c.flac:0.3,d.flac\n")
    assert read_table(table).rows == [Conversion(here / "d.flac", here / "a.flac", here / "b.flac")]
    assert read_table(table, copies=True).rows == [Copy(here / "d.flac", here / "a.flac")]


def test_a_report_of_convert_is_judged_as_it_is(here):
    """Made by the command itself, so that its columns are those that it writes."""
    (here / "in").mkdir()
    shutil.move("a.flac", "in/a.flac")
    (here / "in/broken.wav").write_text("no sound")
    done = command("convert", "in", "--speaker", "b.flac", "--out-dir", "out", "--jobs", 1, cwd=here)
    assert done.returncode == 1, done.stderr
    found = read_table(here / "out/report.jsonl")
    (row,) = found.rows
    assert [path.resolve() for path in row.files.values()] == [here / "in/a.flac", here / "b.flac", here / "out/a.wav"]
    (problem,) = found.problems
    assert "not made, so not judged" in problem
    assert "broken.wav" in problem


def test_of_a_file_made_twice_the_last_line_counts_and_voices_are_told(here):
    lines = [
        {"source": "a.flac", "speakers": ["b.flac"], "output": "d.flac", "status": "failed", "reason": "no"},
        {"source": "a.flac", "speakers": ["alice"], "output": "d.flac", "status": "converted"},
    ]
    report = put(here / "report.jsonl", "\n".join(map(json.dumps, lines)) + '\n{"source": "a.fl')
    found = read_table(report)
    assert found.rows == [Conversion(here / "d.flac", here / "a.flac", None)]
    assert found.problems == [f"line 2 of {report}: 'alice' is not a sound file, so the voice is not compared with the target"]


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_wrong_header_names_the_columns(here, name):
    text = "converted,source\na.flac,b.flac\n" if name == "t.csv" else '{"converted": "a.flac", "source": "b.flac"}'
    with pytest.raises(DataError) as error:
        read_table(put(here / name, text))
    said = str(error.value)
    assert "has the columns converted, source and lacks target_ref" in said
    assert columns_text(CONVERSIONS) in said
    assert columns_text(COPIES) in said


def test_help_and_documentation_name_every_column():
    said = " ".join(command("evaluate", "--help").stdout.decode().replace("│", " ").split())
    documented = (ROOT / "docs/evaluate.md").read_text()
    for field in (*CONVERSIONS, *COPIES):
        for name in (field.name, *field.aliases):
            assert name in said, name
            assert f"`{name}`" in documented, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows; give a row for each file to judge"),
        ("converted,source,target_ref\n", "has no rows"),
        ('converted,source,target_ref\n"a.flac,b.flac,c.flac\n', "is not a CSV"),
        (b"\xff\xfe\x00bad", "cannot be read .it is not a text file."),
    ],
)
def test_what_is_no_table_is_one_line(here, text, message):
    path = here / "t.csv"
    path.write_bytes(text) if isinstance(text, bytes) else path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_table(path)
    with pytest.raises(DataError, match="does not exist; make one: conversions have converted"):
        read_table(here / "none.csv")


def test_a_row_whose_file_is_gone_is_told_and_the_rest_is_there(here):
    lines = ["a.flac,gone.wav,c.flac", "a.flac,b.flac,c.flac", "a.flac,,c.flac", "a.flac,b.flac,gone.wav", "a.flac,b.flac,"]
    found = read_table(put(here / "t.csv", "converted,source,target_ref\n" + "\n".join(lines)))
    assert found.rows == [Conversion(here / "a.flac", here / "b.flac", here / "c.flac")]
    reasons = [problem.partition(" of ")[0] + ": " + problem.partition(": ")[2] for problem in found.problems]
    assert reasons[0].startswith(f"line 2: the source {here / 'gone.wav'} does not exist")
    assert reasons[1].startswith("line 4: no source is given")
    assert reasons[2].startswith(f"line 5: the target_ref {here / 'gone.wav'} does not exist")
    assert reasons[3].startswith("line 6: no target_ref is given")


def test_tables_that_share_labels_are_told_apart_by_name(here):
    head = "converted,source,target_ref,label\n"
    one = put(here / "x/pairs.csv", head + "../a.flac,../b.flac,../c.flac,v\n../b.flac,../a.flac,../c.flac,w\n")
    two = put(here / "y/pairs.csv", head + "../d.flac,../b.flac,../c.flac,v\n")
    assert [row.label for row in read_tables([one, two]).rows] == ["x: v", "x: w", "y"]
    assert [row.label for row in read_tables([one]).rows] == ["v", "w"]
    other = put(here / "other.csv", head + "d.flac,b.flac,c.flac,z\n")
    assert [row.label for row in read_tables([two, other]).rows] == ["v", "z"]


def test_a_wrong_table_among_others_is_told(here):
    good = put(here / "good.csv", "converted,source,target_ref\na.flac,b.flac,c.flac\n")
    copies = put(here / "copies.csv", "degraded,reference\na.flac,b.flac\n")
    found = read_tables([good, copies, here / "none.csv"])
    assert len(found.rows) == 1
    assert "lists copies where the table before lists conversions" in found.problems[0]
    assert "none.csv does not exist" in found.problems[1]
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        read_tables([here / "none.csv"])


def test_rows_of_a_spreadsheet_are_read(here):
    path = here / "t.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as opened:
        csv.writer(opened).writerows([["converted", "source", "target_ref"], ["a.flac", "b.flac", "c.flac", "more"]])
    assert len(read_table(path).rows) == 1
