"""The HTTP service: sound in, sound out, by plain requests."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.background import BackgroundTask
from starlette.routing import Mount, Route

from vcae import VcaeError, __version__, read_sound, write_sound
from vcae.audio.io import read_comment
from vcae.demo.cards import all_cards, card_file
from vcae.demo.manual import manual_html
from vcae.demo.meters import Meters
from vcae.demo.served import TYPES
from vcae.demo.streaming import Stream, wav_blocks
from vcae.demo.studio import StoppedError, Studio, plain
from vcae.demo.work import convert_files, convert_stream, denoise_file
from vcae.errors import ConfigError
from vcae.options import AUTO, DENOISE_STRENGTH, ConvertOptions

log = logging.getLogger(__name__)
Format = Literal["wav", "flac", "mp3", "m4a"]
# Seconds after which a refused client may try again.
RETRY_S = 5


class BusyError(Exception):
    """Error for a request that finds all places in the queue taken."""


class Seats:
    """Places for jobs: those that run and those that wait.

    Args:
        most: Number of places.
    """

    def __init__(self, most: int) -> None:
        self._most, self._taken, self._lock = most, 0, threading.Lock()

    @property
    def taken(self) -> int:
        """Number of taken places."""
        return self._taken

    @contextmanager
    def take(self) -> Iterator[None]:
        """Take a place for the duration of a block.

        Raises:
            BusyError: If there is none.
        """
        with self._lock:
            if self._taken >= self._most:
                raise BusyError
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1


class Service:
    """Jobs of the HTTP service.

    Args:
        studio: Models, folders and limits to use.
        meters: Counts of requests and jobs.
    """

    def __init__(self, studio: Studio, meters: Meters) -> None:
        self._studio, self._meters = studio, meters
        self._seats = Seats(studio.limits.jobs + studio.limits.queue)
        meters.watch(lambda: self._seats.taken)

    def convert(
        self, source: UploadFile, references: list[UploadFile], voice: str, options: ConvertOptions, form: str
    ) -> Response:
        """Convert an upload to the voice of other uploads, of a name, or of both."""

        def work(folder: Path) -> Path:
            clips = [_save(folder / f"reference-{n}", upload) for n, upload in enumerate(references)]
            saved = [_voice_file(self._studio, voice)] if voice else []
            given = _save(folder / "source", source)
            with self._studio.job(None) as check:
                done = convert_files(self._studio, given, clips, saved, options, check)
            self._meters.add_sound("convert", done.sound.duration_s)
            return done.path

        return self._answer(work, form)

    def stream(self, source: UploadFile, references: list[UploadFile], voice: str, options: ConvertOptions) -> Response:
        """Convert as `convert` does, and send the sound as 16-bit wav while the rest is converted.

        The whole is not known when the first sound is sent, so its loudness follows the source's in one pass.
        """
        held = ExitStack()

        def work(check: Callable[[], None]) -> Iterator[bytes]:
            clips = [_save(folder / f"reference-{n}", upload) for n, upload in enumerate(references)]
            saved = [_voice_file(self._studio, voice)] if voice else []
            given = _save(folder / "source", source)
            with self._studio.job(None) as stopped:

                def both() -> None:
                    check()
                    stopped()

                made = convert_stream(self._studio, given, clips, saved, replace(options, loudness="running"), both)
                n = round(made.duration_s * made.sample_rate)
                yield from wav_blocks(made.blocks, made.sample_rate, made.channels, n)
            self._meters.add_sound("convert", made.duration_s)

        held.enter_context(self._seats.take())
        folder = held.enter_context(self._studio.room())
        sent = Stream(work, held.close)
        self._studio.begin(sent.make)
        return StreamingResponse(sent.rest(sent.first()), media_type=TYPES[".wav"])

    def denoise(self, source: UploadFile, strength: float, form: str) -> Response:
        """Denoise an upload."""

        def work(folder: Path) -> Path:
            given = _save(folder / "source", source)
            with self._studio.job(None) as check:
                done = denoise_file(self._studio, given, strength, check)
            self._meters.add_sound("denoise", done.sound.duration_s)
            return done.path

        return self._answer(work, form)

    def _answer(self, work: Callable[[Path], Path], form: str) -> Response:
        """Return the file that work makes, in a format; uploads and the file are removed afterwards."""
        made: Path | None = None

        def encoded() -> Path:
            nonlocal made
            made = work(folder)
            wanted = made.with_suffix("." + form)
            if wanted != made:
                write_sound(wanted, read_sound(made, mixed=False), read_comment(made), force=True)
            return wanted

        try:
            with self._seats.take(), self._studio.room() as folder:
                path = self._studio.do(encoded)
        except BaseException:
            if made is not None:
                self._studio.forget(made)
            raise
        forget = BackgroundTask(self._studio.forget, path)
        return FileResponse(path, media_type=TYPES[path.suffix], filename=path.name, background=forget)


def _save(path: Path, upload: UploadFile) -> Path:
    """Write an upload to a folder of its own, under its own name."""
    path.mkdir()
    target = path / (Path(upload.filename or "").name or "upload")
    with target.open("wb") as out:
        shutil.copyfileobj(upload.file, out)
    return target


def _voice_file(studio: Studio, voice: str) -> Path:
    """Return the file of a voice: a shared voice's name, or the id of a bundled or generated one.

    Raises:
        ConfigError: If there is none.
    """
    shared = studio.shared_voices()
    if voice in shared:
        return shared[voice]
    known = {card.key for card in all_cards(studio, {})}
    if voice not in known:
        raise ConfigError(f"no voice is called {voice!r}; GET /v1/voices lists them")
    return card_file(studio, {}, voice)


def build_api(studio: Studio, meters: Meters) -> FastAPI:
    """Return the app of the routes below `/v1`."""
    service = Service(studio, meters)
    app = FastAPI(
        title="vcae",
        version=__version__,
        description="Voice conversion. Convert only voices whose owners agreed, and say that the result is synthetic.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    sound: Any = {200: {"content": {kind: {} for kind in sorted(set(TYPES.values()))}, "description": "The sound."}}

    @app.post("/convert", response_class=FileResponse, responses=sound)
    def convert(
        source: Annotated[UploadFile, File(description="Recording with the words and the melody.")],
        reference: Annotated[list[UploadFile] | None, File(description="Clips of the voice; none if `voice` is given.")] = None,
        voice: Annotated[str, Form(description="Id of a voice from /v1/voices.")] = "",
        pitch: Annotated[str, Form(description="auto, keep, or semitones from -36 to 36.")] = "auto",
        strength: Annotated[float, Form(description="From 0, the source's own voice, to 1.")] = 1.0,
        denoise: Annotated[
            Literal["auto", "yes", "no"], Form(description="Remove noise first; auto: if it is noisy.")
        ] = "auto",
        seed: Annotated[int, Form(ge=0, description="Seed of the vocoder's noise.")] = 0,
        speed: Annotated[float, Form(description="Factor on the speed, 0.5 to 2.")] = 1.0,
        formant: Annotated[float, Form(description="Shift of the formants in semitones, -12 to 12.")] = 0.0,
        expression: Annotated[float, Form(description="Factor on the liveliness of the melody, 0 to 2.")] = 1.0,
        rate: Annotated[int | None, Form(description="Sample rate of the answer in Hz; without it, the source's.")] = None,
        channels: Annotated[
            Literal["keep", "mono", "separate"],
            Form(description="keep: the voice is placed as the source's was; mono; separate: each channel by itself."),
        ] = "keep",
        loudness: Annotated[
            Literal["source", "flat"], Form(description="source: follow its loudness; flat: only its level.")
        ] = "source",
        format: Annotated[Format, Form(description="Format of the answer.")] = "wav",
        stream: Annotated[
            bool, Form(description="Send wav while the rest is converted; the level may differ a little.")
        ] = False,
    ) -> Response:
        """Convert a recording to another voice."""
        clean: bool | str = AUTO if denoise == "auto" else denoise == "yes"
        options = ConvertOptions(
            pitch, strength, loudness, seed, clean, speed, formant, expression, rate=rate, channels=channels
        )
        if stream:
            if format != "wav":
                raise ConfigError(f"only wav is streamed, and format is {format}; leave one of the two out")
            return service.stream(source, reference or [], voice.strip(), options)
        return service.convert(source, reference or [], voice.strip(), options, format)

    @app.post("/denoise", response_class=FileResponse, responses=sound)
    def denoise(
        source: Annotated[UploadFile, File(description="Noisy recording of speech.")],
        strength: Annotated[float, Form(description="From 0, unchanged, to 1.")] = DENOISE_STRENGTH,
        format: Annotated[Format, Form(description="Format of the answer.")] = "wav",
    ) -> Response:
        """Remove background noise; the sample rate and the channels stay."""
        return service.denoise(source, strength, format)

    @app.get("/voices")
    def voices() -> dict[str, Any]:
        """List the voices that `voice` of /v1/convert takes."""
        rows = []
        for card in all_cards(studio, {}):
            shared = card.key.startswith("shared:")
            rows.append({"id": card.name if shared else card.key, "name": card.name, "note": card.note})
        return {"voices": rows}

    app.add_exception_handler(VcaeError, lambda request, error: _say(request, 422, _sentence(str(error))))
    app.add_exception_handler(BusyError, lambda request, error: _say(request, 503, "All places are taken; try again soon."))
    app.add_exception_handler(StoppedError, lambda request, error: _say(request, 503, "The server is stopping."))
    app.add_exception_handler(Exception, _unexpected)
    return app


def _sentence(text: str) -> str:
    said = plain(text)
    return said[:1].upper() + said[1:] + "."


def _say(request: Request, status: int, text: str) -> JSONResponse:
    headers = {"Retry-After": str(RETRY_S)} if status == 503 else None
    return JSONResponse({"error": text, "request_id": request.scope.get("vcae_request_id")}, status, headers)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request %s failed", request.scope.get("vcae_request_id"), exc_info=error)
    return _say(request, 500, "An internal error occurred and was written to the server's log.")


def service_routes(studio: Studio, meters: Meters) -> list[Any]:
    """Return the routes of the service: `/v1`, `/health`, `/metrics`, `/openapi.json` and the manual at `/docs`."""
    api = build_api(studio, meters)

    def schema() -> dict[str, Any]:
        found = api.openapi()
        return {**found, "servers": [{"url": "/v1"}]}

    def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": __version__, "ready": studio.ready})

    def metrics(request: Request) -> Response:
        return PlainTextResponse(meters.text(), media_type=meters.media_type)

    def openapi(request: Request) -> Response:
        return JSONResponse(schema())

    def docs(request: Request) -> Response:
        return Response(manual_html(schema(), studio.limits.sentence), media_type="text/html")

    return [
        Mount("/v1", api),
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
    ]
