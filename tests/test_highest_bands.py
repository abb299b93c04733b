"""The highest mel bands follow from those below as in recordings."""

import importlib.util

import numpy as np
import pytest
import torch

import vcae
from tests.conftest import CLIPS, ROOT
from vcae.checkpoint import load


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("highest_bands", ROOT / "recipes/release/highest_bands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_decoded_follows_the_regression(recipe):
    model = load("default").autoencoder
    bands = recipe.read_bands(model, [CLIPS / "source.flac", CLIPS / "reference.flac"])
    weights, offsets = recipe.regress(bands)
    assert 0.5 < recipe.explained(bands, weights, offsets) <= 1
    torch.manual_seed(0)
    mel = 2 * torch.randn(1, model.config.mel.n_mels, 60) - 6
    f0, speaker = torch.full((1, 60), 120.0), model.encode_speaker(mel)
    before = model.normalize(model.decode(model.encode_content(mel), f0, speaker))[0].double()
    recipe.fold(model, weights, offsets)
    after = model.normalize(model.decode(model.encode_content(mel), f0, speaker))[0].double()
    torch.testing.assert_close(after[: recipe.FIRST], before[: recipe.FIRST])
    predicted = weights @ after[slice(*recipe.PREDICTORS)] + offsets[:, None]
    torch.testing.assert_close(after[recipe.FIRST :], predicted, atol=1e-3, rtol=1e-3)


def test_fricatives_of_what_ships_have_no_whistle():
    """Without this step, fricatives of this conversion have 13 dB more from 7.5 to 7.9 kHz than from 4 to 7.5 kHz."""
    wav = np.asarray(vcae.load().convert(CLIPS / "source.flac", reference=CLIPS / "reference.flac").wav).squeeze()
    power = np.abs(np.fft.rfft(wav[: len(wav) // 512 * 512].reshape(-1, 512) * np.hanning(512))) ** 2
    hz, level = np.fft.rfftfreq(512, 1 / 16000), power.sum(axis=1)
    hissing = power[:, hz >= 4000].sum(axis=1) > power[:, hz < 3000].sum(axis=1)
    chosen = power[hissing & (level > np.quantile(level, 0.3))]
    assert len(chosen) > 5
    ratio = chosen[:, (hz >= 7500) & (hz < 7900)].mean(axis=1) / chosen[:, (hz >= 4000) & (hz < 7500)].mean(axis=1)
    assert 10 * np.log10(np.quantile(ratio, 0.9)) < 5
