"""What may be asked for: checked before anything that takes time is imported."""

import subprocess
import sys

import pytest

from vcae import ConfigError
from vcae.options import BabbleOptions, ConvertOptions, SpeakOptions

# Importing torch or a sound library fails here: whatever is refused is refused without them.
BARE = "import sys; sys.modules.update(dict.fromkeys(('torch', 'soundfile', 'numpy'))); from vcae.cli.app import main; main()"
WRONG = {
    "convert": ("convert x.wav -s y.wav --pitch foo", "pitch is 'foo'; allowed are auto, keep, or semitones from -36 to 36"),
    "strength": ("convert . -s y.wav --strength nan --out-dir out", "strength is nan; allowed are 0 to 1"),
    "stream": ("stream -s y.wav --pitch much", "pitch is 'much'; allowed are auto, keep, or semitones from -36 to 36"),
    "speed": ("convert x.wav -s y.wav --speed 3", "speed is 3.0; allowed are 0.5 to 2"),
    "formant": ("speak u.txt -s y.wav --formant -13", "formant is -13.0; allowed are -12 to 12 semitones"),
    "expression": ("generate speech -s y.wav --expression nan", "expression is nan; allowed are 0 to 2"),
    "live": ("stream -s y.wav --speed 1.25", "speed is 1.25; live it can only be 1"),
    "speak": ("speak u.txt -s y.wav --pitch keep", "units have none to keep"),
    "babble": ("generate speech -s y.wav --seconds 1000", "seconds is 1000; allowed are 0.5 to 600"),
    "denoise": ("denoise x.wav --strength 3", "strength is 3.0; allowed are 0"),
    "rate": ("convert x.wav -s y.wav --rate 4000", "rate is 4000; allowed are 8000 to 192000"),
    "channels": ("convert x.wav -s y.wav --mono --channels separate", "--mono and --channels separate contradict each other"),
    "rate of a copy": ("reconstruct x.wav --rate 1000000", "rate is 1000000; allowed are 8000 to 192000"),
    "rate of denoised": ("denoise x.wav --rate 0", "rate is 0; allowed are 8000 to 192000"),
    "compress": ("compress x.wav --kbps 99", "allowed are 0.6 to 6"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_option_is_refused_before_torch_is_imported(case, tmp_path):
    line, message = WRONG[case]
    done = subprocess.run([sys.executable, "-c", BARE, *line.split()], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (ConvertOptions, {"loudness": "loud"}),
        (ConvertOptions, {"pitch": float("nan")}),
        (SpeakOptions, {"durations": "mine"}),
        (BabbleOptions, {"top_p": 0.0}),
        (ConvertOptions, {"speed": "2"}),
        (SpeakOptions, {"expression": True}),
    ],
)
def test_options_check_themselves(options, values):
    (name,) = values
    with pytest.raises(ConfigError, match=f"^{name} is "):
        options(**values)


def test_what_a_message_names_is_an_option_on_the_command_line():
    from vcae.cli.common import as_option

    assert as_option("x exists; add `force=True` to replace it") == "x exists; add --force to replace it"
    assert as_option("take `code_dim=8` or `checkpoint='vq'`") == "take --code-dim 8 or --checkpoint vq"
    assert as_option("a `b` c=True") == "a `b` c=True"
