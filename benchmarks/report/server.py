"""Serve the report to browsers of this machine, and nothing else: no file can be asked for, and nothing can be changed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from markupsafe import Markup

from benchmarks.report.page import assembled, page
from benchmarks.report.section import Contents, Section
from pixbench.errors import UserError, explain
from pixbench.file_versions import RESULT_FILE
from pixbench.progress import PROGRESS

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")
"""Names by which this machine may be asked. Another site can make a browser ask by a name of its own (DNS rebinding)."""
FRESH_S = 10.0
"""Seconds for which a page is not made again."""
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Pages:
    """The newest page, made again when the files of the runs have changed."""

    def __init__(self, folders: Sequence[Path], contents: Callable[[], Contents], fresh_s: float = FRESH_S) -> None:
        self.folders, self.contents, self.fresh_s = folders, contents, fresh_s
        self.lock = threading.Lock()
        self.made, self.version, self.page = -fresh_s, "", b""

    def newest(self) -> tuple[str, bytes]:
        """Return the version of the newest page, and the page."""
        with self.lock:
            if time.monotonic() - self.made >= self.fresh_s:
                version = self._version()
                if version != self.version:
                    self.page, self.version = self._made(version).encode(), version
                self.made = time.monotonic()
            return self.version, self.page

    def _made(self, version: str) -> str:
        try:
            return page(self.contents(), version)
        except (
            Exception
        ) as error:  # a seed that is there twice, a file that went away: the next page may be right again
            return assembled([Section("summary", "The report cannot be made", explain(error), Markup())], version)

    def _version(self) -> str:
        """Return a digest of which results and how much progress there are now."""
        found = hashlib.sha256()
        for folder in self.folders:
            for parent, below, files in os.walk(folder):
                below.sort()
                for name in (*(name for name in (RESULT_FILE, PROGRESS) if name in files), *_records(parent, files)):
                    path = os.path.join(parent, name)
                    try:
                        about = os.stat(path)
                    except OSError:  # removed meanwhile
                        continue
                    found.update(f"{path}\0{about.st_size}\0{about.st_mtime_ns}\0".encode(errors="surrogateescape"))
        return found.hexdigest()[:16]


def _records(parent: str, files: Sequence[str]) -> list[str]:
    """Return the records of a suite's jobs among ``files`` in the folder ``parent``."""
    return sorted(name for name in files if name.endswith(".json")) if os.path.basename(parent) == "jobs" else []


def server(pages: Pages, port: int) -> ThreadingHTTPServer:
    """Return a server of ``pages`` on this machine's own address; its `serve_forever` answers.

    Raises:
        UserError: the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "pixbench", ""
        timeout = 10.0

        def do_GET(self) -> None:
            self._answer(with_page=True)

        def do_HEAD(self) -> None:
            self._answer(with_page=False)

        def _answer(self, with_page: bool) -> None:
            if self.headers.get("Host", "").partition(":")[0] not in HOSTS:
                self.send_error(HTTPStatus.FORBIDDEN, f"ask for http://{ADDRESS}")
                return
            if self.path != "/":
                self.send_error(HTTPStatus.NOT_FOUND, "there is only the page /")
                return
            version, content = pages.newest()
            self.send_response(HTTPStatus.OK)
            for name, value in HEADERS.items():
                self.send_header(name, value)
            self.send_header("ETag", f'"{version}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_page:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of single requests."""

    try:
        return ThreadingHTTPServer((ADDRESS, port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"--port {port} cannot be had ({error}); choose another, or 0 for one that is free") from error
