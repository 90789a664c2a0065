"""The dashboard's files: read once, compressed once, named by a hash of them all.

The first page is asked for again each time (``no-cache`` and an entity tag).  It names all else under
``/files/HASH/``, and what stands there never changes: a browser keeps it for a year, and after an upgrade the hash is
another one.  Modules import each other by relative paths, so that no build step has to write hashes into them.

An address with the hash of another version is not found: half of an old and half of a new dashboard is never run
together, and the old page, still open somewhere, says that it has to be loaded again.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
}
"""What is shown to browsers; nothing else in the directory is."""

PLACEHOLDER = b"{files}"
"""In pages: stands for ``/files/HASH``."""

ASK_AGAIN = "no-cache"
KEEP = "public, max-age=31536000, immutable"


class File(Struct, frozen=True):
    body: bytes
    packed: bytes
    """With gzip; empty where that makes it no smaller."""
    media_type: str
    tag: str


class Files:
    """Those of one directory, as they were when it was read."""

    def __init__(self, directory: Path) -> None:
        found = {
            path.relative_to(directory).as_posix(): path.read_bytes()
            for path in sorted(directory.rglob("*"))
            if path.is_file() and path.suffix in MEDIA_TYPES
        }
        self.version = _hash_all(found)
        self._files = {name: self._make(name, body) for name, body in found.items()}

    def _make(self, name: str, body: bytes) -> File:
        suffix = Path(name).suffix
        if suffix == ".html":
            body = body.replace(PLACEHOLDER, f"/files/{self.version}".encode())
        packed = gzip.compress(body, 9, mtime=0)
        tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        return File(body, packed if len(packed) < len(body) else b"", MEDIA_TYPES[suffix], tag)

    def routes(self) -> list[BaseRoute]:
        """The first page, what it names, and what has a fixed address (``/robots.txt``)."""
        return [
            Route("/", self._show_first_page),
            Route("/files/{version}/{name:path}", self._show_versioned),
            Route("/{name:path}", self._show_named),
        ]

    async def _show_first_page(self, request: Request) -> Response:
        return self._show("index.html", request, ASK_AGAIN)

    async def _show_versioned(self, request: Request) -> Response:
        if request.path_params["version"] != self.version:
            raise HTTPException(404)
        return self._show(request.path_params["name"], request, KEEP)

    async def _show_named(self, request: Request) -> Response:
        return self._show(request.path_params["name"], request, ASK_AGAIN)

    def _show(self, name: str, request: Request, cache: str) -> Response:
        file = self._files.get(name)
        if file is None:
            raise HTTPException(404)
        headers = {"Cache-Control": cache, "ETag": file.tag, "Vary": "Accept-Encoding"}
        if file.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if file.packed and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(file.packed, headers=headers, media_type=file.media_type)
        return Response(file.body, headers=headers, media_type=file.media_type)


def _hash_all(files: dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, body in files.items():
        total.update(hashlib.sha256(name.encode() + b"\0" + body).digest())
    return total.hexdigest()[:16]
