"""What the page's script requests besides Gradio: the visitor's own file, camera and video.

Each request has to come from a browser, and name a tab, whose page was opened before (and logged
in, where the server requires it); all others get "not here".
"""

from __future__ import annotations

import logging
import secrets
import shutil
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from mmkv.config.units import size
from mmkv.demos.app.camera import MAX_BYTES
from mmkv.demos.app.files import PLAYABLE, plain_name
from mmkv.demos.app.guard import visitor_of
from mmkv.demos.app.registry import Registry
from mmkv.demos.app.session import sentence
from mmkv.demos.app.visit import Busy, Visit

log = logging.getLogger("mmkv.demo")

SCRIPT = Path(__file__).with_name("page.js")
SPARE = 200_000_000  # bytes of disk that no upload may take


def routes(registry: Registry) -> list[Route]:
    """List all routes of a server."""
    own = Own(registry)
    return [
        Route("/mmkv/page.js", script),
        Route("/mmkv/video/{token}", own.video),
        Route("/mmkv/place", own.place, methods=["POST"]),
        Route("/mmkv/upload", own.upload, methods=["POST"]),
        Route("/mmkv/camera", own.camera, methods=["POST"]),
        Route("/mmkv/picture", own.picture, methods=["POST"]),
    ]


async def script(request: Request) -> Response:
    """Send the page's script."""
    return FileResponse(SCRIPT, media_type="text/javascript", headers={"Cache-Control": "no-cache"})


class Own:
    """Handlers of requests about a visitor's own things.

    Args:
        registry: the server's sessions.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._limits = registry.limits
        self._sending: set[Path] = set()  # folders that a file is being sent to

    async def video(self, request: Request) -> Response:
        """Send the visitor's video to the player."""
        visitor = visitor_of(request.headers.get("cookie", ""))
        visit = self._registry.of_video(visitor or "", request.path_params["token"])
        watch = None if visit is None else visit.session.watch
        if watch is None or watch.video.path is None or not watch.video.path.exists():
            return _error(404, "not here")
        path = watch.video.path
        kind = PLAYABLE.get(path.suffix.lower(), "application/octet-stream")
        headers = {"Cache-Control": "private, no-store", "Content-Disposition": "inline"}
        return FileResponse(path, media_type=kind, headers=headers)

    async def place(self, request: Request) -> Response:
        """Give the visitor a place, or say how long the queue is; called repeatedly meanwhile."""
        visit = self._visit(request)
        if visit is None:
            return _error(404, "not here")
        try:
            self._registry.place(visit)
        except Busy as busy:
            return JSONResponse({"position": busy.position})
        return JSONResponse({"position": 0})

    async def upload(self, request: Request) -> Response:
        """Receive a video file as the whole body, and watch it."""
        visit = self._visit(request)
        if visit is None:
            return _error(404, "not here")
        if not visit.placed:
            return _error(503, "busy")
        folder = visit.session.folder
        if folder in self._sending:
            return _error(409, "Another file is already being sent.")
        self._sending.add(folder)
        try:
            return await self._take(request, visit)
        finally:
            self._sending.discard(folder)

    async def _take(self, request: Request, visit: Visit) -> Response:
        session = visit.session
        name = plain_name(unquote(request.headers.get("x-mmkv-name", "")))
        suffix = Path(name).suffix.lower()
        suffix = suffix if suffix in PLAYABLE else ".bin"
        path = session.folder / f"{secrets.token_hex(16)}{suffix}"
        most = self._limits.upload_bytes
        large = f"{name} is larger than the {size(most)} that this server allows."
        declared = request.headers.get("content-length", "")
        free = shutil.disk_usage(session.folder).free - SPARE
        if declared.isdigit() and int(declared) > most:
            return self._refuse(visit, 413, large)
        if free < min(most, int(declared) if declared.isdigit() else most):
            return self._refuse(visit, 507, "The server's disk is full; try again later.")
        got = 0
        try:
            async with await anyio.open_file(path, "wb") as file:
                async for chunk in request.stream():
                    got += len(chunk)
                    if got > most:
                        break
                    await file.write(chunk)
                    session.touch()
            if got > most:
                path.unlink(missing_ok=True)
                return self._refuse(visit, 413, large)
            start = partial(session.file, path, name)
            await run_in_threadpool(self._registry.begin, visit, start)
        except ClientDisconnect:
            path.unlink(missing_ok=True)
            return Response(status_code=499)
        except Exception as error:
            path.unlink(missing_ok=True)
            return self._refuse(visit, 422, sentence(error))
        return JSONResponse({"name": name})

    async def camera(self, request: Request) -> Response:
        """Begin watching the pictures that follow."""
        visit = self._visit(request)
        if visit is None or not visit.placed:
            return _error(404, "not here")
        try:
            await run_in_threadpool(self._registry.begin, visit, visit.session.camera)
        except ValueError as error:
            return self._refuse(visit, 422, sentence(error))
        return JSONResponse({})

    async def picture(self, request: Request) -> Response:
        """Receive a picture from the camera."""
        visit = self._visit(request)
        if visit is None:
            return _error(404, "not here")
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    return _error(413, "too large")
            taken = await run_in_threadpool(visit.session.picture, bytes(body))
        except ClientDisconnect:
            return Response(status_code=499)
        except ValueError as error:
            return _error(422, sentence(error))
        return JSONResponse({"taken": taken})

    def _visit(self, request: Request) -> Visit | None:
        visitor = visitor_of(request.headers.get("cookie", ""))
        return self._registry.of_tab(visitor or "", request.headers.get("x-mmkv-tab", ""))

    def _refuse(self, visit: Visit, status: int, text: str) -> Response:
        visit.session.message = text
        return _error(status, text)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status)
