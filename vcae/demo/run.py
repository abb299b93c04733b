"""Running the server until it is stopped; afterwards all files are removed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcae.demo.limits import Limits
from vcae.errors import ConfigError
from vcae.signals import NUMBERS

# Most visitors whose state is kept; the oldest are forgotten first.
SESSIONS = 200
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """Address and access of the server.

    Attributes:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        auth: NAME:PASSWORD, or None.
        share: Ask gradio's service for a public link.
        open_browser: Open the page in a browser.
        public: Treat visitors as strangers even if only this machine can connect, as behind a proxy.
        keys: API keys, of which every request to the HTTP service must give one; none when empty.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    auth: str | None = None
    share: bool = False
    open_browser: bool = False
    public: bool = False
    keys: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        """Whether the page is for the user of this machine only."""
        return self.host in LOOPBACK and not self.share and not self.public and self.auth is None


def run(
    limits: Limits,
    address: Address,
    voices: Path | None = None,
    device: str = "auto",
    api_only: bool = False,
    say: Callable[[str], Any] = lambda text: None,
) -> None:
    """Serve the page, or the HTTP service only, until Ctrl-C, SIGTERM or SIGHUP; then remove all files.

    Args:
        limits: Limits for visitors.
        address: Address and access.
        voices: Folder of saved voices that every visitor may use, or None.
        device: See `vcae.load`.
        api_only: Serve HTTP without the page.
        say: Called with a line with the address when the server is ready.

    Raises:
        ConfigError: If gradio is missing, or the port is taken.
    """
    done = threading.Event()
    # First, as loading gradio and torch takes seconds in which it may be stopped too.
    for number in (signal.SIGINT, *NUMBERS):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: done.set())
    # Gradio makes folders when it is imported, and reads its settings then.
    root = Path(tempfile.mkdtemp(prefix="vcae-demo-"))
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_SERVER_NAME": address.host}
    os.environ |= {"GRADIO_TEMP_DIR": str(root / "uploads")} | proxy_settings(os.environ, address)
    try:
        _serve(limits, address, voices, device, api_only, say, root, done)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _serve(
    limits: Limits,
    address: Address,
    voices: Path | None,
    device: str,
    api_only: bool,
    say: Callable[[str], Any],
    root: Path,
    done: threading.Event,
) -> None:
    try:
        from vcae.demo.http import service_routes
        from vcae.demo.live import LiveSessions
        from vcae.demo.meters import Meters
        from vcae.demo.page import build_page, build_service
        from vcae.demo.served import add_routes, routes
        from vcae.demo.studio import Studio
    except ImportError as error:
        raise ConfigError(
            f"the page needs {error.name}, which is not installed; pip install 'vcae[demo]'"
            if error.name
            else f"the page cannot be loaded ({error})"
        ) from error
    port = free_port(address.host, address.port)
    studio = Studio(limits, device, voices, root, address.local and not api_only)
    sessions = LiveSessions(studio)
    loading: threading.Thread | None = None
    try:
        if done.is_set():
            return
        page = build_service(studio) if api_only else build_page(studio, sessions)
        # Closed API, so that nobody can bypass the queue.
        page.queue(max_size=limits.queue, default_concurrency_limit=limits.jobs, api_open=False)
        # Load the model now, so that the first visitor does not wait for it.
        loading = threading.Thread(target=studio.model, daemon=True)
        loading.start()
        meters = Meters() if api_only else None
        app, url, public = page.launch(**_settings(studio, address, port, meters))
        add_routes(app, routes(studio, sessions) if meters is None else service_routes(studio, meters))
        say(f"vcae: {url}" + (f" and {public}" if public else "") + "   (Ctrl-C ends it)")
        while not done.wait(0.5):
            pass
        page.close(verbose=False)
    finally:
        sessions.close()
        studio.close()
        if loading is not None:
            # A thread inside torch at the interpreter's end would abort the process.
            loading.join()


def proxy_settings(environment: Mapping[str, str], address: Address) -> dict[str, str]:
    """Return the environment variables that keep requests to this server from a proxy.

    Gradio asks its own server whether it has started, and reads the settings of proxies when it is imported. Without a public link nothing
    else is asked for, so no host has a proxy then.

    Args:
        environment: The present variables.
        address: Address and access of the server.
    """
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = ",".join(filter(None, [given, "localhost,127.0.0.1,[::1]", address.host])) if address.share else "*"
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def _settings(studio: Any, address: Address, port: int, meters: Any) -> dict[str, Any]:
    from starlette.middleware import Middleware

    from vcae.demo.guard import Guard
    from vcae.demo.look import CSS, HEAD, make_theme

    return {
        "server_name": address.host,
        "server_port": port,
        "auth": None if address.auth is None else tuple(address.auth.split(":", 1)),
        "share": address.share,
        "inbrowser": address.open_browser,
        "prevent_thread_lock": True,
        "quiet": True,
        "show_error": False,
        "max_file_size": studio.limits.max_bytes,
        "state_session_capacity": SESSIONS,
        "enable_monitoring": False,
        "run_history": False,
        "footer_links": [],
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        # Without gradio's request to its own page, which a busy machine answers too late: it would refuse to start.
        "_frontend": False,
        "theme": make_theme(),
        "css": CSS,
        "head": HEAD,
        "app_kwargs": {"middleware": [Middleware(Guard, studio=studio, service=meters, keys=address.keys, auth=address.auth)]},
    }


def free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0.

    Raises:
        ConfigError: If it is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"{host}:{port} cannot be listened on ({reason}); choose another --port, 0 takes a free one"
            ) from error
        return int(tried.getsockname()[1])
