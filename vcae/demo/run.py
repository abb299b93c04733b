"""Running the server until it is stopped; afterwards all files are removed."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcae.demo.limits import Limits
from vcae.errors import ConfigError

# Most visitors whose state is kept; the oldest are forgotten first.
SESSIONS = 200


@dataclass(frozen=True)
class Address:
    """Address and access of the server.

    Attributes:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        auth: NAME:PASSWORD, or None.
        share: Ask gradio's service for a public link.
        open_browser: Open the page in a browser.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    auth: str | None = None
    share: bool = False
    open_browser: bool = False


def run(
    limits: Limits,
    address: Address,
    voices: Path | None = None,
    device: str = "auto",
    api_only: bool = False,
    say: Callable[[str], Any] = lambda text: None,
) -> None:
    """Serve the page, or the HTTP service only, until Ctrl-C or SIGTERM; then remove all files.

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
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_SERVER_NAME": address.host}
    try:
        from vcae.demo.page import build_page, build_service
        from vcae.demo.studio import Studio
    except ImportError as error:
        raise ConfigError(
            f"the page needs {error.name or 'gradio'}, which is not installed; pip install 'vcae[demo]'"
        ) from error
    port = free_port(address.host, address.port)
    studio = Studio(limits, device, voices)
    os.environ["GRADIO_TEMP_DIR"] = str(studio.uploads)
    done = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: done.set())
    try:
        page = build_service(studio) if api_only else build_page(studio)
        # Closed API, so that nobody can bypass the queue.
        page.queue(max_size=limits.queue, default_concurrency_limit=limits.jobs, api_open=False)
        # Load the model now, so that the first visitor does not wait for it.
        threading.Thread(target=studio.model, daemon=True).start()
        _, url, public = page.launch(**_settings(studio, address, port))
        say(f"vcae: {url}" + (f" and {public}" if public else "") + "   (Ctrl-C ends it)")
        while not done.wait(0.5):
            pass
        page.close(verbose=False)
    finally:
        studio.close()


def _settings(studio: Any, address: Address, port: int) -> dict[str, Any]:
    from starlette.middleware import Middleware

    from vcae.demo.guard import Guard
    from vcae.demo.look import CSS, DESCRIPTION, make_theme

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
        "theme": make_theme(),
        "css": CSS,
        "head": DESCRIPTION,
        "app_kwargs": {"middleware": [Middleware(Guard, studio=studio)]},
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
