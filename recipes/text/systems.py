"""The systems of the table: each reads the steps of a recording as phones."""

from collections.abc import Callable, Sequence

import numpy as np
from settings import TextRecipe
from sklearn.cluster import MiniBatchKMeans
from texts import NUMBERS, read_dictionary

from vcae.errors import DataError
from vcae.evaluation.alignment import normalize_transcript
from vcae.model.ngram import Ngram
from vcae.model.phone_hmm import PhoneHmm
from vcae.model.segments import choose_penalty, merge, segment, squared_distances
from vcae.training.decipher import Deciphered, Steps, align, as_steps, decipher, estimate, learn_paired
from vcae.training.decipher_data import Speech, Text
from vcae.training.text_critic import CriticTraining, channel_text

# Silence and the phones; an unpaired reader gives each step (T,) of a recording one of them.
N_PHONES = len(NUMBERS) + 1
Reader = Callable[[Speech], np.ndarray]


class Material:
    """Speech and text that the systems learn from.

    Args:
        speech: Recordings to learn from.
        text: Text to learn from.
        recipe: Settings.
    """

    def __init__(self, speech: Sequence[Speech], text: Text, recipe: TextRecipe) -> None:
        self.speech, self.recipe, self.text = speech, recipe, text
        ngram = Ngram(text.sequences, N_PHONES, 3)
        self.bigram, self.trigram = ngram.table(2), ngram.table(3)
        self.steps = as_steps(speech)
        self.part = as_steps(speech[: recipe.n_part])
        spoken = self.steps.latent[self.steps.active]
        self.phone_clusters, self.clusters = (self._cluster(spoken, n) for n in (N_PHONES - 1, recipe.n_clusters))
        self.penalties = [self._penalty(centroids) for centroids in (self.phone_clusters, self.clusters)]

    def _cluster(self, spoken: np.ndarray, n: int) -> np.ndarray:
        found = MiniBatchKMeans(n, batch_size=4096, n_init=1, max_iter=30, random_state=0).fit(spoken)
        return np.asarray(found.cluster_centers_, np.float32)

    def _penalty(self, centroids: np.ndarray) -> float:
        some = self.speech[:: max(len(self.speech) // 40, 1)]
        distances = [squared_distances(s.latent.float().numpy()[s.active.numpy()], centroids) for s in some]
        seconds = sum(map(len, distances)) * self.recipe.step_s
        return choose_penalty(distances, seconds * self.recipe.units_a_second)

    def units(self, one: Speech, of_phones: bool = False) -> np.ndarray:
        """Return the unit of each step (T,) of a recording, 0 in pauses, by clusters of the latent or one for each phone."""
        centroids, penalty = (self.phone_clusters if of_phones else self.clusters), self.penalties[0 if of_phones else 1]
        found, active = np.zeros(len(one.active), np.int64), one.active.numpy()
        if active.any():
            found[active] = 1 + segment(squared_distances(one.latent.float().numpy()[active], centroids), penalty)
        return found

    def likelihood(self, reader: Reader) -> float:
        """Return the log-likelihood of a step, if the phones that a reader gives were right: what seeds are chosen by."""
        posterior = np.eye(N_PHONES, dtype=np.float32)[
            np.concatenate([reader(one) for one in self.speech[: self.recipe.n_part]])
        ]
        whole = Steps(
            np.concatenate([s.latent.float().numpy() for s in self.speech[: self.recipe.n_part]]),
            np.concatenate([s.active.numpy() for s in self.speech[: self.recipe.n_part]]),
            np.array([len(s.latent) for s in self.speech[: self.recipe.n_part]]),
        )
        decipherment = self.recipe.decipher
        phones = estimate(whole, posterior, decipherment.scale, decipherment.prior)
        hmm = PhoneHmm(self.bigram, decipherment.stay, decipherment.skip, self.trigram)
        total = hmm.posteriors(phones.scores(self.part.latent, self.part.active), self.part.lengths)[1]
        return total / len(self.part.latent)


def cipher(material: Material, seed: int) -> Reader:
    """Return the reader without a critic: clusters that rebuild the latent best, each under the name of a random phone."""
    key = np.concatenate([[0], 1 + np.random.default_rng(seed).permutation(N_PHONES - 1)])
    return lambda one: key[material.units(one, of_phones=True)]


def deciphered(material: Material, seed: int) -> Reader:
    """Return the reader that expectation maximisation finds."""
    found = decipher(material.part, material.bigram, material.trigram, material.phone_clusters, material.recipe.decipher, seed)
    return lambda one: found.read(one.latent.float().numpy(), one.active.numpy())


def criticised(material: Material, seed: int) -> tuple[Reader, Reader]:
    """Return the reader that learned from a critic, and the same after REINFORCE."""
    recipe = material.recipe
    rng, settings = np.random.default_rng(seed), recipe.critic
    sequences = [merge(material.units(one))[0] for one in material.speech]
    text = channel_text(material.text.sequences[:: recipe.text_share], 0.2, 0.08, rng)
    training = CriticTraining(sequences, text, (recipe.n_clusters + 1, N_PHONES), settings, seed)
    training.run(settings.steps)
    first = training.frozen()
    training.run(settings.reinforce_steps, reinforce=True)
    second = training.frozen()

    def reader(read: Callable[[np.ndarray], np.ndarray]) -> Reader:
        def phones(one: Speech) -> np.ndarray:
            units = material.units(one)
            merged, starts = merge(units)
            lengths = np.diff(np.append(starts, len(units)))
            return np.repeat(np.where(merged == 0, 0, read(merged)), lengths)

        return phones

    return reader(first), reader(second)


def learn_key(material: Material) -> tuple[Deciphered, list[tuple[Speech, list[int]]]]:
    """Return the model that learned from the transcripts of the recordings, and the recordings with their phones.

    Raises:
        DataError: If no transcript has only words of the dictionary.
    """
    phones = [transcribed_phones(one) for one in material.speech]
    known = [(one, spoken) for one, spoken in zip(material.speech, phones, strict=True) if spoken]
    if not known:
        raise DataError("no transcript has only words of the dictionary; give English transcripts in the manifest")
    steps = as_steps([one for one, _ in known])
    spoken = [phones for _, phones in known]
    return learn_paired(steps, spoken, material.bigram, material.trigram, material.recipe.decipher), known


def paired(material: Material) -> Reader:
    """Return the reader that learned from the transcripts of the same recordings."""
    found, _ = learn_key(material)
    return lambda one: found.read(one.latent.float().numpy(), one.active.numpy())


def oracle_key(material: Material) -> Reader:
    """Return the reader that gives each unit the phone that it most often has in aligned transcripts."""
    found, known = learn_key(material)
    counts = np.zeros((N_PHONES, material.recipe.n_clusters + 1))
    for one, spoken in known:
        active = one.active.numpy()
        path = align(found.phones.scores(one.latent.float().numpy()[active], active[active]), spoken)
        np.add.at(counts, (path, material.units(one)[active]), 1)
    key = counts.argmax(axis=0)
    return lambda one: key[material.units(one)]


def transcribed_phones(one: Speech, said: dict[str, list[tuple[str, ...]]] | None = None) -> list[int] | None:
    """Return the phones of a transcript; None if the dictionary lacks a word of it."""
    said = said or read_dictionary()
    words = normalize_transcript(one.transcript)
    if not words or any(word not in said for word in words):
        return None
    return [NUMBERS[phone] for word in words for phone in said[word][0]]
