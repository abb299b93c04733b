"""Discrete units: their files, their times, and speech from them, as users meet it."""

import io
import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from tests.conftest import CLIPS, TINY
from tests.forked import python
from vcae import checkpoint
from vcae.audio.io import Sound, read_sound
from vcae.config import from_dict
from vcae.errors import CheckpointError, ConfigError, DataError
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import AutoencoderConfig
from vcae.model.prosody import Contour
from vcae.options import SpeakOptions
from vcae.tasks.model import load
from vcae.tasks.unit_files import Units, count_steps, format_units, parse_units, read_units
from vcae.tasks.units import check_units, clean_voicing, contour_f0, encode_units, round_durations, speak_units
from vcae.vocoder.config import VocoderConfig
from vcae.vocoder.neural import HarmonicNoiseVocoder
from vcae.voice.voice import voice_from_sounds

N_CODES = 16
UNITS = {"quantizer": {"codebook_size": N_CODES}, "prosody": {"width": 16, "n_blocks": 2}}
SHA = "ab" * 32


def vcae(*args, cwd=None, stdin=None):
    return subprocess.run([*python(), "-m", "vcae", *map(str, args)], cwd=cwd, input=stdin, capture_output=True)


def run(*args, stdin=None):
    """The command in this process: as `vcae`, without a second of imports."""
    from vcae.cli.app import app

    return CliRunner().invoke(app, [*map(str, args)], input=stdin, catch_exceptions=False)


def _save(path, config):
    torch.manual_seed(0)
    autoencoder = Autoencoder(from_dict(AutoencoderConfig, TINY | config)).eval()
    vocoder = HarmonicNoiseVocoder(from_dict(VocoderConfig, {"width": 16, "n_blocks": 2})).eval()
    checkpoint.save(path, autoencoder, vocoder, {"author": "a test"})
    return path


@pytest.fixture(scope="module")
def tiny_vq_checkpoint(tmp_path_factory):
    return _save(tmp_path_factory.mktemp("vq") / "tiny.safetensors", UNITS)


@pytest.fixture(scope="module")
def tiny_vq(tiny_vq_checkpoint):
    return load(tiny_vq_checkpoint, "cpu")


@pytest.fixture(scope="module")
def heard(tiny_vq):
    return {name: encode_units(tiny_vq, read_sound(CLIPS / f"{name}.flac")) for name in ("source", "reference")}


@pytest.fixture(scope="module")
def voice(tiny_vq):
    return voice_from_sounds(tiny_vq, [read_sound(CLIPS / "reference.flac")])


# ---- Times


def test_units_are_one_a_step_and_name_their_checkpoint(tiny_vq, heard, speech):
    units = heard["source"]
    assert len(units.units) == count_steps(len(speech), 0.032) == -(-(1 + len(speech) // 256) // 2)
    assert units.lengths == (1,) * len(units.units)
    assert (units.n_samples, units.step_s, units.codebook_size) == (len(speech), 0.032, N_CODES)
    assert (units.checkpoint, units.sha256) == ("tiny", tiny_vq.checkpoint.sha256)
    assert set(units.units) <= set(range(N_CODES))


@pytest.mark.parametrize("n_samples", [8000, 8191, 8192, 8193, 8447, 8448, 8449, 8703, 8704])
def test_steps_cover_the_recording(n_samples):
    """Half a frame before its first frame's centre to half a frame after its last one's; the ends are the recording's."""
    n = count_steps(n_samples, 0.032)
    times = Units("a", tuple(range(n)), (1,) * n, n_samples).times()
    assert n == math.ceil((1 + n_samples // 256) / 2)
    assert times[0] == (0.0, 0.024)
    assert times[1] == (0.024, 0.056)
    assert times[-1][1] == pytest.approx(n_samples / 16000, abs=1e-7)
    assert all(a[1] == b[0] for a, b in itertools.pairwise(times))
    assert all(end > start for start, end in times)


def test_collapse_merges_runs_and_their_times():
    units = Units("a", (5, 5, 5, 2, 2, 5), (1,) * 6, 2900)
    collapsed = units.collapse()
    assert (collapsed.units, collapsed.lengths) == ((5, 2, 5), (3, 2, 1))
    assert collapsed.times() == [(0.0, 0.088), (0.088, 0.152), (0.152, 0.18125)]
    assert collapsed.collapsed
    assert not units.collapsed
    assert collapsed.collapse() == collapsed
    assert Units("a", (5, 5, 2), None, None).collapse().units == (5, 2)
    with pytest.raises(DataError, match="without times"):
        Units("a", (5,), None, None).times()


# ---- Files


@pytest.mark.parametrize("collapse", [False, True])
@pytest.mark.parametrize("form", ["jsonl", "textgrid"])
def test_files_with_times_come_back_whole(heard, form, collapse):
    units = heard["source"].collapse() if collapse else heard["source"]
    back = parse_units(format_units([units], form), "a.file")
    assert [replace(b, where="") for b in back] == [units]


@pytest.mark.parametrize("n_samples", [8192, 8300, 8447, 8448, 8703])
@pytest.mark.parametrize("form", ["jsonl", "textgrid"])
def test_every_length_comes_back(n_samples, form):
    n = count_steps(n_samples, 0.032)
    units = Units("a", tuple(i // 3 % 4 for i in range(n)), (1,) * n, n_samples, 0.032, 4, "vq", SHA).collapse()
    (back,) = parse_units(format_units([units], form), "a")
    assert (back.lengths, back.n_samples) == (units.lengths, n_samples)


def test_text_comes_back_without_times(heard):
    several = [heard["source"], heard["reference"], heard["source"].collapse()]
    text = format_units(several, "text")
    head = f"# vcae units 1 checkpoint=tiny sha256={several[0].sha256} codebook_size=16 step_s=0.032 collapsed="
    assert [line for line in text.split("\n") if line.startswith("#")] == [head + "false", head + "true"]
    back = parse_units(text, "a.txt")
    assert [b.units for b in back] == [u.units for u in several]
    assert [b.name for b in back] == [u.name for u in several]
    assert [b.sha256 for b in back] == [several[0].sha256] * 3
    assert back[0].lengths == several[0].lengths
    assert back[2].lengths is None


@pytest.mark.parametrize("name", ['a "b" [1].wav', "item [1]: intervals [2].wav", "ü/é\u2028x.wav", "#1.wav", "12"])
@pytest.mark.parametrize("form", ["jsonl", "textgrid", "text"])
def test_odd_names(name, form):
    made = Units(name, (1, 1, 2), (1, 1, 1), 1100, 0.032, 4, "my vq", SHA)
    (back,) = parse_units(format_units([made], form), "a")
    assert back.units == (1, 1, 2)
    assert back.checkpoint == "my vq"
    assert back.name.removeprefix("./") == (" ".join(name.split()) if form == "text" else name)


def test_bare_numbers():
    repeated, runs, tabs = parse_units("7 7 3\n7 3 7\n1\t2\t3\n", "stdin")
    assert (repeated.units, repeated.lengths) == ((7, 7, 3), (1, 1, 1))
    assert (runs.units, runs.lengths, runs.sha256) == ((7, 3, 7), None, None)
    assert tabs.units == (1, 2, 3)
    assert [u.name for u in (repeated, runs, tabs)] == ["line-1", "line-2", "line-3"]


def test_textgrids_edited_elsewhere(heard, tmp_path):
    """Praat writes UTF-16, with its own tiers, and boundaries go where the mouse goes."""
    text = format_units([Units("ä.wav", (4, 2, 9), (3, 2, 4), 4400, 0.032, 16, "vq", SHA)], "textgrid")
    (tmp_path / "a.TextGrid").write_bytes(text.replace("0.088", "0.1", 2).encode("utf-16"))
    (moved,) = read_units(tmp_path / "a.TextGrid")
    assert (moved.units, moved.lengths, moved.n_samples, moved.name) == ((4, 2, 9), (3, 2, 4), 4400, "ä.wav")
    foreign = text.replace('name = "vcae"', 'name = "words"')
    (bare,) = parse_units(foreign, "x/b.TextGrid")
    assert (bare.sha256, bare.name, bare.lengths, bare.n_samples) == (None, "b", (3, 2, 4), 4400)
    (swallowed,) = parse_units(text.replace("0.152", "0.0881", 2), "a")
    assert (swallowed.lengths, swallowed.n_samples) == ((3, 1, 5), 4400)


def test_edited_json_keeps_what_fits():
    (longer,) = parse_units('{"units": [1, 2, 3, 4], "n_samples": 1000, "collapsed": false}', "a")
    assert (longer.lengths, longer.n_samples) == ((1, 1, 1, 1), None)
    (bare,) = parse_units('{"units": [1, 2, 1], "collapsed": true}', "a")
    assert (bare.lengths, bare.name) == (None, "line-1")


MISTAKES = {
    "empty": ("", "holds no units"),
    "blanks": (" \n\n", "holds no units"),
    "only comments": ("# hello\n", "only comments"),
    "empty line": ("1 2\n\n3\n", "line 2 is empty"),
    "empty sequence": ("# vcae units 1 codebook_size=16\na.wav\t1\nb.wav\t\n", "line 3 is empty"),
    "word": ("1 2\n3 four 5\n", "line 2, unit 2: 'four' is not a number"),
    "fraction": ("1 2.5\n", "line 1, unit 2: '2.5' is not a number"),
    "version": ("# vcae units 2 codebook_size=16\n1 2\n", "version '2'; this version of vcae reads 1"),
    "json": ('{"units": [1]}\n{"units": [1\n', "line 2 is not JSON"),
    "json without units": ('{"codes": [1]}', "no list of units"),
    "json empty": ('{"units": [1]}\n{"units": []}', "line 2 is empty"),
    "json text": ('{"units": [1, "2"]}', 'unit 2: "2" is not a number'),
    "json bool": ('{"units": [1, true]}', "unit 2: true is not a number"),
    "times missing": ('{"units": [1, 2], "start_s": [0, 1]}', "0 times in end_s for 2 units"),
    "times nan": ('{"units": [1], "start_s": [NaN], "end_s": [1]}', "start_s is nan"),
    "gap": (
        '{"units": [1, 2], "start_s": [0, 1], "end_s": [0.5, 2]}',
        "unit 2: it starts at 1 s and the one before ends at 0.5 s",
    ),
    "backwards": ('{"units": [1, 2], "start_s": [0, 1], "end_s": [1, 0.5]}', "unit 2: it ends at 0.5 s, before"),
    "step": ('{"units": [1], "step_s": 0}', "step_s is 0"),
    "damaged TextGrid": ('File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\n', "damaged TextGrid"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_bad_file_says_where(case):
    text, message = MISTAKES[case]
    with pytest.raises(DataError) as raised:
        parse_units(text, "a.txt")
    assert message in str(raised.value)
    assert str(raised.value).startswith("a.txt")


def test_textgrid_mistakes():
    text = format_units([Units("a", (4, 2), (3, 2), None, 0.032, 16, "vq", SHA)], "textgrid")
    for old, new, message in (
        ('name = "units"', 'name = "phones"', "no tier called 'units', only 'phones', 'vcae'"),
        ('text = "4"', 'text = ""', "unit 1: the interval from 0 to 0.088 s is empty"),
        ('text = "4"', 'text = "ah"', "unit 1: 'ah' is not a number"),
        ('{""file""', '{""file', "tier 'vcae' is damaged"),
    ):
        assert old in text
        with pytest.raises(DataError, match=r"^a\.TextGrid") as raised:
            parse_units(text.replace(old, new), "a.TextGrid")
        assert message in str(raised.value)
    with pytest.raises(DataError, match="holds one recording, not 2"):
        format_units([Units("a", (1,), (1,), None)] * 2, "textgrid")


# ---- Speech


def test_durations_are_rounded_with_their_total_kept():
    assert round_durations([1.4] * 10) == (1, 2, 1, 2, 1, 1, 2, 1, 2, 1)
    assert sum(round_durations([2.3, 0.9, 3.7, 1.1] * 50)) == 400
    assert round_durations([0.1, 0.1, 4.8]) == (1, 1, 3)


def test_voicing_is_cleaned_of_stretches_under_three_frames():
    def clean(text):
        return "".join("v" if v else "." for v in clean_voicing(torch.tensor([c == "v" for c in text])).tolist())

    assert clean("vvvv..vvvv") == "vvvvvvvvvv"
    assert clean("vvvv...vvv") == "vvvv...vvv"
    assert clean("...vv....v") == ".........."
    assert clean("..vvv") == "..vvv"
    assert clean("vvv.") == "vvv."


def test_contours_stand_at_a_voices_median_smoothed_and_halved(voice):
    relative = torch.linspace(-0.3, 0.3, 61)[None]
    contour = Contour(torch.ones(1, 61), relative)
    own = replace(voice, log_f0_median=math.log(200.0))
    f0 = contour_f0(contour, own)
    assert float(f0[0, 30]) == pytest.approx(200, rel=1e-4)
    assert float(f0[0, 45] / f0[0, 15]) == pytest.approx(math.exp(0.15), rel=1e-3)
    jumping = replace(contour, relative_log_f0=torch.tensor([0.2, -0.2]).repeat(31)[None, :61])
    assert float(contour_f0(jumping, own)[0, 12:-12].log().std()) < 0.002
    assert float(contour_f0(contour, own, 12.0)[0, 30]) == pytest.approx(400, rel=1e-4)
    assert not contour_f0(contour, replace(own, log_f0_median=math.nan)).any()
    assert not contour_f0(replace(contour, voicing=-torch.ones(1, 61)), own).any()


def test_speech_is_as_long_as_the_recording(tiny_vq, heard, voice):
    source = heard["source"]
    spoken = speak_units(tiny_vq, source, voice)
    assert len(spoken.wav) == source.n_samples
    assert spoken.mel.shape[-1] == spoken.f0.shape[-1] == 1 + source.n_samples // 256
    collapsed = speak_units(tiny_vq, source.collapse(), voice)
    assert torch.equal(spoken.wav, collapsed.wav)
    assert torch.equal(spoken.wav, speak_units(tiny_vq, replace(source, sha256=None), voice, SpeakOptions(seed=0)).wav)


def test_predicted_durations(tiny_vq, heard, voice):
    source = heard["source"]
    predicted = speak_units(tiny_vq, source, voice, SpeakOptions(durations="predicted"))
    assert predicted.units.units == source.collapse().units
    assert all(length >= 1 for length in predicted.units.lengths)
    assert len(predicted.wav) == sum(predicted.units.lengths) * 512 - 256
    timeless = replace(source.collapse(), lengths=None, n_samples=None)
    assert torch.equal(predicted.wav, speak_units(tiny_vq, timeless, voice).wav)
    with pytest.raises(DataError, match="without times"):
        speak_units(tiny_vq, timeless, voice, SpeakOptions(durations="file"))


def test_one_unit_can_be_said(tiny_vq, voice):
    for n in (1, 2, 5):
        spoken = speak_units(tiny_vq, Units("a", (3,) * n, (1,) * n, None), voice)
        assert len(spoken.wav) == 512 * n - 256
        assert spoken.wav.isfinite().all()


def test_what_cannot_be_said(tiny_vq, voice, tmp_path):
    def check(units, message, error=DataError):
        with pytest.raises(error, match=message):
            speak_units(tiny_vq, units, voice)

    check(Units("a", (3, 16), (1, 1), None), "a, unit 2: there is no unit 16; this checkpoint has 0 to 15")
    check(Units("a", (-1,), None, None, where="x.txt, line 4"), "x.txt, line 4, unit 1: there is no unit -1")
    check(Units("a", (), (), None), "a is empty")
    check(Units("a", (1, 2), (1, 400000), None), r"400001 steps of 0.032 s; allowed are 337500 \(3 hours\)")
    check(Units("a", (1,), (1,), None, 0.032, 16, "vq", SHA), f"checkpoint vq \\({SHA[:12]}...\\), and the one in use is tiny")
    for setting in ({"pitch": "keep"}, {"pitch": "high"}, {"durations": "long"}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            SpeakOptions(**setting)
    mute = load(_save(tmp_path / "mute.safetensors", {"quantizer": {"codebook_size": 16}}), "cpu")
    with pytest.raises(CheckpointError, match="no prosody"):
        check_units(mute, Units("a", (1,), (1,), None))


# ---- Commands


def test_units_to_speech_through_a_pipe(tiny_vq_checkpoint, clips, speech):
    ours = ("--checkpoint", tiny_vq_checkpoint)
    made = vcae("units", clips["source"], *ours)
    assert (made.returncode, made.stderr) == (0, b"")
    said = json.loads(made.stdout)
    assert (said["file"], said["checkpoint"], said["codebook_size"], said["step_s"]) == ("source.flac", "tiny", N_CODES, 0.032)
    assert (said["n_samples"], said["collapsed"]) == (len(speech), False)
    assert said["duration_s"] == said["end_s"][-1] == pytest.approx(len(speech) / 16000, abs=1e-6)
    assert len(said["units"]) == len(said["start_s"]) == len(said["end_s"])
    spoken = vcae("speak", "-", "--speaker", clips["reference"], *ours, stdin=made.stdout)
    assert spoken.returncode == 0, spoken.stderr
    wav, rate = soundfile.read(io.BytesIO(spoken.stdout))
    assert (rate, len(wav)) == (16000, len(speech))
    assert b"wrote -" in spoken.stderr


@pytest.fixture
def folder(tmp_path, clips):
    """Recordings in folders, one of them damaged, and files that are none."""
    (tmp_path / "in" / "b").mkdir(parents=True)
    (tmp_path / "in" / "b" / "source.flac").write_bytes(clips["source"].read_bytes())
    wav, rate = soundfile.read(clips["reference"])
    soundfile.write(tmp_path / "in" / "a.wav", wav[:32000], rate)
    (tmp_path / "in" / "notes.txt").write_text("no sound")
    (tmp_path / "in" / ".hidden.wav").write_text("no sound")
    return tmp_path / "in"


@pytest.mark.parametrize("suffix", [".jsonl", ".txt", ".TextGrid"])
def test_a_folder_and_back(tiny_vq_checkpoint, folder, tmp_path, clips, suffix):
    ours = ("--checkpoint", tiny_vq_checkpoint, "--quiet")
    out = tmp_path / ("out" if suffix == ".TextGrid" else f"out{suffix}")
    chosen = ("--format", "textgrid") if suffix == ".TextGrid" else ()
    made = run("units", folder, "-o", out, "--collapse", *chosen, *ours)
    assert (made.exit_code, made.output) == (0, "")
    if suffix == ".TextGrid":
        assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == ["a.TextGrid", "b/source.TextGrid"]
        sequences = [unit for name in ("a", "b/source") for unit in read_units(out / f"{name}.TextGrid")]
        out = out / "b" / "source.TextGrid"
    else:
        sequences = read_units(out)
    assert [s.name for s in sequences] == ["a.wav", "b/source.flac"]
    alone = run("units", folder / "a.wav", "--collapse", *ours)
    (one,) = parse_units(alone.stdout, "stdin")
    assert one.units == sequences[0].units
    again = run("units", folder, "-o", out, "--format", "text", *ours)
    assert (again.exit_code, "exists; add --force" in again.stderr) == (2, True)
    spoken = run("speak", out, "-s", clips["reference"], "-o", tmp_path / "said", *ours)
    assert (spoken.exit_code, spoken.output) == (0, "")
    found = sorted(str(p.relative_to(tmp_path / "said")) for p in (tmp_path / "said").rglob("*.*"))
    assert found == (["b/source.wav"] if suffix == ".TextGrid" else ["a.wav", "b/source.wav", "report.jsonl"])
    if suffix != ".txt":
        assert soundfile.info(tmp_path / "said" / "b" / "source.wav").frames == soundfile.info(clips["source"]).frames


def test_one_bad_file_stops_no_other(tiny_vq_checkpoint, folder, tmp_path):
    (folder / "a2.wav").write_text("not sound")
    out = tmp_path / "out.jsonl"
    done = run("units", folder, "-o", out, "--checkpoint", tiny_vq_checkpoint)
    assert done.exit_code == 1
    left_out, failed = done.stderr.splitlines()
    assert left_out.startswith("left out, by suffix: ")
    assert "notes.txt" in left_out
    assert failed.startswith("failed: ")
    assert "a2.wav is not a sound file" in failed
    assert [u.name for u in read_units(out)] == ["a.wav", "b/source.flac"]


def test_names_never_leave_the_folder(tiny_vq_checkpoint, tmp_path, clips):
    names = ["/etc/x.wav", "../../x.wav", "..", "x.flac", "X.wav", "a\u0000b\ud800/" + "n" * 300]
    lines = "".join(json.dumps({"file": name, "units": [1, 2, 2, 3] * 5}) + "\n" for name in names)
    args = ("-s", clips["reference"], "-o", tmp_path / "out", "--checkpoint", tiny_vq_checkpoint)
    done = run("speak", "-", *args, stdin=lines)
    assert done.exit_code == 0, done.output
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert found == sorted(
        [
            "out/report.jsonl",
            "out/etc/x.wav",
            "out/x.wav",
            "out/units.wav",
            "out/x-2.wav",
            "out/X-3.wav",
            "out/a_b_/" + "n" * 200 + ".wav",
        ]
    )


def test_pictures(tiny_vq_checkpoint, folder, tmp_path):
    ours = ("--checkpoint", tiny_vq_checkpoint, "--quiet")
    assert run("units", folder / "a.wav", "--plot", tmp_path / "a.png", *ours).exit_code == 0
    assert run("units", folder, "--plot", tmp_path / "pictures", "-o", tmp_path / "u.txt", *ours).exit_code == 0
    drawn = [tmp_path / name for name in ("a.png", "pictures/a.png", "pictures/b/source.png")]
    for path in drawn:
        import matplotlib.image

        picture = matplotlib.image.imread(path)
        assert 300 < picture.shape[0] < 600
        assert 600 < picture.shape[1] < 3000
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 200
    assert drawn[0].read_bytes() == drawn[1].read_bytes()
    for plot, message in ((tmp_path / "b.jpg", "pictures are .png"), (tmp_path / "a.png", "exists; add --force")):
        done = run("units", folder / "a.wav", "--plot", plot, *ours)
        assert (done.exit_code, message in done.stderr) == (2, True)


def test_pictures_without_matplotlib(tiny_vq_checkpoint, clips, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("units", clips["source"], "--plot", tmp_path / "a.png", "--checkpoint", tiny_vq_checkpoint)
    assert done.exit_code == 2
    assert "pip install 'vcae[demo]'" in done.stderr


UNITS_CASES = {
    "missing file": (lambda d, c: [d / "no.wav"], "no.wav does not exist"),
    "empty folder": (lambda d, c: [d], "holds no sound files"),
    "continuous": (lambda d, c: [c / "source.flac", "--checkpoint", "default"], "continuous latent and no units"),
    "textgrids to a file": (lambda d, c: [c, "-o", d / "a.TextGrid"], "name a folder and --format textgrid"),
    "textgrids to a pipe": (lambda d, c: [c, "--format", "textgrid"], "name a folder with -o"),
    "onto itself": (lambda d, c: [c / "source.flac", "-o", c / "source.flac", "--force"], "is an input too"),
    "one picture": (lambda d, c: [c, "--plot", d / "a.png"], "one picture for 4 recordings"),
}


@pytest.mark.parametrize("case", UNITS_CASES)
def test_mistakes_with_units(tmp_path, tiny_vq_checkpoint, case):
    make, message = UNITS_CASES[case]
    given = make(tmp_path, CLIPS)
    _fails(run("units", *given, *([] if "--checkpoint" in given else ["--checkpoint", tiny_vq_checkpoint])), message)
    assert not list(tmp_path.iterdir())


SPEAK_CASES = {
    "unknown unit": ("3 16\n", [], "standard input, line 1, unit 2: there is no unit 16; this checkpoint has 0 to 15"),
    "empty line": ("1 2\n\n3\n", [], "line 2 is empty"),
    "not a number": ("1 two\n", [], "line 1, unit 2: 'two' is not a number"),
    "nothing": ("", [], "holds no units"),
    "binary": (b"RIFF\0\0\0\0", [], "not a file of units but binary"),
    "wrong hash": (
        f"# vcae units 1 checkpoint=vq sha256={SHA}\na\t1 2\n",
        [],
        f"is of checkpoint vq ({SHA[:12]}...), and the one",
    ),
    "too many": ('{"units": [1], "start_s": [0], "end_s": [20000]}', [], "allowed are 337500 (3 hours)"),
    "continuous": ("1 2\n", ["--checkpoint", "default"], "continuous latent and no units"),
    "no times": ("1 2\n", ["--durations", "file"], "units without times"),
    "pitch": ("1 2\n", ["--pitch", "keep"], "units have none to keep"),
    "several to a file": ("1 2\n3 4\n", [], "has 2 sequences; give a folder"),
    "no speaker": ("1 2\n", ["--speaker", "nobody"], "no saved voice is called 'nobody'"),
}


@pytest.mark.parametrize("case", SPEAK_CASES)
def test_mistakes_with_speech(tmp_path, tiny_vq_checkpoint, clips, case):
    text, extra, message = SPEAK_CASES[case]
    out = tmp_path / ("out" if "\n" in str(text).strip() and "several" not in case else "out.wav")
    extra = [*extra, *([] if "--checkpoint" in extra else ["--checkpoint", tiny_vq_checkpoint])]
    _fails(run("speak", "-", "-s", clips["reference"], "-o", out, *extra, stdin=text), message)
    assert not list(tmp_path.iterdir())


def test_of_several_sequences_one_that_cannot_be_spoken_stops_no_other(tmp_path, tiny_vq_checkpoint, clips):
    args = ("-s", clips["reference"], "--out-dir", tmp_path / "out", "--checkpoint", tiny_vq_checkpoint, "--json")
    done = run("speak", "-", *args, stdin="1 2\n3 16\n4 5\n")
    assert done.exit_code == 1, done.stderr
    assert done.stderr.startswith("failed: standard input, line 2, unit 2: there is no unit 16")
    said = json.loads(done.stdout)
    assert (said["total"], said["spoken"], said["failed"]) == (3, 2, 1)


def test_missing_units(tmp_path, tiny_vq_checkpoint, clips):
    for given, message in (
        (tmp_path / "no.jsonl", "no.jsonl does not exist"),
        (tmp_path, "is a folder; give a folder for the outputs with --out-dir"),
    ):
        _fails(run("speak", given, "-s", clips["reference"], "--checkpoint", tiny_vq_checkpoint), message)


def _fails(done, message):
    lines = done.stderr.strip().split("\n")
    assert done.exit_code == 2, done.output
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not done.stdout


def test_level_of_speech_is_the_models(tiny_vq, heard, voice):
    from vcae.audio.loudness import TARGET_LEVEL, active_level

    wav = speak_units(tiny_vq, heard["source"], voice).wav.numpy()
    assert active_level(wav) == pytest.approx(TARGET_LEVEL, rel=0.3)
    assert isinstance(Sound(wav, tiny_vq.sample_rate).duration_s, float)


# ---- The shipped checkpoint


@pytest.fixture(scope="module")
def vq():
    return load("vq", "cpu")


def test_the_shipped_vq_is_whole_small_and_in_use(vq, speech):
    path = checkpoint.find("vq")
    assert path.stat().st_size < 1.5e6
    assert path.with_suffix(".sha256").read_text().split()[0] == vq.checkpoint.sha256
    assert path.with_suffix(".md").exists()
    assert vq.autoencoder.quantizer.bits * vq.mel_config.frame_rate / 2 == 625
    default = checkpoint.load("default").autoencoder.state_dict()
    assert all(torch.equal(vq.autoencoder.state_dict()[name], value) for name, value in default.items())
    units = vq.units(speech, 16000)
    assert units.codebook_size == 1024
    assert len(set(units.units)) > 80
    again = vq.units(speech * 0.3, 16000)
    assert np.mean(np.equal(units.units, again.units)) > 0.98


def test_units_of_the_former_checkpoint_name_it_and_are_spoken_by_it(vq, speech, clips, tmp_path):
    former = load("vq-narrow", "cpu")
    assert former.checkpoint.sha256.startswith("716f5008f7aa")
    # As the former checkpoint wrote it, under its name then.
    path = tmp_path / "old.jsonl"
    path.write_text(format_units([replace(former.units(speech, 16000), checkpoint="vq")], "jsonl"))
    units = read_units(path)[0]
    with pytest.raises(DataError, match=r"of checkpoint vq \(716f5008f7aa\.\.\.\).*; take the checkpoint vq-narrow$"):
        vq.speak(units, clips["reference"])
    assert len(former.speak(units, clips["reference"])) == len(speech)


def test_units_say_the_same_of_the_same_words_in_another_voice(vq, model, speech, clips):
    """A recording converted to a woman's voice keeps far more of its units than chance gives."""
    reference = read_sound(clips["reference"])
    converted = model.convert(speech, 16000, reference.wav, reference.sample_rate).wav
    first, second = (np.array(vq.units(wav, 16000).units) for wav in (speech, converted))
    kept = np.mean(first == second)
    chance = np.mean([np.mean(first == np.roll(second, k)) for k in range(20, 60)])
    assert kept > 0.25
    assert kept > 10 * chance


def test_speech_from_the_shipped_units(vq, speech, clips):
    reference = read_sound(clips["reference"])
    voice = voice_from_sounds(vq, [reference])
    units = vq.units(speech, 16000)
    said = speak_units(vq, units, voice)
    assert len(said.wav) == len(speech)
    assert abs(math.log(said.output_f0_hz) - voice.log_f0_median) < 0.15
    source = vq.analyse(speech, 16000)
    mel = vq.log_mel(said.wav[None])[0]
    n = min(mel.shape[1], source.mel.shape[-1])
    loud = [m.mean(0)[:n].numpy() for m in (mel, source.mel[0])]
    assert np.corrcoef(*loud)[0, 1] > 0.7
    predicted = vq.speak(units.collapse(), voice, durations="predicted")
    assert 0.7 < len(predicted) / len(speech) < 1.4
    with pytest.raises(ConfigError, match="sample rate of the reference 1 is missing"):
        vq.speak(units, reference.wav)
