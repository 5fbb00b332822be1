"""`mmkv demo`: a page in the browser to ask about videos, for oneself or shared."""

from __future__ import annotations

import ipaddress
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mmkv.cli import groups, options, session
from mmkv.cli.errors import CommandError
from mmkv.cli.messages import say


def demo(
    *,
    model: options.Model = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Listen here; 0.0.0.0: on all networks.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="0 takes any free port.")
    ] = 7860,
    auth: Annotated[
        list[str] | None,
        typer.Option(
            metavar="USER:PASSWORD", envvar="MMKV_DEMO_AUTH",
            help="Ask visitors to log in; may be given several times.",
        ),
    ] = None,
    ssl_certfile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Serve https, which browsers require for the camera."),
    ] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key.")] = None,
    server_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name that visitors reach the page by, also through a reverse proxy.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="Visitors may type rtsp and http(s) addresses on this host, and on no other.",
        ),
    ] = None,
    sessions: Annotated[
        int, typer.Option(min=1, metavar="N", help="Visitors with a video at once; others wait.")
    ] = 4,
    max_length: Annotated[
        str, typer.Option(metavar="TIME", help="Longest video, or time at a camera: 30min, 2h.")
    ] = "2h",
    max_upload: Annotated[str, typer.Option(metavar="SIZE", help="Largest file.")] = "500MB",
    max_disk: Annotated[
        str, typer.Option(metavar="SIZE", help="Disk for one session's file and stream.")
    ] = "2GB",
    max_ram: Annotated[
        str, typer.Option(metavar="SIZE", help="Host memory for one session's earlier frames.")
    ] = "1GB",
    idle: Annotated[
        str, typer.Option(metavar="TIME", help="Forget visitors after this long without activity.")
    ] = "10min",
    temp: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where visitors' files are kept until they leave."),
    ] = None,
    max_new_tokens: options.MaxNewTokens = 256,
    loading: groups.Loading,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in this machine's browser.")
    ] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:  # fmt: skip
    """Ask about videos in the browser: a file, the bundled sample, a camera.

    \b
    Example:
      mmkv demo --model Qwen/Qwen3-VL-2B-Instruct
      mmkv demo --host 0.0.0.0 --auth me:secret --ssl-certfile cert.pem --ssl-keyfile key.pem
    """
    need_gradio()
    from mmkv.demos.app.folders import Folders
    from mmkv.demos.app.hosts import AllowedHosts, Host
    from mmkv.demos.app.limits import Limits
    from mmkv.demos.app.registry import Registry
    from mmkv.demos.app.server import Serving, serve
    from mmkv.demos.app.settings import Settings

    serving = Serving(
        host=host,
        port=port,
        users=[user(text) for text in auth or []],
        certificate=ssl_certfile,
        key=ssl_keyfile,
        names=[name_of(text) for text in server_name or []],
    )
    limits = Limits(
        sessions=sessions,
        stream_seconds=length("--max-length", max_length),
        upload_bytes=bytes_of("--max-upload", max_upload),
        disk_bytes=bytes_of("--max-disk", max_disk),
        ram_bytes=bytes_of("--max-ram", max_ram),
        idle_seconds=length("--idle", idle),
        answer_tokens=max_new_tokens,
    )
    hosts = AllowedHosts(tuple(Host.parse(text) for text in allow_host or []))
    serving.check_certificate()
    folders = Folders(temp)
    listening = None
    try:
        listening = serving.listen()
        show = session.show_progress(quiet, False)
        vlm = session.load(model, show=show, **loading.given)
        # mmkv-tiny was not trained to follow conversations
        settings = Settings(follow_ups=vlm.name != session.BUNDLED)
        registry = Registry(vlm, folders, limits, hosts, settings)
        address = serving.address(listening)
        if not quiet:
            for note in notes(serving, model):
                say("note", note)
        typer.echo(f"mmkv demo with {vlm.name}: {address} (Ctrl-C ends it)")
        sys.stdout.flush()  # at once, also where a program reads it
        if open_browser:
            typer.launch(address)
        serve(registry, serving, folders.root, listening)
    finally:
        folders.close()
        if listening is not None:
            listening.close()


def need_gradio() -> None:
    """Check that Gradio is installed.

    Raises:
        CommandError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("gradio") is None:
        raise CommandError("the demo needs Gradio: pip install 'mmkv-video[demo]'")


def user(text: str) -> tuple[str, str]:
    """Split `name:password` into a name and a password.

    Raises:
        typer.BadParameter: one of them is missing.
    """
    name, mark, password = text.partition(":")
    if not name.strip() or not mark or not password:
        raise typer.BadParameter("--auth takes USER:PASSWORD, neither of them empty")
    return name.strip(), password


def name_of(text: str) -> str:
    """Read a name of the server's own.

    Raises:
        typer.BadParameter: it is not a host's name.
    """
    from mmkv.demos.app.names import own_name

    try:
        return own_name(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def bytes_of(option: str, text: str) -> int:
    """Read an option's size, such as "500MB".

    Raises:
        typer.BadParameter: it is not a size.
    """
    from mmkv.config.units import parse_bytes

    try:
        return parse_bytes(option, text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def length(option: str, text: str) -> float:
    """Read an option's time in seconds, such as "2h".

    Raises:
        typer.BadParameter: it is not a time.
    """
    from mmkv.config.units import parse_seconds

    try:
        return parse_seconds(option, text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def notes(serving: Any, model: str | None) -> list[str]:
    """List what whoever shares the page should know.

    Args:
        serving: where and how the page is served.
        model: the model that was named, if any.
    """
    found = []
    if model in (None, session.BUNDLED):
        found.append(
            f"{session.BUNDLED} knows only coloured shapes; for your own videos: "
            f"mmkv demo --model {session.SUGGESTED}"
        )
    if not is_local(serving.host):
        if not serving.names:
            found.append(
                "visitors reach the page by this machine's address only; see --server-name"
            )
        if not serving.users:
            found.append("everybody who can reach this machine can use the page; see --auth")
        if serving.certificate is None:
            found.append(
                "browsers allow the camera only over https or on localhost, and without https "
                "passwords and videos cross the network unprotected; see --ssl-certfile"
            )
    return found


def is_local(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
