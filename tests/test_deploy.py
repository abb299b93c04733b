"""The container's files: what they copy is there, and what they run are vcae's commands and options."""

import json
import re

import yaml

from tests.conftest import ROOT
from tests.test_help import COMMANDS

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["vcae"]


def commands():
    (given,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.M)
    return [json.loads(given), COMPOSE["command"]]


def test_what_is_copied_is_there():
    copied = [word for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.M) for word in line.split()[:-1]]
    assert {"vcae", "demo", "pyproject.toml"} <= set(copied)
    ignored = (ROOT / ".dockerignore").read_text().split()
    for name in copied:
        assert (ROOT / name).exists(), name
        assert name not in ignored
    assert (ROOT / "deploy" / COMPOSE["build"]["context"] / COMPOSE["build"]["dockerfile"]).exists()


def test_commands_exist():
    for words in commands():
        options = {option for one in COMMANDS[words[0]].params for option in one.opts}
        assert set(words[1:]) & options
        assert {word for word in words[1:] if word.startswith("--")} <= options
    (key,) = COMPOSE["environment"]
    assert key in {one.envvar for one in COMMANDS["serve"].params}


def test_it_runs_as_an_ordinary_user_on_a_read_only_root():
    assert re.search(r"^USER (?!0|root)\d+$", DOCKERFILE, re.M)
    assert DOCKERFILE.rindex("USER") > DOCKERFILE.rindex("RUN")
    assert COMPOSE["read_only"] is True
    assert COMPOSE["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["ports"])
