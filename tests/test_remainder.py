"""How much of the noise the denoiser leaves: the part that its strength says, and more where the noise is loud beside speech."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.conftest import CLIPS
from vcae.audio.io import Sound, read_sound
from vcae.engine.denoise import Cleaner
from vcae.model.remainder import N_COMPARED, compared_powers, noise_left


def left(speech, noise, strength=0.9):
    """Return the part that is left in each of the frames of a recording with these powers."""
    powers = compared_powers(torch.tensor([speech]), torch.tensor([noise]))
    return noise_left(F.pad(powers, (N_COMPARED - 1, 0)), strength)[0].numpy()


def test_quiet_noise_leaves_what_the_strength_says_and_loud_noise_its_square_root():
    n = 200
    assert np.allclose(left([1.0] * n, [0.1] * n), 0.1, atol=1e-6)
    assert np.allclose(left([1.0] * n, [1.0] * n), 0.1**0.5, atol=1e-6)
    between = left([1.0] * n, [0.25] * n)
    assert np.all((between > 0.12) & (between < 0.3))
    # More noise never leaves less.
    course = [left([1.0], [10 ** (-db / 10)])[0] for db in range(20, -5, -1)]
    assert np.all(np.diff(course) >= -1e-7)


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_full_strength_leaves_nothing_and_none_leaves_all(noise):
    assert np.array_equal(left([1.0] * 50, [noise] * 50, 1.0), np.zeros(50, np.float32))
    assert np.allclose(left([1.0] * 50, [noise] * 50, 0.0), 1.0)
    assert left([1.0] * 50, [noise] * 50, 0.3).max() < 0.9


def test_noise_without_speech_is_removed_as_quiet_noise_is():
    # Denoised to -20 dB: no words are there to be lost.
    assert np.allclose(left([0.01] * 300, [1.0] * 300), 0.1, atol=1e-6)
    # Pauses are not compared: a long one before speech in quiet noise changes nothing, and speech in loud noise is known at once.
    assert np.allclose(left([0.001] * 300 + [1.0] * 100, [0.05] * 400), 0.1, atol=1e-6)
    assert left([1.0] * 5, [1.0] * 5)[-1] == pytest.approx(0.1**0.5, abs=1e-6)


def test_eight_seconds_later_loud_noise_is_forgotten():
    made = left([1.0] * 1200, [1.0] * 300 + [0.05] * 900)
    assert made[299] == pytest.approx(0.1**0.5, abs=1e-6)
    assert made[300 + N_COMPARED] == pytest.approx(0.1, abs=1e-6)


def test_silence_and_its_gradient_are_finite():
    powers = torch.zeros(1, 3, N_COMPARED + 9, requires_grad=True)
    made = noise_left(powers, 0.5)
    made.sum().backward()
    assert made.isfinite().all()
    assert powers.grad is not None
    assert powers.grad.isfinite().all()


def test_the_louder_the_real_noise_the_more_of_it_is_left():
    cleaner = Cleaner(device="cpu")
    speech, noisy = (read_sound(CLIPS / f"{name}.flac").wav for name in ("source", "noisy"))
    noise = noisy - speech
    shares = []
    for gain in (0.2, 1.0, 2.5):
        mixed = speech + gain * noise
        whole, made = (cleaner.sound(Sound(mixed, 16000), strength).wav for strength in (1.0, 0.9))
        shares.append(float((made - whole) @ (mixed - whole) / np.square(mixed - whole).sum()))
    assert shares[0] == pytest.approx(0.1, abs=0.01)
    assert shares[0] <= shares[1] < shares[2] <= 0.1**0.5
    assert shares[2] > 0.2
