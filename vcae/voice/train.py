"""Training of the decoder to one voice: from a minute of speech, in some minutes on a CPU, with a check on speech that is held out.

The encoders are frozen. The content that the decoder is trained on is encoded from the speech converted to generated voices, as in
`recipes/conversion`, so that it is content of other speakers, as in use. What the decoder gets beside it is the voice's own.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vcae.audio.high_band import mean_bands, measure_bands
from vcae.audio.io import Sound
from vcae.engine.decoding import decode_voice
from vcae.engine.engine import Engine
from vcae.engine.listening import Analysis, analyse
from vcae.errors import AudioError
from vcae.model.decoder import Decoder, log_f0_mean
from vcae.model.reference import Reference
from vcae.voice.new import new_voice
from vcae.voice.pitch import convert_f0
from vcae.voice.speech import hear_speech
from vcae.voice.voice import MIN_REFERENCE_S, Voice, describe_voice

# Least speech, and the longest training.
MIN_SPEECH_S, MAX_S = 20.0, 150.0
# Speech is cut into pieces of this length; every sixth is held out.
PIECE_S, HELD_OUT_EVERY = 4.0, 6
# Generated voices that the speech is converted to, and their seeds.
N_OTHERS = 4
# Penalty on the change of the input layer's weights, relative to a mean square of 1 of its input.
RIDGE = 0.01
STEPS, BATCH, CROP, WARMUP = 40, 8, 96, 10
LEARNING_RATE = 1e-3
DIFFERENCE_WEIGHT = 0.5
# Share of the crops that are content of the speech itself.
OWN_SHARE = 0.2
# Parameters that are trained, by parts of their names.
TRAINED = ("modulation", "output", "norm", ".scale")
DB = 20 / math.log(10)


@dataclass(frozen=True)
class Trained:
    """Result of a training.

    Attributes:
        voice: The voice with its decoder; None if the held-out speech got worse.
        before_db: Mean error of the log-mel of held-out speech, converted to other voices and back, before the training.
        after_db: The same after it.
        speech_s: Seconds of speech that it was trained on.
        held_out_s: Seconds of speech that were held out.
        steps: Steps of the training.
    """

    voice: Voice | None
    before_db: float
    after_db: float
    speech_s: float
    held_out_s: float
    steps: int


@dataclass(frozen=True)
class _Piece:
    """Piece of speech: log-mel (1, n_mels, T), F0 (1, T), and content (1, D, T / stride) of itself and of its conversions."""

    mel: Tensor
    f0: Tensor
    contents: tuple[Tensor, ...]


def train_voice(
    model: Engine,
    clips: Sequence[Sound],
    progress: Callable[[float, float], object] = lambda share, left_s: None,
    steps: int = STEPS,
    max_s: float = MAX_S,
    seed: int = 0,
) -> Trained:
    """Train the decoder to the voice of clips.

    Args:
        model: Model with the checkpoint `default`, whose generated voices are needed.
        clips: Recordings of one voice with at least 20 s of speech; a minute is better.
        progress: Called with the fraction done, 0 to 1, and the seconds left; an exception that it raises ends the work.
        steps: Steps of the training.
        max_s: Longest training in seconds; it ends earlier, with the same schedule, where `steps` take longer.
        seed: Seed of the order of the data.

    Raises:
        AudioError: For unusable clips, or too little speech.
        CheckpointError: For another checkpoint.
    """
    seen = [analyse(model, clip, MIN_REFERENCE_S) for clip in clips]
    speech, warnings = hear_speech(model, seen, clips)
    pieces = _cut(model, speech)
    every = min(HELD_OUT_EVERY, len(pieces))
    held, used = pieces[every - 1 :: every], [piece for n, piece in enumerate(pieces, 1) if n % every]
    used_s, held_s = (sum(piece.mel.shape[-1] for piece in part) / model.mel_config.frame_rate for part in (used, held))
    long = sum(piece.mel.shape[-1] >= CROP for piece in used)
    if used_s + held_s < MIN_SPEECH_S or long < 2:
        raise AudioError(
            f"{used_s + held_s:.1f} s of speech found in the clips ({len(clips)}); training needs {MIN_SPEECH_S:g} s in "
            "clips of 2 s or more, and a minute is better"
        )
    known = describe_voice(model, used)
    others = [new_voice(model, number) for number in range(N_OTHERS)]
    examples, unseen = ([_convert_piece(model, piece, known, others) for piece in part] for part in (used, held))
    trainer = _Trainer(model, known, examples, random.Random(seed))
    before = trainer.error_db(unseen)
    fit_input(trainer.decoder, examples)
    done = trainer.run(steps, max_s, progress)
    # It is saved in half precision, so it is judged in half precision.
    weights = trainer.weights()
    trainer.decoder.load_state_dict({name: value.float() for name, value in weights.items()}, strict=False)
    after = trainer.error_db(unseen)
    if after >= before:
        return Trained(None, before, after, used_s, held_s, done)
    voice = describe_voice(model, pieces, trainer.decoder)
    bands = mean_bands([(measure_bands(clip.wav, clip.sample_rate), clip.duration_s) for clip in clips])
    voice = replace(voice, warnings=tuple(warnings), decoder=None, decoder_weights=weights, bands=bands)
    return Trained(voice, before, after, used_s, held_s, done)


def _cut(model: Engine, speech: Sequence[Analysis]) -> list[Analysis]:
    """Cut speech into pieces of `PIECE_S`; a rest of less than half of that stays with the piece before it."""
    size = round(PIECE_S * model.mel_config.frame_rate)
    pieces = []
    for seen in speech:
        n = seen.mel.shape[-1]
        starts = [at for at in range(0, n, size) if at == 0 or n - at >= size // 2]
        for start, stop in zip(starts, [*starts[1:], n], strict=True):
            pieces.append(replace(seen, mel=seen.mel[..., start:stop], f0=seen.f0[:, start:stop]))
    return pieces


@torch.no_grad()
def _convert_piece(model: Engine, piece: Analysis, known: Voice, others: Sequence[Voice]) -> _Piece:
    """Return a piece with its content, and that of its conversions to other voices.

    A conversion is the piece plus the change of voice, the difference between its decodings in the other voice and in its own, so that it has
    the detail of a recording.
    """
    own = model.autoencoder.encode_content(piece.mel)
    decoded = decode_voice(model, own, piece.f0, known.speaker_embedding, reference=known.reference)
    contents = [own]
    for other in others:
        f0 = convert_f0(piece.f0, other)
        change = decode_voice(model, own, f0, other.speaker_embedding, reference=other.reference) - decoded
        contents.append(model.autoencoder.encode_content(piece.mel + change))
    return _Piece(piece.mel.clone(), piece.f0.clone(), tuple(content.clone() for content in contents))


@torch.no_grad()
def fit_input(decoder: Decoder, pieces: Sequence[_Piece]) -> None:
    """Change a decoder's input layer so that content of other voices gives what content of the voice itself gave.

    Content has remains of the voice and the accent that it was encoded from. They are the same in all conversions to a voice, so a linear map
    removes part of them: the map from the content of the conversions to that of the speech itself, by ridge regression.

    Args:
        decoder: Decoder, whose input layer is changed.
        pieces: Speech with its content, and that of its conversions.
    """
    layer, size = decoder.input, pieces[0].contents[0].shape[1]
    weight = layer.weight[:, :size].flatten(1)
    n, squares, products = 0, torch.zeros(()), torch.zeros(())
    for piece in pieces:
        own, *others = (
            _windows(content, piece.mel.shape[-1], decoder.stride, layer.kernel_size[0]) for content in piece.contents
        )
        for given in others:
            ones = torch.cat([given, torch.ones(len(given), 1)], dim=1)
            n, squares = n + len(given), squares + ones.T @ ones
            products = products + ones.T @ ((own - given) @ weight.T)
    change = torch.linalg.solve(squares + RIDGE * n * torch.eye(len(squares)), products)
    layer.weight[:, :size] += change[:-1].T.unflatten(1, (size, -1))
    layer.bias += change[-1]


def _windows(content: Tensor, n: int, stride: int, kernel: int) -> Tensor:
    """Return what the decoder's input layer sees of content (1, D, T / stride) at each frame: (n - kernel + 1, D * kernel)."""
    return content.repeat_interleave(stride, dim=-1)[0, :, :n].T.unfold(0, kernel, 1).flatten(1)


class _Trainer:
    """Training of some of a decoder's parameters.

    Attributes:
        decoder: The decoder that is trained.
    """

    def __init__(self, model: Engine, voice: Voice, pieces: Sequence[_Piece], rng: random.Random) -> None:
        autoencoder = model.autoencoder
        self._mean, self._deviation = autoencoder.mel_mean.clone(), autoencoder.mel_deviation.clone()
        self._embedding, self._pieces, self._rng = voice.speaker_embedding.clone(), pieces, rng
        self._stride = autoencoder.config.content.stride
        self.decoder: Decoder = copy.deepcopy(autoencoder.decoder).float()
        self._trained = {name: value for name, value in self.decoder.named_parameters() if _is_trained(name)}
        for name, value in self.decoder.named_parameters():
            value.requires_grad_(name in self._trained)
        self._references = [self._reference(piece) for piece in pieces]
        self._long = [n for n, piece in enumerate(pieces) if piece.mel.shape[-1] >= CROP]

    def _reference(self, piece: _Piece) -> Reference | None:
        encoder = self.decoder.reference_encoder
        if encoder is None:
            return None
        with torch.no_grad():
            return Reference(piece.contents[0].transpose(1, 2), encoder(self._normal(piece.mel)))

    def _normal(self, mel: Tensor) -> Tensor:
        return (mel - self._mean) / self._deviation

    def weights(self) -> dict[str, Tensor]:
        """Return the input layer and the trained parameters in half precision."""
        fitted = {f"input.{name}": value for name, value in self.decoder.input.named_parameters()}
        return {name: value.detach().half() for name, value in {**fitted, **self._trained}.items()}

    @torch.no_grad()
    def error_db(self, pieces: Sequence[_Piece]) -> float:
        """Return the mean error of the log-mel in dB of pieces that were converted to other voices and back."""
        known = [reference for reference in self._references if reference is not None]
        reference = Reference.join(known, [float(r.keys.shape[1]) for r in known]) if known else None
        errors = []
        for piece in pieces:
            for content in piece.contents[1:]:
                n, mean = piece.mel.shape[-1], log_f0_mean(piece.f0)
                made = self.decoder(content, n, self._embedding, piece.f0, f0_mean=mean, reference=reference)
                errors.append(float((made * self._deviation + self._mean - piece.mel).abs().mean()))
        return DB * sum(errors) / len(errors)

    def run(self, steps: int, max_s: float, progress: Callable[[float, float], object]) -> int:
        """Train, and return the number of steps."""
        started, done, n = time.perf_counter(), 0.0, 0
        optimizer = torch.optim.Adam(list(self._trained.values()), betas=(0.9, 0.98))
        progress(0.0, max_s)
        while n < steps and done < 1:
            # Linear warm-up, then a cosine to zero.
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, (n + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * done))
            loss = self._loss()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self._trained.values(), 1.0)
            optimizer.step()
            n += 1
            elapsed = time.perf_counter() - started
            done = max(n / steps, elapsed / max_s)
            progress(min(done, 1.0), elapsed * (1 - done) / done)
        return n

    def _loss(self) -> Tensor:
        """Return the loss of a batch: L1 of the normalised mel, and of its differences over time."""
        crops = [self._crop() for _ in range(BATCH)]
        contents, mels, f0s, means = (torch.cat(part) for part in list(zip(*crops, strict=True))[:4])
        references = [crop[4] for crop in crops if crop[4] is not None]
        reference = None
        if references:
            n = min(r.keys.shape[1] for r in references)
            reference = Reference(
                torch.cat([r.keys[:, :n] for r in references]), torch.cat([r.values[:, :n] for r in references])
            )
        made = self.decoder(
            contents, mels.shape[-1], self._embedding.expand(BATCH, -1), f0s, f0_mean=means, reference=reference
        )
        error: Tensor = made - self._normal(mels)
        return error.abs().mean() + DIFFERENCE_WEIGHT * error.diff(dim=-1).abs().mean()

    def _crop(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Reference | None]:
        """Return content, mel, F0 and its mean of a random crop, and another piece as its reference."""
        rng = self._rng
        number = rng.choice(self._long)
        piece, other = self._pieces[number], rng.choice([n for n in self._long if n != number])
        content = piece.contents[0 if rng.random() < OWN_SHARE else rng.randrange(1, len(piece.contents))]
        at = rng.randrange((piece.mel.shape[-1] - CROP) // self._stride + 1) * self._stride
        frames = slice(at, at + CROP)
        code = content[..., at // self._stride : (at + CROP) // self._stride]
        return code, piece.mel[..., frames], piece.f0[:, frames], log_f0_mean(piece.f0), self._references[other]


def _is_trained(name: str) -> bool:
    return not name.startswith("reference_encoder.") and any(part in name for part in TRAINED)
