"""The page of results holds what its data says, and the tool that writes both does so."""

import importlib
import json
import re
import sys

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
results = importlib.import_module("results")
sys.path.pop(0)

FOUND = {
    "n": {"a": 3, "b": 3},
    "means": {
        "a": {"whisper_wer": 0.0456, "distillmos": 2.516, "own_target": 0.9, "distillmos_source": 3.9},
        "b": {"whisper_wer": 1.0, "distillmos": None},
    },
    "differences": [{"system": "b", "less": "a", "score": "whisper_wer", "value": 0.9544, "low": 0.9, "high": 1.0, "pairs": 3}],
    "judges": {"whisper": "tiny.en", "own": "default 123"},
}


def test_the_page_holds_what_the_data_says():
    data = json.loads(results.DATA.read_text())
    page = results.PAGE.read_text()
    assert results.fill(page, results.tables(data)) == page
    places = set(re.findall(r"<!-- (\S+) -->", page)) - {"end"}
    assert set(results.tables(data)) == places


def test_figures_are_taken_in_and_shown():
    data = {}
    results.add(data, "conversion", FOUND, {"b": "other"})
    made = results.tables(data)
    assert made["conversion"].splitlines() == [
        "| system | n | WER, Whisper | DistillMOS |",
        "|---|---|---|---|",
        "| the sources as recorded | 3 |  | 3.90 |",
        "| a | 3 | .046 | 2.52 |",
        "| other | 3 | 1.000 |  |",
    ]
    assert made["conversion-differences"].splitlines()[2] == "| other | WER, Whisper | +0.954 | +0.900 | +1.000 |"
    assert data["conversion"]["judges"] == {"whisper": "tiny.en"}
    again = json.loads(json.dumps(FOUND))
    again["means"]["a"]["whisper_wer"] = 0.1
    results.add(data, "conversion", again, {"b": "other"})
    assert list(data["conversion"]["systems"]) == [results.SOURCE, "a", "other"]
    assert data["conversion"]["systems"]["a"]["whisper_wer"] == 0.1


def test_a_table_without_a_place_is_told():
    with pytest.raises(SystemExit, match="has 0 places <!-- codec -->"):
        results.fill("# Results", {"codec": "| a |"})
