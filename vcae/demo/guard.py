"""Middleware in front of gradio: only the routes that the page needs, bounded requests, and no resources of other hosts."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from vcae.demo.meters import Meters
from vcae.demo.studio import Studio

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Routes that the page and gradio's client use. Gradio's other routes (fetching of other hosts' files, recording, monitoring,
# editing of the app, a run's history) are not served.
ROUTES = re.compile(
    r"/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|login|logout|assets/.+|static/.+|svelte/.+)?/?"
    r"|/studio/(assets/[\w.-]+|made/[\w-]+/[^/]+|sample|live/[\w-]+)"
    r"|/gradio_api/(info|openapi\.json|config|theme\.css|user|token|app_id|login_check|startup-events|reset|cancel|upload|upload_progress"
    r"|heartbeat/[^/]+|run/[^/]+|queue/(join|data|status)|call/[^/]+(/[^/]+)?|file=.+)/?"
)
# Routes of the HTTP service.
SERVICE_ROUTES = re.compile(r"/v1/(convert|denoise|voices)|/health|/metrics|/openapi\.json|/docs")
# Routes that need no key: gradio asks its own server for the second when it starts.
OPEN_ROUTES = ("/health", "/gradio_api/startup-events")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FILE = "/gradio_api/file="
# Largest body of a request other than an upload, in bytes.
MAX_BODY = 1 << 20
# Largest upload, in files of the largest size.
UPLOAD_FILES = 4
# Gradio writes inline scripts into the page, and compiles its HTML component's templates and the scripts of events with `Function`: without
# 'unsafe-eval' Chromium says "Evaluating a string as JavaScript violates the following Content Security Policy directive", and the page stays
# empty (gradio 6.31). Everything else must come from this server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; connect-src 'self' data: blob:; font-src 'self' data:; "
    "worker-src 'self' blob:; frame-src 'none'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(self)"),
]
# Gradio's own advertisement in the page's head, with pictures on other hosts.
CARDS = re.compile(rb'\s*<meta\s+(?:property="og:|name="twitter:)[^>]*>')
# Gradio speaks the browser's language where it knows it; here it speaks English, which the page translates to the language that is chosen.
ENGLISH = (
    b"<script>window.vcaeLanguage = navigator.language; Object.defineProperty(navigator, 'language', { value: 'en' });</script>"
)


class Guard:
    """ASGI middleware that refuses what the page does not need, and that names, counts and logs requests.

    Args:
        app: The app behind it.
        studio: Limits and folders to use.
        service: Counts of the HTTP service, whose routes are served then; None for the page.
        keys: API keys, of which every request must give one; none when empty.
        auth: NAME:PASSWORD that requests to the HTTP service must give; gradio itself asks for it on its own routes.
    """

    def __init__(
        self, app: Any, studio: Studio, service: Meters | None = None, keys: Sequence[str] = (), auth: str | None = None
    ) -> None:
        self._app, self._studio, self._service, self._keys = app, studio, service, tuple(keys)
        self._basic = None if auth is None else base64.b64encode(auth.encode()).decode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or refuse it with a sentence."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        given = _header(scope, b"x-request-id")
        name = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope["vcae_request_id"] = name
        answer = _Answer(send, scope["path"] == "/", name)
        refusal = self._refusal(scope)
        try:
            if refusal is not None:
                # A client that is still sending would not read the answer.
                await _drain(receive, UPLOAD_FILES * self._studio.limits.max_bytes)
                await _say(answer.send, *refusal, name)
            else:
                await self._app(scope, receive, answer.send)
        finally:
            self._record(scope, name, answer.status, time.perf_counter() - start)

    def _record(self, scope: Scope, name: str, status: int, seconds: float) -> None:
        """Count and log a request to the HTTP service."""
        path = scope["path"]
        if self._service is None:
            return
        known = path if SERVICE_ROUTES.fullmatch(path) else "other"
        self._service.add_request(known, status, seconds)
        log.info("request %s: %s %s %d in %.0f ms", name, scope["method"], known, status, 1000 * seconds)

    def _has_key(self, scope: Scope) -> bool:
        given = _header(scope, b"authorization").removeprefix("Bearer ").strip() or _header(scope, b"x-api-key")
        return any(hmac.compare_digest(given.encode(), key.encode()) for key in self._keys)

    def _has_password(self, scope: Scope) -> bool:
        given = _header(scope, b"authorization")
        return given.startswith("Basic ") and hmac.compare_digest(given[6:].strip().encode(), (self._basic or "").encode())

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        path = scope["path"]
        service = self._service is not None and SERVICE_ROUTES.fullmatch(path) is not None
        if not service and (not ROUTES.fullmatch(path) or not self._servable(path)):
            return 404, "there is nothing here"
        if self._keys and path not in OPEN_ROUTES and not self._has_key(scope):
            return 401, "a valid API key is missing; send the header Authorization: Bearer KEY"
        if service and self._basic is not None and path not in OPEN_ROUTES and not self._has_password(scope):
            return 401, "the name and password are missing or wrong; with curl, give -u NAME:PASSWORD"
        if scope["method"] != "POST":
            return None
        length = _header(scope, b"content-length")
        if not length.isdigit():
            return 411, "a request must say its length"
        upload = path.rstrip("/").endswith("/upload") or service
        limits = self._studio.limits
        most = UPLOAD_FILES * limits.max_bytes if upload else MAX_BODY
        if int(length) > most:
            return 413, f"that is too large: {int(length) / 1e6:.1f} MB, and {most / 1e6:.1f} MB are allowed"
        if upload and self._studio.full():
            return 503, f"the room for files is full; try again in {limits.minutes:g} minutes"
        return None

    def _servable(self, path: str) -> bool:
        """Return whether a path is that of an upload or result of a visitor, or not that of a file."""
        if not path.startswith(FILE):
            return True
        wanted = os.path.normpath(path.removeprefix(FILE).rstrip("/"))
        return wanted.startswith(str(self._studio.uploads) + os.sep)


class _Answer:
    """Sender of an answer with added headers and, for the page, without resources on other hosts."""

    def __init__(self, send: Send, page: bool, name: str) -> None:
        self._send, self._page, self._name = send, page, name.encode()
        self.status = 500
        self._start: MutableMapping[str, Any] | None = None
        self._body = b""

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), *HEADERS, (b"x-request-id", self._name)]
            if self._page:
                self._start = message
                return
        elif self._page and self._start is not None and message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if message.get("more_body"):
                return
            body = CARDS.sub(b"", self._body).replace(b"<head>", b"<head>" + ENGLISH, 1)
            kept = [(k, v) for k, v in self._start["headers"] if k.lower() != b"content-length"]
            self._start["headers"] = [*kept, (b"content-length", str(len(body)).encode())]
            await self._send(self._start)
            message = {**message, "body": body}
            self._start = None
        await self._send(message)


async def _drain(receive: Receive, most: int) -> None:
    """Read and discard a request's body, up to a limit."""
    while most > 0:
        message = await receive()
        most -= len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return


def _header(scope: Scope, name: bytes) -> str:
    """Return a request's header, or an empty text."""
    return str(dict(scope["headers"]).get(name, b"").decode("latin-1"))


async def _say(send: Send, status: int, text: str, name: str) -> None:
    body = json.dumps({"detail": text, "error": text, "request_id": name}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Basic" if "password" in text else b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
