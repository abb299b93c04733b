"""`vcae demo` and `vcae serve`: a web page, and the same over HTTP."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from vcae.cli.common import Device, DeviceOption, user_errors
from vcae.errors import ConfigError

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
    voices: VoicesOption = None,
    max_seconds: SecondsOption = None,
    max_megabytes: MegabytesOption = None,
    max_queue: QueueOption = 20,
    jobs: JobsOption = 1,
    keep_minutes: KeepOption = 30.0,
    device: DeviceOption = Device.auto,
) -> None:
    """Serve conversion over HTTP, for gradio_client or curl; the page at / is the manual.

    Example: vcae serve --port 7861
    """
    _run(
        True, host, port, auth, False, voices, (max_seconds, max_megabytes, max_queue, jobs, keep_minutes), False, True, device
    )


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
) -> None:
    if auth is not None and not all(auth.partition(":")[::2]):
        raise ConfigError("--auth is not NAME:PASSWORD; write both, such as --auth ann:secret")
    if voices is not None and not voices.is_dir():
        raise ConfigError(f"--voices {voices} is not a folder; give one with voices from `vcae voice save`")
    from vcae.demo.limits import LOCAL_MEGABYTES, Limits
    from vcae.demo.run import Address, run

    address = Address(host, port, auth, share, open_browser, public)
    seconds, megabytes, queue, jobs, minutes = numbers
    if seconds is None:
        seconds = math.inf if address.local else Limits.seconds
    if megabytes is None:
        megabytes = LOCAL_MEGABYTES if address.local else Limits.megabytes
    run(Limits(seconds, megabytes, queue, jobs, minutes), address, voices, device.value, api_only, typer.echo)
