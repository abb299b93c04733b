"""The shelf of voice cards: bundled, generated and saved voices, each with a sample to play."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from vcae import CheckpointError, ConfigError, Sound, load_voice, save_voice, write_sound
from vcae.demo.clips import clip
from vcae.demo.limits import read_upload
from vcae.demo.studio import PREFIX, SAVED, Studio
from vcae.demo.voices import SHARED, choose_files
from vcae.options import ConvertOptions
from vcae.tasks.convert import convert
from vcae.voice.file import read_voice_facts
from vcae.voice.new import draw, map_voices, new_voice, priors
from vcae.voice.sample import voice_sample
from vcae.voice.shelf import NAME, voices_folder

# Bundled voices: the name of the clip, and of the card.
BUNDLED = {"reference": "Woman 1", "reference2": "Woman 2", "source": "Man 1"}
# Seeds of the generated voices: a low, a medium, a high and a very high one.
SEEDS = (2, 5, 3, 36)
# Upper ends in Hz of what is called a low and a medium voice.
LOW_HZ, MEDIUM_HZ = 135.0, 185.0
WHOLE_NOTES = {"low": "low voice", "medium": "medium voice", "high": "high voice"}
# Most saved voices that are shown.
MAX_SAVED = 40
NEW = "new"
# A triangle, and two bars while it plays.
ICON = (
    '<svg class="vcae-icon" viewBox="0 0 16 16" aria-hidden="true"><path class="vcae-play" d="M4 2v12l10-6z"/>'
    '<path class="vcae-pause" d="M3 2h4v12H3zM9 2h4v12H9z"/></svg>'
)
# Seconds of a sample, and the end of its file's name for a visitor's own voice.
SAMPLE_S, SAMPLE = 5.0, ".sample.flac"


@dataclass(frozen=True)
class Card:
    """Card of a voice.

    Attributes:
        key: Kind and name: `clip:NAME`, `seed:N`, `mine:NAME` (of the visitor), `saved:NAME` (in the user's folder), `shared:NAME`.
        name: Name that is shown.
        f0_hz: Median F0; nan if unknown.
        origin: Origin in a word or two; may be empty.
    """

    key: str
    name: str
    f0_hz: float
    origin: str

    @property
    def note(self) -> str:
        """Range of the voice and its origin, for the card's second line."""
        kind = range_of(self.f0_hz)
        if not kind or not self.origin:
            return self.origin or WHOLE_NOTES.get(kind, "")
        return f"{kind} · {self.origin}"


def range_of(f0_hz: float) -> str:
    """Return a word for the range of a voice by its median F0; none if that is unknown."""
    return "" if math.isnan(f0_hz) else "low" if f0_hz < LOW_HZ else "medium" if f0_hz < MEDIUM_HZ else "high"


@lru_cache(maxsize=1)
def standing_cards() -> tuple[Card, ...]:
    """Return the cards of bundled and generated voices."""
    known = priors()
    places = map_voices([draw(known, seed) for seed in SEEDS], known)
    bundled = [Card(f"clip:{name}", shown, math.nan, "example clip") for name, shown in BUNDLED.items()]
    drawn = [
        Card(f"seed:{seed}", f"Invented {n}", place.f0_hz, "")
        for n, (seed, place) in enumerate(zip(SEEDS, places, strict=True), 1)
    ]
    return (*bundled, *drawn)


def all_cards(studio: Studio, visitor: Mapping[str, str]) -> list[Card]:
    """Return the cards that a visitor sees, his own and saved ones first."""
    saved = [(f"mine:{name}", name, Path(path), "yours") for name, path in visitor.items()]
    if studio.local:
        saved += [(f"saved:{path.stem}", path.stem, path, "saved") for path in sorted(voices_folder().glob(f"*{SAVED}"))]
    saved += [(f"shared:{name}", name, path, "shared") for name, path in studio.shared_voices().items()]
    return [card for each in saved[:MAX_SAVED] if (card := _read_card(*each)) is not None] + list(standing_cards())


def _read_card(key: str, name: str, path: Path, origin: str) -> Card | None:
    try:
        median = read_voice_facts(path)["log_f0_median"]
    except (CheckpointError, KeyError, OSError):
        return None
    return Card(key, name, math.nan if median is None else math.exp(median), origin)


def card_file(studio: Studio, visitor: Mapping[str, str], key: str) -> Path:
    """Return the file of a card's voice; those of bundled and generated voices are made when they are first asked for.

    Raises:
        ConfigError: If there is no such voice any more.
    """
    kind, _, name = key.partition(":")
    if kind == "mine":
        return choose_files(studio, visitor, [name])[0]
    if kind == "shared":
        return choose_files(studio, {}, [name + SHARED])[0]
    if kind == "saved" and studio.local and NAME.fullmatch(name) and (voices_folder() / (name + SAVED)).exists():
        return voices_folder() / (name + SAVED)
    if key not in {card.key for card in standing_cards()}:
        raise ConfigError(f"there is no voice {name!r} any more; choose another card")
    path = studio.cards / f"{kind}-{name}{SAVED}"
    if not path.exists():
        model = studio.model()
        if kind == "seed":
            voice, facts = new_voice(model, int(name)), {"clips": [], "generated": {"seed": int(name)}}
        else:
            sound = read_upload(clip(f"{name}.flac"), "the clip", math.inf)
            voice, facts = model.voice(sound.wav, sound.sample_rate), {"clips": [f"{name}.flac"]}
        save_voice(voice, path, facts, force=True)
    return path


def sample_file(studio: Studio, key: str) -> Path | None:
    """Return a sample of a card's voice that is not a visitor's own; None if there is none.

    A bundled voice plays its clip, a generated one says the bundled source, and a saved one its recordings.
    """
    kind, _, name = key.partition(":")
    if kind == "clip" and name in BUNDLED:
        return clip(f"{name}.flac")
    if kind not in ("seed", "saved", "shared"):
        return None
    voice_file = card_file(studio, {}, key)
    path = studio.cards / f"{kind}-{voice_file.stem}-{voice_file.stat().st_mtime_ns}.flac"
    if not path.exists():
        model = studio.model()
        voice = load_voice(voice_file, model)
        if kind == "seed":
            options = ConvertOptions(rate=model.sample_rate)
            spoken = convert(model, read_upload(clip("source.flac"), "the clip", math.inf), voice, options)
            write_sound(path, Sound(spoken.wav.numpy()[: round(SAMPLE_S * model.sample_rate)], model.sample_rate), "")
        else:
            write_sound(path, voice_sample(model, voice, name, SAMPLE_S), "")
    return path


def card_sample(studio: Studio, visitor: Mapping[str, str], key: str) -> Path:
    """Return a sample of any card's voice.

    Raises:
        ConfigError: If there is no such voice any more.
    """
    if not key.startswith("mine:"):
        found = sample_file(studio, key)
        if found is None:
            raise ConfigError(f"there is no voice {key!r} any more; choose another card")
        return found
    voice = card_file(studio, visitor, key)
    path = voice.with_name(voice.stem + SAMPLE)
    if not path.exists():
        own_sample(studio, path)
    return path


def own_sample(studio: Studio, path: Path) -> None:
    """Write a sample of a visitor's voice, `NAME.sample.flac` next to `NAME.safetensors`."""
    model = studio.model()
    name = path.name.removesuffix(SAMPLE)
    voice = load_voice(path.with_name(name + SAVED), model)
    write_sound(path, voice_sample(model, voice, name, SAMPLE_S), "")


def shelf_html(studio: Studio, visitor: Mapping[str, str], chosen: str = "", status: str = "", group: str = "voice") -> str:
    """Return the HTML of the shelf.

    Args:
        studio: Models and folders to use.
        visitor: Voices of the visitor.
        chosen: Key of the chosen card; the first bundled one if it is not there.
        status: Id of the place whose error goes when another voice is chosen.
        group: Prefix of ids.
    """
    cards = all_cards(studio, visitor)
    if chosen not in {NEW, *(card.key for card in cards)}:
        chosen = "clip:reference"
    shown = "".join(_card_html(card, card.key == chosen, group, _sample_url(card, visitor)) for card in cards)
    new = Card(NEW, "New voice", math.nan, "from your clip")
    shown += _card_html(new, chosen == NEW, group, "")
    return (
        f'<vcae-shelf class="vcae-shelf" role="radiogroup" aria-label="Voices" data-status="{status}" '
        f'chosen="{html.escape(chosen)}">{shown}</vcae-shelf>'
    )


def _sample_url(card: Card, visitor: Mapping[str, str]) -> str:
    if card.key.startswith("mine:"):
        # The folder of a visitor's voice has an unguessable name.
        path = Path(visitor[card.key.partition(":")[2]])
        return f"{PREFIX}/made/{path.parent.name}/{quote(path.stem)}{SAMPLE}".lstrip("/")
    return f"{PREFIX}/sample?card={quote(card.key)}".lstrip("/")


def _card_html(card: Card, chosen: bool, group: str, sample: str) -> str:
    place = f"{group}-{card.key.replace(':', '-')}"
    name, note = html.escape(card.name), html.escape(card.note)
    play = (
        f'<button type="button" class="vcae-voice-play" aria-pressed="false" aria-label="Play {name}" data-src="{html.escape(sample)}">'
        f"{ICON}</button>"
        if sample
        else '<span class="vcae-voice-plus" aria-hidden="true">+</span>'
    )
    return (
        f'<div class="vcae-voice"><input type="radio" name="{group}" id="{place}" value="{html.escape(card.key)}"'
        f'{" checked" if chosen else ""}><label for="{place}"><b>{name}</b><small>{note}</small></label>{play}</div>'
    )
