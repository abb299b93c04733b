"""Jobs of the tab Generate: new voices, babble, and interpolation between two voices."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vcae import ConfigError, Sound, Voice, __version__, load_voice, save_voice, write_sound
from vcae.demo.clips import clip
from vcae.demo.studio import SAVED, Studio
from vcae.demo.work import Converted, Report, convert_files, gather_voice
from vcae.files import provenance
from vcae.options import BabbleOptions, ConvertOptions
from vcae.tasks.babble import babble
from vcae.voice.new import Place, between_voices, carry_voice, map_voices, new_voice, priors

# Checkpoint for babble.
BABBLER = "vq"
MAX_SEED = 2**31 - 1
MAX_BABBLE_S = 20.0
# Number of positions on the slider between two voices, including both ends.
PLACES = 21


@dataclass(frozen=True)
class Generated:
    """Generated voice as a file, with a recording converted to it.

    Attributes:
        voice: File of the voice.
        said: A recording converted to it.
        f0_hz: Median F0 of that recording; nan if nothing is voiced.
        place: Place of the voice on the map.
        nearest: Cosine to the nearest speaker of the training data.
    """

    voice: Path
    said: Converted
    f0_hz: float
    place: Place
    nearest: float


def check_seed(seed: float | None) -> int:
    """Check a visitor's seed and return it.

    Raises:
        ConfigError: If it is not a valid seed.
    """
    if seed is None or not 0 <= seed <= MAX_SEED:
        given = "missing" if seed is None else f"{seed:g}"
        raise ConfigError(f"the seed is {given}; give a whole number from 0 to {MAX_SEED}")
    return int(seed)


def draw_file(
    studio: Studio,
    source: str | Path | None,
    seed: float | None,
    spread: float,
    check: Callable[[], None],
    report: Report = lambda share, what: None,
) -> Generated:
    """Generate a voice and convert a recording to it.

    Args:
        studio: Models and folder to use.
        source: Sound file; None for the bundled clip.
        seed: As in `vcae.voice.new.new_voice`.
        spread: Factor on the deviation from the average voice, as in `vcae.voice.new.new_voice`.
        check: Called often; an exception that it raises ends the work.
        report: Called with the fraction done, 0 to 1, and a description of the present work.

    Raises:
        AudioError: For unusable sound.
        ConfigError: For a seed or a spread that is not allowed.
    """
    number = check_seed(seed)
    report(0.02, "drawing a voice")
    voice = new_voice(studio.model(), number, spread)
    name = f"new-{number}"
    return _say(studio, source, voice, name, {"clips": [], "generated": {"seed": number, "spread": spread}}, check, report)


def between_file(
    studio: Studio,
    source: str | Path | None,
    ends: Sequence[tuple[Sequence[str | Path], Sequence[str | Path]]],
    share: float,
    check: Callable[[], None],
    report: Report = lambda share, what: None,
) -> Generated:
    """Convert a recording to a voice between two.

    Args:
        studio: As in `draw_file`.
        source: As in `draw_file`.
        ends: Clips and saved voices of the first voice, and of the second.
        share: Fraction of the second voice, 0 to 1, rounded to `PLACES` positions.
        check: As in `draw_file`.
        report: As in `draw_file`.

    Raises:
        AudioError: For unusable sound, or a missing voice.
        ConfigError: For a fraction that is not allowed, or a fine-tuned voice.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"the place is {share:g}; allowed are 0, the first voice, to 1, the second")
    for (clips, saved), which in zip(ends, ("first", "second"), strict=True):
        if not clips and not saved:
            raise ConfigError(f"the {which} voice is missing; upload or record a clip of it, or choose a saved voice")
    report(0.02, "listening to both voices")
    model = studio.model()
    first, second = (gather_voice(studio, model, clips, saved) for clips, saved in ends)
    check()
    voice = between_voices(model, first, second, PLACES)[round(share * (PLACES - 1))]
    names = [Path(each).stem if each in saved else Path(each).name for clips, saved in ends for each in (*clips, *saved)]
    return _say(studio, source, voice, f"between-{100 * share:.0f}", {"clips": names, "share": share}, check, report)


def _say(
    studio: Studio,
    source: str | Path | None,
    voice: Voice,
    name: str,
    facts: dict[str, object],
    check: Callable[[], None],
    report: Report,
) -> Generated:
    """Save a voice, and convert a recording to it."""
    path = studio.new_file(name + SAVED)
    save_voice(voice, path, {**facts, "made_by": f"vcae {__version__}", "made_at": now()}, force=True)
    check()
    done = convert_files(studio, source or clip("source.flac"), [], [path], ConvertOptions(), check, report)
    named = done.path.with_name(f"{done.path.name.removesuffix('.converted.wav')}.{name}.wav")
    done.path.rename(named)
    nearest = float((priors().known @ voice.speaker_embedding.cpu()[0]).max())
    return Generated(path, replace(done, path=named), done.made.output_f0_hz, map_voices([voice])[0], nearest)


def babble_file(
    studio: Studio,
    reference: str | Path | None,
    drawn: str | Path | None,
    options: BabbleOptions,
    check: Callable[[], None],
) -> tuple[Path, Sound, float]:
    """Generate babble in the voice of a clip or, without one, in a generated voice, into a new file.

    Args:
        studio: Models and folder to use.
        reference: Clip of the voice, or None.
        drawn: File of a voice of the checkpoint `default`, or None.
        options: Options of the babble.
        check: Called between steps; an exception that it raises ends the work.

    Returns:
        The file, its sound, and the median F0 in Hz.

    Raises:
        AudioError: For an unusable clip.
        ConfigError: If there is neither, or the babble would be too long.
    """
    if options.seconds > MAX_BABBLE_S:
        raise ConfigError(f"seconds is {options.seconds:g}; allowed are 0.5 to {MAX_BABBLE_S:g} here")
    if reference is None and drawn is None:
        raise ConfigError("there is no voice yet to babble in; draw one above, or give a clip of one")
    model = studio.model(BABBLER)
    check()
    if reference is not None:
        voice = gather_voice(studio, model, [reference], [])
    else:
        voice = carry_voice(studio.model(), load_voice(Path(str(drawn)), studio.model()), model)
    check()
    made = babble(model, voice, options)
    sound = Sound(made.wav.numpy(), model.sample_rate, "babble")
    path = studio.new_file(f"babble-{options.seed}.wav")
    write_sound(path, sound, provenance(model.checkpoint, "babbled"))
    return path, sound, made.output_f0_hz


def now() -> str:
    """Return the present time in ISO format, for the metadata of a voice."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
