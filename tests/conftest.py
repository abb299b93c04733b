import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vcae import checkpoint
from vcae.config import from_dict
from vcae.model.autoencoder import Autoencoder
from vcae.model.config import AutoencoderConfig
from vcae.vocoder.config import VocoderConfig
from vcae.vocoder.neural import HarmonicNoiseVocoder

# The defaults of whoever runs the tests are not those of the tests.
os.environ["VCAE_CONFIG"] = os.devnull
ROOT = Path(__file__).parent.parent
CLIPS = ROOT / "demo" / "clips"
TINY = {
    "content": {"width": 16, "n_blocks": 4, "n_normalized": 3, "latent_dim": 4},
    "speaker": {"width": 16, "n_blocks": 1, "speaker_dim": 8},
    "decoder": {"width": 16, "n_blocks": 2},
}
ATTENDING = TINY | {"decoder": {"width": 16, "n_blocks": 2, "attention": [1, 2], "reference_width": 12, "reference_blocks": 1}}


def settings_of(recipe):
    """Import the settings of a recipe under a name of its own: every recipe's file is called settings.py."""
    name = f"settings_of_{recipe}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "recipes" / recipe / "settings.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def clips():
    return {name: CLIPS / f"{name}.flac" for name in ("source", "reference", "reference2")}


@pytest.fixture(scope="session")
def speech(clips):
    wav, rate = soundfile.read(clips["source"], dtype="float32")
    assert rate == 16000
    return wav


@pytest.fixture
def tiny_autoencoder():
    return Autoencoder(from_dict(AutoencoderConfig, TINY)).eval()


@pytest.fixture
def attending_autoencoder():
    """A small one whose decoder looks up the reference."""
    made = Autoencoder(from_dict(AutoencoderConfig, ATTENDING)).eval()
    # As after training: what is found changes what comes out.
    for attention in made.decoder.attention.values():
        torch.nn.init.normal_(attention.output.weight, std=0.5)
    return made


@pytest.fixture
def attending_checkpoint(tmp_path, attending_autoencoder, tiny_vocoder):
    path = tmp_path / "attending.safetensors"
    checkpoint.save(path, attending_autoencoder, tiny_vocoder, {"author": "a test"})
    return path


@pytest.fixture
def tiny_vocoder():
    return HarmonicNoiseVocoder(from_dict(VocoderConfig, {"width": 16, "n_blocks": 2})).eval()


@pytest.fixture
def tiny_checkpoint(tmp_path, tiny_autoencoder, tiny_vocoder):
    path = tmp_path / "tiny.safetensors"
    checkpoint.save(path, tiny_autoencoder, tiny_vocoder, {"author": "a test"})
    return path


@pytest.fixture(scope="session")
def model():
    import vcae

    return vcae.load(device="cpu")


@pytest.fixture
def tone():
    def make(hz=220.0, seconds=1.0, rate=16000, level=0.3):
        t = np.arange(round(seconds * rate)) / rate
        return (level * np.sin(2 * np.pi * hz * t)).astype(np.float32)

    return make
