"""The web server: Gradio's page, the routes beside it, and the guard in front."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mmkv.demos.app.doors import Doors, Patience, protocol
from mmkv.demos.app.logins import Logins, credentials
from mmkv.demos.app.names import Names, own_name
from mmkv.demos.app.registry import Registry

STATES = 1000  # pages that Gradio remembers something of
THREADS = 40  # for handlers, besides four for each session


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Where and how the page is served.

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 takes any free one.
        users: names and passwords that may log in; if empty, everybody may use the page.
        certificate: file for https; None: http.
        key: its key file.
        names: the server's own names, by which browsers may ask for it.
        doors: limits of connections.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    users: Sequence[tuple[str, str]] = ()
    certificate: Path | None = None
    key: Path | None = None
    names: Sequence[str] = ()
    doors: Doors = field(default_factory=Doors)

    def listen(self) -> socket.socket:
        """Open the listening socket.

        Raises:
            ValueError: the port is taken, or the host is not one of this machine.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.host, self.port))
            listening.listen(128)
        except (OSError, OverflowError) as error:
            listening.close()
            raise ValueError(self._why(error)) from None
        return listening

    def check_certificate(self) -> None:
        """Check the certificate and key, where any are given.

        Raises:
            ValueError: one is missing, or they do not belong together.
        """
        if self.certificate is None and self.key is None:
            return
        if self.certificate is None or self.key is None:
            raise ValueError("--ssl-certfile and --ssl-keyfile belong together: give both")
        for path in (self.certificate, self.key):
            if not path.is_file():
                raise ValueError(f"{path}: there is no such file; it is needed for https")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise ValueError(
                f"{self.certificate} and {self.key} cannot be used for https: {reason}"
            ) from None

    def address(self, listening: socket.socket) -> str:
        """Return what to type into a browser on this machine."""
        scheme = "http" if self.certificate is None else "https"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"{scheme}://{host}:{listening.getsockname()[1]}"

    @property
    def known_as(self) -> list[str]:
        """The names and the number that requests may be for, besides localhost."""
        everywhere = self.host in ("0.0.0.0", "::", "")
        return [
            *map(own_name, self.names),
            *([] if everywhere else [self.host.strip("[]").lower()]),
        ]

    def _why(self, error: Exception) -> str:
        import errno

        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            return (
                f"port {self.port} on {self.host} is taken; choose another with --port, "
                "or --port 0 for any that is free"
            )
        if number == errno.EACCES:
            return f"port {self.port} needs more rights; choose one of 1024 or above with --port"
        return f"cannot listen on {self.host}, port {self.port}: {error}; see --host and --port"


def quiet_gradio(folder: Path) -> None:
    """Configure Gradio before it is imported: no telemetry, and its files in `folder`."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_SSR_MODE"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # otherwise the times of the last 10,000 events are summed up again after each event
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**12)
    os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"


def application(registry: Registry, serving: Serving, folder: Path) -> object:
    """Make the ASGI application; shutting it down ends its sessions and deletes their files.

    Args:
        registry: the server's sessions.
        serving: for the users who may log in.
        folder: Gradio's temporary folder.

    Raises:
        ImportError: Gradio is not installed.
    """
    quiet_gradio(folder)
    import anyio.to_thread
    import gradio as gr
    from fastapi import FastAPI

    from mmkv.demos.app.guard import Guard
    from mmkv.demos.app.inputs import accepted
    from mmkv.demos.app.page import CSS, HEAD, page, theme
    from mmkv.demos.app.routes import routes

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threads = anyio.to_thread.current_default_thread_limiter()
        threads.total_tokens = THREADS + 4 * registry.limits.sessions
        registry.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(registry.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.router.routes.extend(routes(registry))
    blocks = page(registry)
    blocks.queue(default_concurrency_limit=None, api_open=False)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        auth=credentials(serving.users) if serving.users else None,
        auth_message="This demo is shared with those who have a password.",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=1,  # bytes: files go through a route of our own
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=theme(),
        css_paths=[CSS],
        head=HEAD,
    )
    # what Gradio remembers of a page, conversation and all, it would keep until 10,000 others came
    states = blocks.state_holder
    states.capacity = STATES

    def forget_page(page: str) -> None:
        states.session_data.pop(page, None)
        states.time_last_used.pop(page, None)

    registry.forget_page = forget_page
    guarded = Logins(Guard(app, registry.here, accepted(blocks)))
    return Names(Patience(guarded, serving.doors), serving.known_as)


def serve(registry: Registry, serving: Serving, folder: Path, listening: socket.socket) -> None:
    """Serve until the process is asked to end; then everything of the visitors' is deleted.

    Args:
        registry: the server's sessions.
        serving: where and how.
        folder: Gradio's temporary folder.
        listening: from `Serving.listen`.
    """
    server(registry, serving, folder).run(sockets=[listening])


def server(registry: Registry, serving: Serving, folder: Path):  # type: ignore[no-untyped-def]
    """Make the uvicorn server, not running yet; the arguments are those of `serve`."""
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # open pages are cut off, which is not worth a traceback for each
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        application(registry, serving, folder),  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        server_header=False,
        http=protocol(serving.doors),
        timeout_keep_alive=5,
        ssl_certfile=serving.certificate,
        ssl_keyfile=None if serving.key is None else str(serving.key),
        timeout_graceful_shutdown=1,  # pages hold connections open as long as they are shown
        lifespan="on",
    )
    return Server(config)
