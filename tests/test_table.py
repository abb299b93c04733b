import os
import unicodedata

import pytest

from vcae.batch.jobs import plan_table
from vcae.table import find_path, read_table

WANTED = ("source", "speaker")
PLAIN = "source,speaker,note\na.wav,Jos\u00e9.wav,x\n\nb.wav,alice,\n"


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        PLAIN.encode("utf-16-be"),
        PLAIN.encode("cp1252"),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace(",", "|").encode(),
        ("sep=;\n" + PLAIN.replace(",", ";")).encode("utf-8-sig"),
        ('"sep=,"\r\n' + PLAIN.replace("\n", "\r\n")).encode(),
        PLAIN.replace("source,speaker", " Source , SPEAKER ").encode(),
        PLAIN.replace("\n\n", "\n,,\n  ,\t,\n\n").encode(),
        PLAIN.replace("a.wav", '"a.wav"').replace("\n", "\r").encode(),
    ],
)
def test_the_same_table_whatever_wrote_it(tmp_path, data):
    path = tmp_path / "t.csv"
    path.write_bytes(data)
    table = read_table(path, WANTED)
    assert table.columns == ("source", "speaker", "note")
    assert [row for _, row in table.rows] == [
        {"source": "a.wav", "speaker": "Jos\u00e9.wav", "note": "x"},
        {"source": "b.wav", "speaker": "alice", "note": ""},
    ]


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('sep=,\nsource,speaker\n\na.wav,"two\nlines"\nb.wav,x\n')
    assert [number for number, _ in read_table(path, WANTED).rows] == [5, 6]


def test_a_column_with_separators_in_it(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('source;speaker\na.wav;"x.wav:0.5;y.wav:0.5"\n')
    assert plan_table(path, tmp_path / "out")[0].speakers == ("x.wav:0.5", "y.wav:0.5")


def test_paths_of_other_machines(tmp_path, monkeypatch):
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "a.wav").write_bytes(b"x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_path("day\\a.wav", tmp_path) == tmp_path / "day" / "a.wav"
    assert find_path("~/day/a.wav", tmp_path / "else") == tmp_path / "day" / "a.wav"
    assert find_path("day\\none.wav", tmp_path) == tmp_path / "day" / "none.wav"
    for there, asked in (("NFC", "NFD"), ("NFD", "NFC")):
        name = tmp_path / unicodedata.normalize(there, f"{there}-\u00e9t\u00e9.wav")
        name.write_bytes(b"x")
        assert find_path(unicodedata.normalize(asked, name.name), tmp_path).samefile(name)


def test_outputs_of_such_paths_stay_below(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("source;output\nday\\a.wav;\n~/b.wav;\nc.wav;x\\c.flac\n")
    jobs = plan_table(path, tmp_path / "out", ("v",), columns=("source",))
    assert [os.path.relpath(job.output, tmp_path / "out") for job in jobs] == ["day/a.wav", "b.wav", "x/c.flac"]
