"""The tab Voices: measure voices from clips, mix them, and keep them as files that only their visitor can use."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from vcae import CheckpointError, ConfigError, Voice, __version__, load_voice, mix_voices, save_voice
from vcae.demo.limits import MAX_REFERENCES, MAX_VOICES, read_uploads
from vcae.demo.pictures import note_html, table_html
from vcae.demo.studio import SAVED, Studio, session_of, shows_errors
from vcae.voice.file import read_voice_facts
from vcae.voice.shelf import NAME
from vcae.voice.voice import voice_from_sounds

SHARED = " (shared)"
# Checkpoint of the codec's base layer. A voice is also measured by it, and that is saved next to its file with a prefix that no name can have.
TWIN_CHECKPOINT, TWIN = "vq-narrow", "_"
HEAD = ("Name", "Speech", "Pitch", "Made from")


class Shelf:
    """Voices of a visitor: a state with their files, and the components that list them."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self.visitor = gr.State({}, time_to_live=60 * studio.limits.minutes * 4, delete_callback=self._forget)
        self._lists: list[gr.Dropdown] = []
        self._tables: list[gr.HTML] = []

    def _forget(self, visitor: dict[str, str]) -> None:
        for path in visitor.values():
            self._studio.forget(path)

    def dropdown(self, label: str) -> gr.Dropdown:
        """Add a list to choose voices from."""
        found = gr.Dropdown(self.names({}), value=[], multiselect=True, label=label, allow_custom_value=False)
        self._lists.append(found)
        return found

    def table(self) -> gr.HTML:
        """Add a table of the voices."""
        found = gr.HTML(_table({}, self._studio), padding=False, elem_id="voice-list")
        self._tables.append(found)
        return found

    def names(self, visitor: Mapping[str, str]) -> list[str]:
        """Return the names that a visitor may choose."""
        return [*visitor, *(name + SHARED for name in self._studio.shared_voices())]

    def follow(self) -> None:
        """Keep the lists and tables up to date with the state."""
        self.visitor.change(
            lambda visitor: [
                *(gr.update(choices=self.names(visitor)) for _ in self._lists),
                *(_table(visitor, self._studio) for _ in self._tables),
            ],
            self.visitor,
            [*self._lists, *self._tables],
            api_visibility="private",
            show_progress="hidden",
            queue=False,
        )


def choose_files(studio: Studio, visitor: Mapping[str, str], names: Sequence[str]) -> list[Path]:
    """Return the files of chosen voices: the visitor's own, and shared ones.

    Raises:
        ConfigError: If there is no such voice, or its file was removed.
    """
    shared = {name + SHARED: path for name, path in studio.shared_voices().items()}
    found = []
    for name in names:
        if name in visitor:
            found.append(studio.kept(visitor[name], f"the voice {name}"))
        elif name in shared:
            found.append(shared[name])
        else:
            raise ConfigError(f"no voice is called {name!r} here; save one on the tab Voices, or upload its file there")
    return found


def twin_of(path: Path) -> Path:
    """Return the path of a voice as measured by the codec's checkpoint; it may not exist."""
    return path.with_name(TWIN + path.name)


def choose_twins(studio: Studio, visitor: Mapping[str, str], names: Sequence[str]) -> list[Path]:
    """Return the files of chosen voices as `choose_files` does, but as measured for the codec if they exist."""
    files = choose_files(studio, visitor, names)
    return [twin_of(path) if twin_of(path).exists() else path for path in files]


def check_voice_name(name: str, visitor: Mapping[str, str]) -> str:
    """Check a voice's name and return it.

    Raises:
        ConfigError: If it is not a valid name, or the visitor has the largest number of voices.
    """
    name = name.strip()
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a valid voice name; use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    if len(visitor) >= MAX_VOICES and name not in visitor:
        raise ConfigError(
            f"{len(visitor)} voices are kept for you, which is the limit; use the name of one of them to replace it"
        )
    return name


def _table(visitor: Mapping[str, str], studio: Studio) -> str:
    rows = []
    files = {
        **{name: Path(path) for name, path in visitor.items()},
        **{n + SHARED: p for n, p in studio.shared_voices().items()},
    }
    for name, path in files.items():
        try:
            facts = read_voice_facts(path)
        except CheckpointError:
            rows.append((name, "", "", "cannot be read any more"))
            continue
        median = facts["log_f0_median"]
        pitch = "unvoiced" if median is None else f"{math.exp(median):.0f} Hz"
        rows.append((name, f"{facts['speech_s']:.1f} s", pitch, _made_from(facts["provenance"])))
    if not rows:
        return note_html(
            "No voice is kept yet. What you save here is seen by nobody else, and gone when you close or reload the page."
        )
    return table_html(HEAD, rows)


def _made_from(facts: Mapping[str, Any]) -> str:
    generated = facts.get("generated")
    if isinstance(generated, dict) and "seed" in generated:
        return f"nobody: seed {str(generated['seed'])[:20]}"
    return ", ".join(map(str, facts.get("clips", []))) or "-"


def keep_voice(
    studio: Studio, name: str, voice: Voice, twin: Voice | None, facts: Mapping[str, Any], visitor: Mapping[str, str]
) -> tuple[Path, dict[str, str]]:
    """Keep a voice for a visitor; it replaces one of the same name.

    Args:
        studio: Models and folder to use.
        name: From `check_voice_name`.
        voice: The voice, measured by the checkpoint `default`.
        twin: The voice, measured by the codec's checkpoint, or None.
        facts: Metadata on its origin.
        visitor: Voices kept so far.

    Returns:
        Its file, and the voices kept now.
    """
    path = studio.new_file(name + SAVED)
    made_at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    facts = {"author": "", "made_by": f"vcae {__version__}", "made_at": made_at, **facts}
    save_voice(voice, path, facts, force=True)
    if twin is not None:
        save_voice(twin, twin_of(path), facts, force=True)
    if name in visitor:
        studio.forget(visitor[name])
    return path, {**visitor, name: str(path)}


def build(studio: Studio, shelf: Shelf) -> None:
    """Add the tab's contents and its events."""
    gr.Markdown(
        "Measure a voice once, then choose it in the Studio. Download its file to bring it back another day; "
        "the command line takes it too, as --speaker FILE.",
        elem_classes="vcae-lead",
    )
    with gr.Row():
        with gr.Column():
            clips = gr.File(file_count="multiple", label="Clips of one voice", height=170, elem_id="voice-clips")
            name = gr.Textbox(label="Name", placeholder="alice", max_length=64, elem_id="voice-name")
            save = gr.Button("Save the voice", variant="primary", elem_id="voice-save")
        with gr.Column():
            with gr.Accordion("Mix two voices", open=False):
                with gr.Row():
                    first = shelf.dropdown("First")
                    second = shelf.dropdown("Second")
                share = gr.Slider(0, 1, 0.5, step=0.05, label="Share of the second")
                mixed_name = gr.Textbox(label="Name of the mix", placeholder="alice-and-bob", max_length=64)
                mix = gr.Button("Mix and save")
            with gr.Accordion("Bring a voice's file", open=False):
                file = gr.File(label="A voice that was saved before (.safetensors)", height=170, elem_id="voice-file")
                bring = gr.Button("Keep it here")
    status = gr.HTML(
        note_html("Saved voices can be downloaded here."), padding=False, elem_id="voice-status", elem_classes="vcae-status"
    )
    download = gr.DownloadButton("Download the voice", visible=False, elem_id="voice-download")
    shelf.table()

    def keep(name: str, voice: Voice, twin: Voice | None, facts: dict[str, Any], visitor: dict[str, str]) -> list[Any]:
        path, now = keep_voice(studio, name, voice, twin, facts, visitor)
        said = note_html(f"Kept {name}: {voice.speech_s:.1f} s of speech. Choose it in the Studio, or download it.", "done")
        return [said, gr.update(value=str(path), visible=True, label=f"Download {name + SAVED}"), now]

    @shows_errors(studio, status)
    def save_work(clips: list[str] | None, name: str, visitor: dict[str, str], request: gr.Request) -> list[Any]:
        name = check_voice_name(name or "", visitor)
        with studio.job(session_of(request)):
            if not clips:
                raise ConfigError("there are no clips to measure; upload at least one of the voice")
            limit = studio.limits.seconds
            sounds = read_uploads(clips, "the voice", MAX_REFERENCES, limit, limit)
            voice, twin = (voice_from_sounds(studio.model(checkpoint), sounds) for checkpoint in ("default", TWIN_CHECKPOINT))
            return keep(name, voice, twin, {"clips": [Path(clip).name for clip in clips]}, visitor)

    @shows_errors(studio, status)
    def mix_work(
        first: list[str], second: list[str], share: float, name: str, visitor: dict[str, str], request: gr.Request
    ) -> list[Any]:
        name = check_voice_name(name or "", visitor)
        with studio.job(session_of(request)):
            if not first or not second:
                raise ConfigError("there are not two voices to mix; choose one in each list, after saving them here")
            names = [*first, *second]
            files = choose_files(studio, visitor, names)
            weights = [(1 - share) / len(first)] * len(first) + [share / len(second)] * len(second)
            mixed = mix_voices([load_voice(path, studio.model()) for path in files], weights)
            twins, twin = [twin_of(path) for path in files], None
            if all(path.exists() for path in twins):
                twin = mix_voices([load_voice(path, studio.model(TWIN_CHECKPOINT)) for path in twins], weights)
            return keep(name, mixed, twin, {"clips": names}, visitor)

    @shows_errors(studio, status)
    def bring_work(file: str | None, visitor: dict[str, str], request: gr.Request) -> list[Any]:
        if file is None:
            raise ConfigError("there is no file; upload a voice that was saved before")
        name = check_voice_name(Path(file).stem, visitor)
        with studio.job(session_of(request)):
            voice = load_voice(Path(file), studio.model())
            known = read_voice_facts(Path(file))["provenance"]
            facts: dict[str, Any] = {"clips": [str(clip)[:60] for clip in known.get("clips", [])][:MAX_REFERENCES]}
            if isinstance(known.get("generated"), dict):
                facts["generated"] = {
                    key: str(value)[:20] for key, value in known["generated"].items() if key in ("seed", "spread")
                }
            return keep(name, voice, None, facts, visitor)

    outputs = [status, download, shelf.visitor]
    options: dict[str, Any] = {"show_progress_on": status, "concurrency_id": "work", "concurrency_limit": studio.limits.jobs}
    save.click(save_work, [clips, name, shelf.visitor], outputs, api_visibility="private", **options)
    mix.click(mix_work, [first, second, share, mixed_name, shelf.visitor], outputs, api_visibility="private", **options)
    bring.click(bring_work, [file, shelf.visitor], outputs, api_visibility="private", **options)
