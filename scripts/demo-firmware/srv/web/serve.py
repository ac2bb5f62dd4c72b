"""The demo firmware's web service: a page that says which version serves it (arguments: the release, the port)."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RELEASE = Path(sys.argv[1]).resolve()
PAGE = f"This is version {(RELEASE / 'etc/version').read_text().strip()}, served from {RELEASE.name}.\n"


class Page(BaseHTTPRequestHandler):
    """Answers every GET with the page."""

    def do_GET(self) -> None:
        body = PAGE.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Page).serve_forever()
