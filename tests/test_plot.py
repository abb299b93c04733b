"""`vcae plot` and what draws for it."""

import json
import re
import subprocess

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.forked import python
from vcae.audio.io import Sound, read_sound
from vcae.errors import DataError
from vcae.figures import plot
from vcae.figures.plot import F0_RANGE_HZ, draw_views, f0_contour, f0_limits, picture_format, view_sound

PIL = pytest.importorskip("PIL.Image")


def vcae(*args, cwd=None):
    words = [*python(), "-m", "vcae", "plot", *map(str, args)]
    import os

    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


def picture(data):
    import io

    return np.asarray(PIL.open(io.BytesIO(data)).convert("RGBA")).astype(int)


def test_png_of_two_recordings_with_units(tmp_path, clips):
    done = vcae(clips["source"], clips["reference"], "-o", tmp_path / "both.png", "--units", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert [r["panels"] for r in said["recordings"]] == [["mel", "f0", "units"]] * 2
    assert said["recordings"][0]["duration_s"] == pytest.approx(6.69, abs=0.02)
    plain = vcae(clips["source"], clips["reference"], "-o", tmp_path / "plain.png")
    assert plain.stdout.startswith("wrote ")
    tall, low = (PIL.open(tmp_path / name) for name in ("both.png", "plain.png"))
    assert tall.width == low.width
    assert tall.height > low.height + 60
    # Unit colours are in the one picture and not in the other.
    assert len(set(tall.convert("RGB").resize((400, 300), PIL.Resampling.NEAREST).getdata())) > 500


def test_svg_side_by_side_and_default_name(tmp_path, clips):
    done = vcae(clips["source"], clips["reference"], "--side-by-side", "-o", tmp_path / "a.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "a.svg").read_text()
    width, height = map(float, re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text).groups())
    assert width > 2 * height
    assert text.count("<image") == 2
    assert vcae(clips["source"], cwd=tmp_path).returncode == 0
    assert (tmp_path / "source.png").read_bytes()[:4] == b"\x89PNG"
    again = vcae(clips["source"], cwd=tmp_path)
    assert again.returncode == 2
    assert "exists; add --force" in again.stderr


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda clips: [clips["source"], "-o", "a.pdf"], "suffix '.pdf'; allowed are .png, .svg"),
        (lambda clips: ["no.wav"], "no.wav does not exist"),
        (lambda clips: [f"{n}.wav" for n in range(13)], "13 recordings do not fit"),
    ],
)
def test_mistakes_are_one_line(tmp_path, clips, make, message):
    done = vcae(*make(clips), cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_f0_is_drawn_where_it_is(tone):
    """A tone of 220 Hz is a level line, twice as high in log-frequency as the tone of 110 Hz is; their scale is shared."""
    low, high = (view_sound(Sound(tone(hz), 16000, f"{hz}")) for hz in (110.0, 220.0))
    assert float(low.f0[5:-5].median()) == pytest.approx(110, abs=2)
    limits = f0_limits([low, high])
    assert limits[0] <= F0_RANGE_HZ[0]
    assert limits[1] >= F0_RANGE_HZ[1]
    green = []
    for view in (low, high):
        shown = picture(draw_views([view], beside=[low, high]))
        is_line = abs(shown[..., :3] - [0x1F, 0x9E, 0x89]).sum(-1) < 20
        rows = np.flatnonzero(is_line.any(1))
        assert len(rows) < 8
        green.append(rows.mean())
    assert green[0] > green[1] + 15


def test_nothing_voiced():
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    view = view_sound(Sound(noise, 16000, "noise"))
    view = type(view)(view.name, view.mel, torch.zeros_like(view.f0))
    assert f0_limits([view]) == F0_RANGE_HZ
    assert draw_views([view])[:4] == b"\x89PNG"


def test_neutral_pictures_have_no_ground(clips):
    view = view_sound(read_sound(clips["source"]), "Before")
    assert picture(draw_views([view], neutral=True))[0, 0, 3] == 0
    assert picture(draw_views([view]))[0, 0].tolist() == [255, 255, 255, 255]


def test_picture_format(tmp_path):
    assert picture_format(tmp_path / "a.SVG") == "svg"
    with pytest.raises(DataError, match="suffix ''"):
        picture_format(tmp_path / "a")


def test_f0_of_a_long_recording_is_a_contour():
    """Phrases with pauses: no gap at each consonant, a gap in a long pause, and the middle of the range of each part."""
    f0 = np.tile(np.array([0, 0, 100, 110, 120, 0, 100, 110, 120, 0], np.float32), 1200)
    f0[4000:5000] = 0
    low, median, high = f0_contour(f0)
    assert len(median) == 240
    missing = np.isnan(median)
    assert (missing.sum(), np.flatnonzero(missing).min(), np.flatnonzero(missing).max()) == (20, 80, 99)
    assert np.nanmedian(median) == 110
    assert np.nanmax(low) <= 110 <= np.nanmin(high)
    assert f0_contour(f0[:7]).shape == (3, 7)


def test_the_mel_of_a_long_recording_is_that_of_a_short_one(speech, monkeypatch):
    """Computed in sections it is the same, and pooled for the picture it keeps the power."""
    whole = view_sound(Sound(speech, 16000)).mel
    monkeypatch.setattr(plot, "MEL_FRAMES", 50)
    torch.testing.assert_close(view_sound(Sound(speech, 16000)).mel, whole)
    mel = whole.numpy()
    assert plot.pool_mel(mel, mel.shape[1]) is mel
    pooled = plot.pool_mel(mel[:, :400], 100)
    assert pooled.shape == (len(mel), 100)
    assert np.exp(2 * pooled).mean() == pytest.approx(np.exp(2 * mel[:, :400]).mean(), rel=1e-4)


def test_the_axis_of_time_is_where_the_picture_says(speech):
    """Sound that begins after two of four seconds begins in the middle of the axis."""
    wav = np.concatenate([np.zeros(32000, np.float32), speech[:32000]])
    made = plot.draw_picture([view_sound(Sound(wav, 16000), "")], width_in=5.6)
    shown = picture(made.data)[..., :3].astype(int)
    rows = slice(20, shown.shape[0] // 3)
    bright = (shown[rows].max(-1) > 120) & (shown[rows].min(-1) < 200)
    first = np.flatnonzero(bright.mean(0) > 0.3)[0] / shown.shape[1]
    assert made.seconds == pytest.approx(4, abs=0.02)
    assert first == pytest.approx((made.left + made.right) / 2, abs=0.03)
