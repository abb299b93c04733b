"""Times of the page for a new visitor: `python benchmarks/demo_page.py`.

Starts `vcae demo`, opens it in a headless Chromium with an empty profile, converts the bundled pair by one click, and prints the seconds
until the page is ready and until the first converted clip is there, the bytes of all answers, and the requests to other hosts.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
PORT = 7879
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no Chromium; on Debian: apt-get install chromium")
    found: dict[str, float] = {}
    start = time.perf_counter()
    server = subprocess.Popen([sys.executable, "-m", "vcae", "demo", "--port", str(PORT)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        found["server_ready_s"] = time.perf_counter() - start
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=ARGUMENTS)
            page = browser.new_page()
            requests = []
            page.on("requestfinished", lambda request: requests.append(request))
            before = time.perf_counter()
            page.goto(f"http://127.0.0.1:{PORT}")
            page.wait_for_selector("#convert")
            found["page_s"] = time.perf_counter() - before
            page.wait_for_timeout(1000)
            found |= _weigh(requests, "page")
            before = time.perf_counter()
            page.click("#example")
            page.wait_for_selector("#download-wav", timeout=120_000)
            found["click_to_clip_s"] = time.perf_counter() - before
            found["start_to_clip_s"] = found["server_ready_s"] + found["page_s"] + found["click_to_clip_s"]
            page.wait_for_timeout(1000)
            found |= _weigh(requests, "all")
            hosts = [urlparse(request.url).hostname for request in requests if request.url.startswith("http")]
            found["requests_to_other_hosts"] = sum(host != "127.0.0.1" for host in hosts)
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=30)
    print(json.dumps({key: round(value, 2) for key, value in found.items()}, indent=1))


def _weigh(requests: list, name: str) -> dict[str, float]:
    sizes = [request.sizes() for request in requests if request.url.startswith("http")]
    total = sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes)
    return {f"{name}_requests": len(sizes), f"{name}_megabytes": total / 1e6}


if __name__ == "__main__":
    main()
