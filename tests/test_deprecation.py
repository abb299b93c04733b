"""Old names of renamed objects."""

import importlib
import inspect

import pytest

from tests.conftest import ROOT
from vcae.audio import sections
from vcae.voice import voice

OLD = {
    "vcae.audio.sections": {"Computed": "LazySections", "Kept": "StoredSections", "Workshop": "SectionRunner"},
    "vcae.engine.listening": {
        "Heard": "SectionedAnalysis",
        "Taken": "LeveledRecording",
        "listen": "analyse_sections",
        "take_in": "read_leveled",
        "hear_content": "encode_content_sections",
        "hear_latent": "encode_latent_sections",
        "hear_speaker": "encode_speaker_sections",
    },
    "vcae.checkpoint": {
        "hash_weights": "vcae.model.weights.hash_weights",
        **{name: f"vcae.model_file.{name}" for name in ("read_header", "PICKLES", "STEPS", "MAX_HEADER_BYTES", "MAX_TENSORS")},
    },
    "vcae.voice.voice": {"hear_voice": "voice_from_sounds"},
}


def test_all_old_names_are_here():
    """Every module that has old names is in the table above, with all of them."""
    users = [path for path in (ROOT / "vcae").rglob("*.py") if "__getattr__ = renamed(" in path.read_text()]
    assert sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in users) == sorted(OLD)
    for module, names in OLD.items():
        found = inspect.getclosurevars(importlib.import_module(module).__getattr__).nonlocals["names"]
        assert dict(found) == names


@pytest.mark.parametrize(("module", "old", "new"), [(m, old, new) for m, names in OLD.items() for old, new in names.items()])
def test_an_old_name_gives_the_same_object_and_a_warning(module, old, new):
    place, _, name = new.rpartition(".")
    found, there = importlib.import_module(module), importlib.import_module(place or module)
    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} now"):
        assert getattr(found, old) is getattr(there, name)


def test_a_name_that_never_was_is_still_an_error():
    with pytest.raises(AttributeError, match=r"vcae.audio.sections.*'Heap'"):
        _ = sections.Heap
    with pytest.raises(ImportError):
        from vcae.voice.voice import Heap  # noqa: F401


def test_the_new_names_do_not_warn(recwarn):
    assert sections.LazySections
    assert voice.voice_from_sounds
    assert not [w for w in recwarn if w.category is DeprecationWarning]
