"""Every card of the page in a browser: `python benchmarks/page_check.py --axe node_modules/axe-core/axe.min.js`.

Starts `vcae demo`, opens each tab and each entry of the Lab in a headless Chromium at 1280 and 390 px, light and dark, runs its example, opens
what is folded, and prints the findings of axe-core (`npm install axe-core`) by severity, pages wider than the window, errors in the console and,
with `--language de` or `zh`, the texts without a translation. `--pictures FOLDER` keeps a screenshot of each.
"""

import argparse
import collections
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, TimeoutError, sync_playwright

ROOT = Path(__file__).parent.parent
PORT = 7877
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
]
WIDTHS = {1280: 800, 390: 844}
SCHEMES = ("light", "dark")
WAIT_MS = 180_000
# Tab, button of its example (or of what it does without an input), and what is there when it is done.
CARDS = {
    "Studio": ("#example", "#download-wav"),
    "Live": ("#live-start", ".vcae-levels"),
    "Clean up": ("#denoise-example", "#denoise-download-wav"),
    "Voices": ("#voice-save", "#voice-status .vcae-error"),
    "Lab": (None, None),
    "About": (None, None),
    "Say": ("#say-example", "#say-status .vcae-done"),
    "Units": ("#units-example", "#units-json"),
    "Codec": ("#codec-example", "#codec-facts dl"),
    "Generate": ("#generate-go", "#generate-facts dl"),
    "Features": ("#features-example", None),
    "Anomaly": ("#anomaly-example", "#anomaly-results table"),
}
TAB_IDS = {"Clean up": "denoise"}
LAB = ("Say", "Units", "Codec", "Generate", "Features", "Anomaly")
# Presses after the example of a tab, and what is there afterwards.
THEN = {
    "Features": [("#features-measure", "#features-facts dl"), ("#features-rebuild", "#features-pictures img")],
    "Codec": [("#codec-say", "#codec-said-note .vcae-done")],
    "Units": [("#units-say", "#units-said audio, #units-said #waveform")],
    "Generate": [("#generate-babble-go", "#generate-babble-status .vcae-done")],
}


class Seen:
    """Faults so far, which are printed when they are found."""

    def __init__(self) -> None:
        self.n, self.severities, self.untranslated = 0, collections.Counter[str](), set[str]()

    def add(self, fault: str) -> None:
        """Print and count a fault."""
        self.n += 1
        print(fault, flush=True)


def open_tab(page: Page, name: str) -> None:
    """Open a tab, or an entry of the Lab, also where it is in a menu."""
    if name in LAB:
        open_tab(page, "Lab")
    place = page.locator("#lab" if name in LAB else "body")
    outside = "" if name in LAB else ":not(#lab button)"
    tabs = place.locator(f"button[role=tab]{outside}:visible")
    tab = place.locator(f"button[role=tab][data-tab-id={TAB_IDS.get(name, name.lower())}-tab]:visible")
    if tab.count():
        tab.first.click()
        return
    # The menu has the tabs that do not fit, without their ids: those after the last one that does.
    names = [each for each in CARDS if (each in LAB) == (name in LAB)]
    menu = place.locator(f".overflow-menu{outside.replace('button', '*')}:visible")
    menu.locator("button").first.click()
    menu.locator(".overflow-dropdown button").nth(names.index(name) - tabs.count()).click()


def unfold(page: Page) -> None:
    """Open all closed accordions that can be seen."""
    for _ in range(12):
        closed = page.locator("button.label-wrap:not(.open):visible")
        if not closed.count():
            return
        closed.first.click()
        page.wait_for_timeout(300)


def use(page: Page, name: str) -> None:
    """Run the example of a tab and open what is folded."""
    button, done = CARDS[name]
    if button is not None:
        page.click(button)
    if done is not None:
        page.locator(done).first.wait_for(state="attached", timeout=WAIT_MS)
    unfold(page)
    for press, there in THEN.get(name, []):
        page.click(press)
        page.locator(there).first.wait_for(state="attached", timeout=WAIT_MS)
    if name in ("Studio", "Clean up"):
        page.locator(".vcae-figure img:visible").first.wait_for(timeout=WAIT_MS)
    page.wait_for_timeout(1500)


def findings(page: Page, axe: str) -> list[dict]:
    """Return the violations that axe-core finds: severity, rule, and the elements."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        {
            "impact": each["impact"],
            "rule": each["id"],
            "help": each["help"],
            "nodes": [node["html"][:160] for node in each["nodes"]],
        }
        for each in found["violations"]
    ]


def check(page: Page, axe: Path | None, place: str, pictures: Path | None, seen: Seen) -> None:
    """Note the faults of the tab that is open."""
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if wider > 0:
        seen.add(f"{place}: {wider} px wider than the window")
    for each in findings(page, axe.read_text(encoding="utf-8")) if axe else []:
        seen.severities[each["impact"]] += 1
        seen.add(
            f"{place}: {each['impact']} {each['rule']}: {each['help']}: {len(each['nodes'])} times: "
            + "; ".join(each["nodes"][:3])
        )
    if pictures is not None:
        page.screenshot(path=pictures / f"{place.replace(' ', '-')}.png", full_page=True)


def visit(browser: Browser, url: str, args: argparse.Namespace, view: tuple[int, str], seen: Seen) -> None:
    """Open the page at a width and in a colour scheme, and check each tab."""
    width, scheme = view
    context = browser.new_context(
        viewport={"width": width, "height": WIDTHS.get(width, 800)},
        color_scheme=scheme,
        locale=args.language,
        permissions=["microphone"],
    )
    page = context.new_page()
    page.on("pageerror", lambda error: seen.add(f"page error: {error}"))
    page.on("console", lambda said: seen.add(f"console: {said.text}") if said.type == "error" else None)
    page.goto(url)
    page.wait_for_selector("#convert", timeout=WAIT_MS)
    for name in args.tabs:
        open_tab(page, name)
        page.wait_for_timeout(500)
        try:
            use(page, name)
        except TimeoutError as error:
            seen.add(f"{name}: {str(error).splitlines()[0]}")
        check(page, args.axe, f"{name} {width} {scheme} {args.language}", args.pictures, seen)
        if args.language != "en":
            seen.untranslated |= set(page.evaluate("window.vcaeUntranslated()"))
    context.close()


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Run the page's server, and yield its address."""
    words = [sys.executable, "-m", "vcae", "demo", "--public", "--port", str(PORT), "--device", "cpu"]
    server = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield f"http://127.0.0.1:{PORT}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core; without it only the rest is looked at")
    parser.add_argument("--pictures", type=Path, help="folder for screenshots")
    parser.add_argument("--language", default="en", help="language of the browser: en, de or zh")
    parser.add_argument("--tabs", nargs="*", default=list(CARDS), help="of these tabs only")
    parser.add_argument("--widths", nargs="*", type=int, default=list(WIDTHS))
    parser.add_argument("--schemes", nargs="*", default=list(SCHEMES))
    parser.add_argument("--url", help="of a page that is running")
    args = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no Chromium; on Debian: apt-get install chromium")
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    seen = Seen()
    with contextlib.nullcontext(args.url) if args.url else serving() as url, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for view in itertools.product(args.widths, args.schemes):
            visit(browser, url, args, view, seen)
        browser.close()
    print("\n".join(f"untranslated: {text}" for text in sorted(seen.untranslated)))
    views = len(args.tabs) * len(args.widths) * len(args.schemes)
    print(json.dumps({"views": views, "axe": seen.severities, "faults": seen.n, "untranslated": len(seen.untranslated)}))
    sys.exit(1 if seen.n or seen.untranslated else 0)


if __name__ == "__main__":
    main()
