"""Defaults from a config file and from variables, --verbose, completion, and `vcae doctor`."""

import json
import logging
import os
import subprocess
import sys

import pytest
import soundfile
from typer.testing import CliRunner

from tests.conftest import CLIPS, ROOT
from tests.forked import python
from vcae.cli import doctor
from vcae.cli.app import app


@pytest.fixture
def config(tmp_path, monkeypatch):
    import typer.rich_utils

    # A fixed width, whichever test comes first.
    monkeypatch.setattr(typer.rich_utils, "MAX_WIDTH", 200)
    monkeypatch.delenv("VCAE_CONFIG", raising=False)
    monkeypatch.setattr("vcae.cli.defaults.config_path", lambda: tmp_path / "config" / "config.toml")

    def write(text):
        (tmp_path / "config").mkdir(exist_ok=True)
        (tmp_path / "config" / "config.toml").write_text(text)

    return write


def run(*words, code=0, env=None):
    done = CliRunner().invoke(app, [*map(str, words)], env=env)
    assert done.exit_code == code, done.output
    return done


def shown(*words, env=None):
    """Return the defaults that --help shows, by option."""
    lines = run(*words, "--help", env={"COLUMNS": "200", **(env or {})}).output.splitlines()
    return {line.split()[1]: line.split("[default: ")[1].split("]")[0] for line in lines if "[default: " in line}


def test_the_config_file_sets_defaults(config):
    assert shown("convert")["--pitch"] == "auto"
    config('seed = 3\n[convert]\npitch = "keep"\nseed = 5\n[voice.save]\nauthor = "ann"\n')
    assert shown("convert")["--pitch"] == "keep"
    # What is for one command comes before what is for all, and variables before the file.
    assert (shown("convert")["--seed"], shown("vocode")["--seed"]) == ("5", "3")
    assert shown("voice", "save")["--author"] == "ann"
    variables = {"VCAE_SEED": "7", "VCAE_CONVERT_SEED": "9"}
    assert (shown("convert", env=variables)["--seed"], shown("vocode", env=variables)["--seed"]) == ("9", "7")


def test_another_config_file(config, tmp_path):
    config('[convert]\npitch = "keep"\n')
    (tmp_path / "mine.toml").write_text('[convert]\npitch = "2"\n')
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "mine.toml"), "convert", "--help"], env={"COLUMNS": "200"})
    assert "[default: 2]" in done.output
    assert "cannot be read" in run("--config", tmp_path / "none.toml", "info", code=2).output


def test_defaults_of_folder_runs_do_not_hinder_a_single_recording(config, tmp_path):
    config("jobs = 2\nresume = true\nquiet = true\n")
    out = tmp_path / "out.wav"
    assert run("vocode", CLIPS / "source.flac", "-o", out).output == ""
    assert soundfile.info(out).frames == soundfile.info(CLIPS / "source.flac").frames
    assert "go with --out-dir" in run("vocode", CLIPS / "source.flac", "-o", tmp_path / "b.wav", "--jobs", 2, code=2).output


@pytest.mark.parametrize(
    ("text", "env", "message"),
    [
        ("[convert]\npich = 1\n", {}, "convert has no option 'pich'; did you mean pitch?"),
        ("devise = 'cpu'\n", {}, "no command has an option 'devise'; did you mean device?"),
        ("[convrt]\npitch = 1\n", {}, "[convrt] is not a command; did you mean convert?"),
        ("[voice.safe]\nauthor = 'a'\n", {}, "[voice.safe] is not a command; did you mean save?"),
        ("device cpu", {}, "is not TOML"),
        ("seed = -4\n", {}, "seed is -4, which is not allowed for --seed"),
        ("", {"VCAE_DEVICE": "gpu"}, "VCAE_DEVICE is 'gpu', which is not allowed for --device"),
    ],
)
def test_a_wrong_default_is_one_clear_line(config, text, env, message):
    config(text)
    said = run("info", code=2, env=env).output
    assert message in said
    assert said.count("\n") == 1


def test_verbose_says_what_is_done_and_where_an_error_is_from(tmp_path):
    level = logging.getLogger("vcae").level
    words = [*python(), "-m", "vcae", "convert", str(CLIPS / "noisy.flac"), "-s"]
    done = subprocess.run(
        [*words, str(CLIPS / "reference.flac"), "-o", str(tmp_path / "x.wav"), "-v"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "info: checkpoint " in done.stderr
    assert "default.safetensors" in done.stderr
    done = subprocess.run([*words, "nobody", "-v"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: no file and no saved voice is called 'nobody'")
    quiet = subprocess.run([*words, "nobody"], capture_output=True, text=True, cwd=ROOT)
    assert "Traceback" not in quiet.stderr
    assert logging.getLogger("vcae").level == level


@pytest.mark.skipif(os.name == "nt", reason="bash is the shell of this test")
def test_completion_is_installed_and_completes(tmp_path):
    start = "import sys; sys.argv[0] = 'vcae'; from vcae.cli.app import main; main()"
    environment = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    words = [sys.executable, "-c", start, "--install-completion", "bash"]
    subprocess.run(words, env=environment, check=True, capture_output=True, cwd=ROOT)
    (script,) = tmp_path.rglob("vcae.sh")
    assert "complete -o default -F _vcae_completion vcae" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()
    asked = environment | {"_VCAE_COMPLETE": "complete_bash", "COMP_WORDS": "vcae voice re", "COMP_CWORD": "2"}
    done = subprocess.run([sys.executable, "-c", start], env=asked, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["rename"]


def test_doctor_describes_this_installation():
    found = json.loads(run("doctor", "--json").output)
    assert found["problems"] == []
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert 1 <= found["threads"]["cores used"] <= found["threads"]["cores of the machine"]
    assert {"default", "vq", "codec"} <= set(found["checkpoints"])
    assert all(said.startswith("verified") for said in found["checkpoints"].values())
    assert ".m4a" in found["formats"]["written"]
    assert found["free_bytes"]["here"] > 0


def test_doctor_says_what_is_wrong_and_what_is_missing(tmp_path, monkeypatch):
    for name in ("default", "vq"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"not what was recorded")
        (tmp_path / f"{name}.sha256").write_text("0" * 64)
    monkeypatch.setattr("vcae.model_file.weights_folder", lambda: tmp_path)
    monkeypatch.setattr(doctor, "OPTIONAL", {"vcae fly": (("no_such_module", "json"), "wings")})
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))
    said = run("doctor", code=1).output
    assert "problem: no-such-package is not installed" in said
    assert "problem: checkpoint default: " in said
    assert "does not match its SHA-256" in said
    assert "missing: vcae fly                    no_such_module; pip install 'vcae[wings]'" in said
    assert "3 problems" in said
