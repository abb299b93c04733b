"""Live conversion in a browser: `python benchmarks/live_page.py --seconds 60`.

Starts `vcae demo`, opens the tab Live in a headless Chromium whose microphone plays the bundled clip, and prints the delay that the page measures
(from a sample's capture to its playback, buffers of the browser included), the gaps in the sound, and the level of what is played.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
PORT = 7878
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of the conversion")
    seconds = parser.parse_args().seconds
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no Chromium; on Debian: apt-get install chromium")
    words = [sys.executable, "-m", "vcae", "demo", "--port", str(PORT), "--device", "cpu"]
    server = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        with sync_playwright() as started, tempfile.TemporaryDirectory() as folder:
            wav, rate = soundfile.read(ROOT / "demo" / "clips" / "source.flac", dtype="int16")
            soundfile.write(Path(folder) / "talk.wav", wav, rate)
            heard = f"--use-file-for-fake-audio-capture={folder}/talk.wav"
            browser = started.chromium.launch(executable_path=chromium, args=[*ARGUMENTS, heard])
            page = browser.new_context(permissions=["microphone"], locale="en-US").new_page()
            page.goto(f"http://127.0.0.1:{PORT}")
            page.get_by_role("tab", name="Live", exact=True).click()
            page.click("#live-start")
            told = page.locator(".vcae-live-told", has_text=re.compile(r"Live\. Delay"))
            told.wait_for(timeout=120_000)
            delays, levels, gaps = [], [], 0
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                page.wait_for_timeout(500)
                delay, lost = map(int, re.search(r"Delay (\d+) ms, gaps in the sound: (\d+)", told.inner_text()).groups())
                delays.append(delay)
                levels.append(page.locator(".vcae-levels [role=meter]").nth(1).evaluate("meter => Number(meter.ariaValueNow)"))
                gaps = lost
            browser.close()
    finally:
        server.terminate()
        server.wait(timeout=30)
    found = {"seconds": seconds, "delay_ms_median": float(np.median(delays)), "delay_ms_max": max(delays), "gaps": gaps}
    print(json.dumps(found | {"output_db_median": round(float(np.median(levels)), 1)}))


if __name__ == "__main__":
    main()
