"""Downloads: files of images, their lists, logs of builds, and the public key. Parts of files can be asked for.

``/store/HASH/FILE`` is where a file lies. ``/json/HASH/`` lists an image's files, as a web server's JSON index does,
and files are found below it as well, for there clients of several years look for them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from fussy.errors import FussyError
from fussy.keys import export
from pdimage.server import names
from pdimage.server.artifacts import Artifacts
from pdimage.server.desk import Desk
from pdimage.server.entries import File
from pdimage.server.http import CORS, answer, in_thread
from pdimage.server.refusals import Refused

PUBLIC_KEY = "signing-key.asc"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_CACHED = {**CORS, "Cache-Control": "public, max-age=3600"}


class Files:
    """The handlers of downloads."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def file(self, request: Request) -> Response:
        """Send a file of an image, or the part of it that is asked for."""
        digest = request.path_params["request_hash"]
        name = request.path_params["file"].rpartition("/")[2]
        found = await self._file(digest, name)
        if self.desk.store.directory is None and self.desk.settings.store_redirect and request.method == "GET":
            return RedirectResponse(await in_thread(self.desk.store.link, digest, name), 302, CORS)
        return send(self.desk.store, request, digest, found)

    async def listing(self, request: Request) -> Response:
        """List the files of an image."""
        digest = request.path_params["request_hash"]
        image = await in_thread(self.desk.images.of_request, digest) if names.is_good("hash", digest) else None
        if image is None:
            raise Refused(404, "this image is not known (any more)")
        return answer([{"name": file.name, "type": "file", "size": file.size, "sha256": file.sha256}
                       for file in image.files])

    async def log(self, request: Request) -> Response:
        """Show the log of a build so far."""
        digest = request.path_params["request_hash"]
        text = await in_thread(self.desk.requests.log, digest) if names.is_good("hash", digest) else None
        if text is None:
            raise Refused(404, "this build is not known (any more)")
        return Response(text, headers=CORS, media_type="text/plain")

    async def key(self, request: Request) -> Response:
        """Show the public key that images are signed with."""
        file = self.desk.settings.root / PUBLIC_KEY
        if not file.is_file():
            raise Refused(404, "the public key is not here; ask who runs the server for it")
        return FileResponse(file, headers=CORS, media_type="application/pgp-keys")

    async def _file(self, digest: str, name: str) -> File:
        if names.is_good("hash", digest) and names.is_good("file", name):
            entry = self.desk.remembered(digest)
            image = entry.image if entry else await in_thread(self.desk.images.of_request, digest)
            for file in image.files if image else ():
                if file.name == name:
                    return file
        raise Refused(404, "this file is not known (any more); ask for the image again")


def send(store: Artifacts, request: Request, digest: str, file: File) -> Response:
    """Send a file of an image, or the part of it that is asked for.

    :raises Refused: it is not there any more (404)
    """
    path = store.path(digest, file.name)
    if path is None:
        return _stream(store, request, digest, file)
    if not path.is_file():
        raise Refused(404, "this file is gone; ask for the image again")
    return FileResponse(path, headers=_CACHED, media_type="application/octet-stream")


def _stream(store: Artifacts, request: Request, digest: str, file: File) -> Response:
    """Pass a file on from the store, whose size is known: old clients compare it with Content-Length."""
    headers = {**_CACHED, "Accept-Ranges": "bytes", "ETag": f'"{file.sha256}"'}
    start, end, status = 0, file.size, 200
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    unchanged = request.headers.get("if-range", headers["ETag"]) == headers["ETag"]
    if asked and unchanged and (asked[1] or asked[2]):
        start, end = span(asked[1], asked[2], file.size)
        if start >= end:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{file.size}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
    headers["Content-Length"] = str(end - start)
    blocks: Iterator[bytes] = iter(()) if request.method == "HEAD" else store.read(digest, file.name, start, end)
    return StreamingResponse(blocks, status, headers, "application/octet-stream")


def span(first: str, last: str, size: int) -> tuple[int, int]:
    """Return where a range begins, and the byte after its end (RFC 9110, 14.1.2).

    >>> span("5", "", 10), span("", "3", 10), span("2", "4", 10), span("20", "", 10)
    ((5, 10), (7, 10), (2, 5), (20, 10))
    """
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def write_public_key(root: Path, home: Path, key: str) -> None:
    """Put the public half of the signing key where everybody may read it.

    :raises FussyError: it can't be exported
    """
    text = export(home, key)
    if not text:
        raise FussyError(f"cannot export the key {key} from {home}")
    (root / PUBLIC_KEY).write_text(text)
