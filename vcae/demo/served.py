"""Routes of the page's own parts: scripts, results in the format that is asked for, and samples of voices."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from vcae import VcaeError, read_sound, write_sound
from vcae.audio.io import read_comment
from vcae.demo.cards import SAMPLE, own_sample, sample_file
from vcae.demo.compare import FORMATS
from vcae.demo.live import LiveSessions
from vcae.demo.studio import PREFIX, SAVED, Studio, plain

SCRIPTS = dict.fromkeys(("studio.js", "live.js", "folders.js", "words.js", "worklet.js"), "text/javascript") | {
    "words.json": "application/json"
}
TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg", ".m4a": "audio/mp4"}
TOKEN = re.compile(r"[A-Za-z0-9_-]{20,40}")


def routes(studio: Studio, sessions: LiveSessions) -> list[Route]:
    """Return the routes of the page's own parts, all below `PREFIX`."""

    async def script(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in SCRIPTS:
            return _missing()
        text = (resources.files("vcae.demo") / "assets" / name).read_text(encoding="utf-8")
        return Response(text, media_type=SCRIPTS[name])

    async def made(request: Request) -> Response:
        token, name = request.path_params["token"], request.path_params["name"]
        found = await _answer(lambda: made_file(studio, token, name))
        return found if isinstance(found, Response) else FileResponse(found, media_type=TYPES.get(found.suffix))

    async def sample(request: Request) -> Response:
        if not signed_in(request):
            return PlainTextResponse("sign in first", status_code=401)
        found = await _answer(lambda: studio.do(lambda: sample_file(studio, request.query_params.get("card", ""))))
        return found if isinstance(found, Response) else FileResponse(found, media_type=TYPES[found.suffix])

    async def live(request: Request) -> Response:
        name = request.path_params["name"]
        if request.method == "DELETE":
            sessions.end(name)
            return Response(status_code=204)
        data = await request.body()
        try:
            return Response(await run_in_threadpool(sessions.convert, name, data), media_type="application/octet-stream")
        except VcaeError as error:
            return PlainTextResponse(str(error), status_code=409)

    return [
        Route(f"{PREFIX}/live/{{name}}", live, methods=["POST", "DELETE"]),
        Route(f"{PREFIX}/assets/{{name}}", script),
        Route(f"{PREFIX}/made/{{token}}/{{name}}", made),
        Route(f"{PREFIX}/sample", sample),
    ]


def signed_in(request: Request) -> bool:
    """Return whether a visitor has given the page's password, if it has one, as gradio keeps it: by a cookie."""
    app = request.app
    if app.auth is None:
        return True
    cookies = (request.cookies.get(f"access-token{kind}-{app.cookie_id}") for kind in ("", "-unsecure"))
    return any(token is not None and app.tokens.get(token) is not None for token in cookies)


async def _answer(work: Callable[[], Path | None]) -> Path | Response:
    """Return the file that work makes, or the answer that says why there is none."""
    try:
        path = await run_in_threadpool(work)
    except VcaeError as error:
        return PlainTextResponse(plain(str(error)), status_code=404)
    return _missing() if path is None else path


def made_file(studio: Studio, token: str, name: str) -> Path | None:
    """Return a visitor's file; None if there is none.

    A result is encoded as mp3 or m4a when it is first asked for in this format.

    Args:
        studio: Folder to use.
        token: Name of the file's folder, which cannot be guessed.
        name: Name of the file.
    """
    if not TOKEN.fullmatch(token) or Path(name).name != name:
        return None
    path = studio.private / token / name
    source = path.with_suffix(".wav")
    if name.endswith(SAMPLE) and not path.exists() and path.with_name(name.removesuffix(SAMPLE) + SAVED).exists():
        studio.do(lambda: own_sample(studio, path))
    if not path.exists() and path.suffix.removeprefix(".") in FORMATS and source.exists():
        studio.do(lambda: write_sound(path, read_sound(source, mixed=False), read_comment(source), force=True))
    return studio.kept(path, "the file") if path.exists() else None


def _missing() -> Response:
    return PlainTextResponse("there is nothing here", status_code=404)


def add_routes(app: Any, added: Sequence[Any]) -> None:
    """Add routes to the app, before gradio's own, which take any path."""
    app.router.routes[:0] = added
