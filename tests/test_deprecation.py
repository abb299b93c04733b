"""Old names of renamed objects."""

import importlib

import pytest

from vcae.audio import sections
from vcae.voice import voice

OLD = {
    "vcae.audio.sections": {"Computed": "LazySections", "Kept": "StoredSections", "Workshop": "SectionRunner"},
    "vcae.engine.listening": {
        "Heard": "SectionedAnalysis",
        "listen": "analyse_sections",
        "hear_latent": "encode_latent_sections",
    },
    "vcae.checkpoint": {"hash_weights": "vcae.model.weights.hash_weights", "read_header": "vcae.model_file.read_header"},
    "vcae.voice.detail": {"hear_detail": "detail_sections"},
    "vcae.voice.voice": {"hear_voice": "voice_from_sounds"},
}


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
