"""`vcae demo` and `vcae serve`: a web page, and the same over HTTP."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Annotated

import typer

from vcae.cli.common import Device, DeviceOption, QuietOption, user_errors
from vcae.errors import ConfigError

# Least length of an API key.
MIN_KEY = 12
HostOption = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 lets other machines in.")]
PortOption = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on; 0 takes a free one.")]
AuthOption = Annotated[
    str | None,
    typer.Option(
        envvar="VCAE_AUTH", metavar="NAME:PASSWORD", help="NAME:PASSWORD that visitors must give; better set as $VCAE_AUTH."
    ),
]
SecondsOption = Annotated[
    float | None,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Longest recording, in seconds; by default 180, and any length on a page for this machine only.",
    ),
]
MegabytesOption = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        metavar="MEGABYTES",
        help="Largest upload, in megabytes; by default 30, and 4000 on a page for this machine only.",
    ),
]
QueueOption = Annotated[int, typer.Option(min=1, metavar="N", help="Jobs that may wait; more are refused.")]
JobsOption = Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Jobs that run at the same time.")]
KeepOption = Annotated[
    float, typer.Option(min=0.05, metavar="MINUTES", help="Minutes after their last use when visitors' files are removed.")
]
VoicesOption = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder of saved voices that every visitor may use.")]


@user_errors
def demo(
    host: HostOption = "127.0.0.1",
    port: PortOption = 7860,
    auth: AuthOption = None,
    share: Annotated[bool, typer.Option("--share", help="Ask gradio's service for a public link; needs the network.")] = False,
    voices: VoicesOption = None,
    public: Annotated[
        bool,
        typer.Option("--public", help="Keep the limits for strangers, and your saved voices to yourself, as behind a proxy."),
    ] = False,
    max_seconds: SecondsOption = None,
    max_megabytes: MegabytesOption = None,
    max_queue: QueueOption = 20,
    jobs: JobsOption = 1,
    keep_minutes: KeepOption = 30.0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Serve vcae as a web page, on this machine only unless --host or --share is given.

    On this machine only, recordings may have any length, and the page has your saved voices.

    Example: vcae demo --open
    """
    _run(
        False,
        host,
        port,
        auth,
        share,
        voices,
        (max_seconds, max_megabytes, max_queue, jobs, keep_minutes),
        open_browser,
        public,
        device,
    )


@user_errors
def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 7861,
    auth: AuthOption = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="VCAE_API_KEYS",
            metavar="KEY",
            help="Key that requests must give, one of several; better set as $VCAE_API_KEYS.",
        ),
    ] = None,
    voices: VoicesOption = None,
    max_seconds: SecondsOption = None,
    max_megabytes: MegabytesOption = None,
    max_queue: QueueOption = 20,
    jobs: JobsOption = 1,
    keep_minutes: KeepOption = 30.0,
    quiet: QuietOption = False,
    device: DeviceOption = Device.auto,
) -> None:
    """Serve conversion over HTTP, for curl or any program; the page at /docs is the manual.

    Each request is logged on standard error, with its id.

    Example: vcae serve --port 7861
    """
    if not quiet:
        logging.getLogger("vcae.demo.guard").setLevel(logging.INFO)
    numbers = (max_seconds, max_megabytes, max_queue, jobs, keep_minutes)
    _run(True, host, port, auth, False, voices, numbers, False, True, device, tuple(api_key or ()))


def _run(
    api_only: bool,
    host: str,
    port: int,
    auth: str | None,
    share: bool,
    voices: Path | None,
    numbers: tuple[float | None, float | None, int, int, float],
    open_browser: bool,
    public: bool,
    device: Device,
    keys: tuple[str, ...] = (),
) -> None:
    if not all(len(key) >= MIN_KEY for key in keys):
        raise ConfigError(f"an API key is shorter than {MIN_KEY} characters; take a long random one")
    if auth is not None and not all(auth.partition(":")[::2]):
        raise ConfigError("--auth is not NAME:PASSWORD; write both, such as --auth ann:secret")
    if voices is not None and not voices.is_dir():
        raise ConfigError(f"--voices {voices} is not a folder; give one with voices from `vcae voice save`")
    from vcae.demo.limits import LOCAL_MEGABYTES, Limits
    from vcae.demo.run import Address, run

    address = Address(host, port, auth, share, open_browser, public, keys)
    seconds, megabytes, queue, jobs, minutes = numbers
    if seconds is None:
        seconds = math.inf if address.local else Limits.seconds
    if megabytes is None:
        megabytes = LOCAL_MEGABYTES if address.local else Limits.megabytes
    run(Limits(seconds, megabytes, queue, jobs, minutes), address, voices, device.value, api_only, typer.echo)
