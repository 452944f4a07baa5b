"""Server of a live report: this machine alone, two addresses, nothing is written.

/                the report with the sweep's progress above it
/progress.json   the progress
"""

import contextlib
import errno
import http.server
import json
import re
import threading
from http import HTTPStatus
from pathlib import Path

from experiments.reporting.live_report import LiveReport
from experiments.reporting.load import ReportError

ADDRESS = "127.0.0.1"  # no other machine reaches it
# A page elsewhere may give its own name this machine's address ("DNS rebinding"), and
# would then read the answers. The port may be another one: that of an ssh tunnel.
LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
HEADERS = {
  "Cache-Control": "no-store",
  "Content-Security-Policy": "frame-ancestors 'none'",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}
PATIENCE = 30  # seconds for a request


class LiveServer(http.server.ThreadingHTTPServer):
  """HTTP server of a live report, bound to the loopback address.

  port   0: any free one

  >>> server = LiveServer(LiveReport(Path("runs/quickstart")), port=0)
  >>> server.url.startswith("http://127.0.0.1:")
  True
  >>> server.server_close()
  """

  daemon_threads = True

  def __init__(self, report: LiveReport, port: int):
    self.report = report
    super().__init__((ADDRESS, port), ReportRequest)

  @property
  def url(self) -> str:
    """Returns the address of the page."""
    return f"http://{ADDRESS}:{self.server_address[1]}/"

  def handle_error(self, request: object, client_address: object) -> None:
    """Says nothing of a reader that went away."""


class ReportRequest(http.server.BaseHTTPRequestHandler):
  """One request and its answer: GET and HEAD of two paths, a refusal of all else.

  >>> ReportRequest.protocol_version
  'HTTP/1.1'
  """

  server: LiveServer
  protocol_version = "HTTP/1.1"
  timeout = PATIENCE

  def do_GET(self) -> None:
    self._answer(*self._content())

  do_HEAD = do_GET

  def _content(self) -> tuple[HTTPStatus, str, str]:
    """Returns status, type and text of the answer."""
    report, path = self.server.report, self.path.partition("?")[0]
    if not LOCAL.fullmatch(self.headers.get("Host", "")):
      return HTTPStatus.FORBIDDEN, "text/plain", f"open {self.server.url} instead\n"
    if path == "/":
      return HTTPStatus.OK, "text/html", report.page
    if path == "/progress.json":
      return HTTPStatus.OK, "application/json", json.dumps(report.progress())
    return HTTPStatus.NOT_FOUND, "text/plain", "there is / and /progress.json\n"

  def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
    content = text.encode(errors="replace")
    self.send_response(status)
    for name, value in HEADERS.items():
      self.send_header(name, value)
    self.send_header("Content-Type", f"{kind}; charset=utf-8")
    self.send_header("Content-Length", str(len(content)))
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
      self.send_header("Allow", "GET, HEAD")
      self.close_connection = True  # its body is not read
    self.end_headers()
    if self.command != "HEAD":
      with contextlib.suppress(OSError):  # the reader went away
        self.wfile.write(content)

  def _refuse(self) -> None:
    words = "this page is only read: GET and HEAD\n"
    self._answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", words)

  do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = _refuse

  def version_string(self) -> str:
    return "transformer_jax"

  def log_message(self, format: str, *values: object) -> None:
    """Prints nothing: a page asks every two seconds."""


def serve(workdir: Path, port: int) -> None:
  """Serves the live report of a folder until Ctrl-C; raises ReportError.

  port   0: any free one
  """
  report = LiveReport(workdir)
  try:
    server = LiveServer(report, port)
  except OSError as error:
    raise ReportError(f"--port={port}: {_reason(error)}") from error
  ended = threading.Event()
  follower = threading.Thread(target=report.follow, args=(ended.wait,), daemon=True)
  with server:
    print(f"live report of {workdir}: {server.url} (Ctrl-C ends it)", flush=True)
    follower.start()
    try:
      server.serve_forever()
    finally:
      ended.set()


def _reason(error: OSError) -> str:
  if error.errno == errno.EADDRINUSE:
    return "another process has this port; write --port=0 for a free one"
  if error.errno == errno.EACCES:
    return "this port belongs to the system; write --port=0 for a free one"
  return f"{error.strerror}; write --port=0 for a free one"
