"""The page of a run over HTTP on 127.0.0.1, so that a browser of this machine follows a run while it goes on."""

import errno
import html
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from gan_engine.runs import copies, record, report
from gan_engine.system.names import legible

HOST = "127.0.0.1"
# Host of a request. A page of the web may have a name that leads to this machine: a browser sends the name with it.
_OURS = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?", re.IGNORECASE)  # ssh -L maps ports
REFRESH = 10  # seconds until a browser asks again


class Server(ThreadingHTTPServer):
    """A server of one page, http://127.0.0.1:PORT/, and of nothing else. The page is made anew when the run has moved.

    The server writes no report.html: this file says that a run is complete.

    Args:
        run_dir: the directory of a run.
        port: None is a free one.

    Raises:
        FileNotFoundError: there is no run in `run_dir`.
        ValueError: its run.json is damaged, or the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, run_dir: str | Path, port: int | None = None) -> None:
        self.run_dir = Path(run_dir)
        self._lock, self._made_of, self._text = threading.Lock(), None, b""
        self.text()
        try:
            super().__init__((HOST, port or 0), _Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            why = "is in use by another program" if error.errno == errno.EADDRINUSE else "is for root alone"
            raise ValueError(
                f"port: want a free one, got {port}, which {why}; without --port, any free one is taken"
            ) from None

    @property
    def address(self) -> str:
        """What to type into a browser."""
        return f"http://{HOST}:{self.server_port}/"

    def text(self) -> bytes:
        """The page. Raises as `report.page` does."""
        with self._lock:
            files = [
                self.run_dir / name for name in (record.NAME, "metrics.jsonl", "samples", "checkpoints", copies.JSON)
            ]
            made_of = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists()]
            if made_of != self._made_of:
                self._text, self._made_of = report.page(self.run_dir).encode(), made_of
            return self._text

    @property
    def over(self) -> bool:
        """True if the end of the run is recorded, so that the page changes no more."""
        return record.end(record.read(self.run_dir)) is not None


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if not _OURS.fullmatch(self.headers.get("Host", "")):
            self.send_error(403, "this server answers to 127.0.0.1 and localhost alone")
            return
        if urlsplit(self.path).path != "/":
            self.send_error(404, "this server has one page: /")
            return
        try:
            status, text, over = 200, self.server.text(), self.server.over
        except (OSError, ValueError) as error:  # a picture that a resumed run has just removed: the next page is whole
            status, text, over = 503, f"<p>{html.escape(legible(str(error), most=500))}</p>".encode(), False
        try:
            self.send_response(status)
            headers = {"Content-Type": "text/html; charset=utf-8", "Content-Length": len(text)}
            for name, value in (
                headers | {"Cache-Control": "no-store"} | ({} if over else {"Refresh": REFRESH})
            ).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(text)
        except ConnectionError:  # the browser is gone
            self.close_connection = True

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing: a line for each request would bury the address."""
