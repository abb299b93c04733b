"""A real `vcae demo` or `vcae serve` for tests: a process of its own, on a free port."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.conftest import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What the browser itself would ask of other hosts is switched off: what is left is the page's.
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
START_S = 90.0
# Proxies that answer nobody: a server that asked them would fail.
DEAD_PROXIES = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "all_proxy": "socks5://127.0.0.1:9"}
DEAD_PROXIES |= {name.upper(): value for name, value in DEAD_PROXIES.items()}


def find_chromium():
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class Server:
    def __init__(self, process, url, log):
        self.process, self.url, self.log = process, url, log

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=30)


@contextlib.contextmanager
def serving(tmp_path, *arguments, command="demo", more=None):
    """Run a server until the block ends; its files lie under `tmp_path`, so that a test can see them go. `more` is added to its environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = Path(tmp_path) / "server.log"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONUNBUFFERED": "1"} | (more or {})
    with log.open("wb") as out:
        words = [sys.executable, "-m", "vcae", command, "--port", str(port), "--device", "cpu", *map(str, arguments)]
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        deadline = time.monotonic() + START_S
        while b"Ctrl-C" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server did not start: {log.read_text()}")
            time.sleep(0.2)
        # With keys it answers too, with a refusal.
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(server.url, timeout=30).read()
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
