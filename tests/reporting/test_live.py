"""The live report: what is served, to whom, and what a browser shows untouched."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import fake_sweep
import pytest
from test_page import CHROMIUM, browser

import experiments
from experiments.reporting import live_report, live_server
from experiments.reporting.live_report import LiveReport
from experiments.reporting.live_server import LiveServer
from experiments.reporting.load import ReportError

ROOT = str(Path(experiments.__file__).parents[1])
FEW = {"text": ("bits_per_byte", {"none": (3.0, 3.1), "rope": (2.5, 2.8)})}


@contextlib.contextmanager
def serving(report):
  """Serves a report in a thread; yields (host, port)."""
  with LiveServer(report, port=0) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
      yield server.server_address
    finally:
      server.shutdown()
      thread.join(10)


def ask(address, path="/", method="GET", host=None, raw=False):
  """Returns (status, headers, text) of one request."""
  connection = http.client.HTTPConnection(*address, timeout=10)
  with contextlib.closing(connection):
    connection.putrequest(method, path, skip_host=True)
    for name in [host or f"localhost:{address[1]}"]:
      connection.putheader("Host", name)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), answer.read().decode()


@pytest.fixture
def growing(tmp_path):
  """A sweep of two runs of which none has begun, and {label: what ends it}."""
  fake_sweep.write_sweep(tmp_path, FEW, lengths=(64, 128))
  (tmp_path / "runs").rename(tmp_path / "later")

  def begin(name, **more):
    folder = tmp_path / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    process = {"host": "tpu-3", "pid": 77}
    now = {"state": "running", "step": 40, "attempts": 1, "process": process} | more
    (folder / "status.json").write_text(json.dumps(now))
    config = (tmp_path / "later" / name / "config.json").read_text()
    (folder / "config.json").write_text(config)
    (folder / "metrics.jsonl").write_text('{"step": 40, "seed": 0, "loss": 3.25}\n')

  def end(name):
    for path in (tmp_path / "later" / name).iterdir():
      (tmp_path / "runs" / name / path.name).write_bytes(path.read_bytes())

  return tmp_path, begin, end


def test_two_addresses_are_served_and_nothing_else(growing, undrawn):
  workdir, begin, end = growing
  report = LiveReport(workdir)
  with serving(report) as address:
    assert "The report is on its way." in ask(address)[2]
    begin("text-00")
    end("text-00")
    assert report.renew() and not report.renew()
    status, headers, page = ask(address)
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert "1 of 2 runs finished" in page and 'id="live"' in page
    status, headers, text = ask(address, "/progress.json?x=1")
    now = json.loads(text)
    assert (now["planned"], now["done"], now["report"]) == (2, 1, 1)
    status, headers, text = ask(address, method="HEAD")
    assert (
      status == 200
      and text == ""
      and headers["Content-Length"] == str(len(page.encode()))
    )
    for path in (
      *("/sweep.json", "/runs/text-00/result.json", "/../sweep.json", "//etc/passwd"),
      *("/..%2f..%2fetc/passwd", "/progress.json/", "http://example.com/", "*"),
    ):
      assert ask(address, path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
      status, headers, _ = ask(address, method=method)
      assert status == 405 and headers["Allow"] == "GET, HEAD"
  assert not [*workdir.glob("*.html"), *workdir.glob("*.csv"), *workdir.glob("*.svg")]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1"])
def test_a_name_that_somebody_else_gave_this_machine_reads_nothing(tmp_path, host):
  with serving(LiveReport(tmp_path)) as address:
    for path in ("/", "/progress.json"):
      status, _, text = ask(address, path, host=f"{host}:{address[1]}")
      assert status == 403 and text == f"open http://127.0.0.1:{address[1]}/ instead\n"
    # An ssh tunnel may have another port here.
    for mine in ("localhost:9000", "127.0.0.1", "[::1]:9000", "LOCALHOST:1"):
      assert ask(address, "/", host=mine)[0] == 200


def test_no_other_machine_reaches_it(tmp_path):
  with LiveServer(LiveReport(tmp_path), port=0) as server:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_report_is_written_when_a_run_ends_and_not_between(growing, undrawn):
  workdir, begin, end = growing
  report = LiveReport(workdir)
  (workdir / "sweep.json").rename(workdir / "hidden")
  assert report.renew() and "no sweep.json" in report.page
  (workdir / "hidden").rename(workdir / "sweep.json")
  assert report.renew() and "No run has finished yet." in report.page
  assert "<h1>Which positional encoding reads further" in report.page
  begin("text-00")
  assert not report.renew(), "a run that goes on"
  begin("text-00", step=80)
  assert not report.renew()
  end("text-00")
  assert report.renew() and "1 of 2 runs finished" in report.page
  begin("text-01", state="failed", error="ValueError: no luck")
  assert report.renew() and "no luck" in report.page
  assert report.number == 4


def test_a_report_that_fails_leaves_the_progress(growing, monkeypatch):
  workdir, begin, end = growing

  def fail(workdir):
    raise RuntimeError("<script>out of luck</script>")

  monkeypatch.setattr(live_report.comparisons, "find", fail)
  begin("text-00")
  end("text-00")
  report = LiveReport(workdir)
  report.renew()
  words = "No report: RuntimeError: &lt;script&gt;out of luck&lt;/script&gt;"
  assert words in report.page and 'id="live"' in report.page


def test_reports_take_a_share_of_the_time(tmp_path, monkeypatch):
  report, pauses = LiveReport(tmp_path, every=10), []
  clock = iter([0.0, 1.0, 100.0, 107.0])
  monkeypatch.setattr(live_report.time, "monotonic", lambda: next(clock))
  monkeypatch.setattr(report, "renew", lambda: True)
  report.follow(lambda seconds: pauses.append(seconds) or len(pauses) == 3)
  assert pauses == [0, 10, 35]


def test_many_readers_are_one_reading_of_the_folder(tmp_path, monkeypatch):
  reads = []
  monkeypatch.setattr(
    live_report, "progress", lambda path: reads.append(path) or {"planned": None}
  )
  report = LiveReport(tmp_path)
  assert [report.progress()["planned"] for _ in range(5)] == [None] * 5
  assert len(reads) == 1


def test_a_taken_port_is_one_sentence(tmp_path):
  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    with pytest.raises(ReportError) as caught:
      live_server.serve(tmp_path, port)
  want = f"--port={port}: another process has this port; write --port=0 for a free one"
  assert str(caught.value) == want


COMMAND = [sys.executable, "-m", "experiments.report"]


def test_ctrl_c_ends_it_with_a_line(tmp_path):
  command = [*COMMAND, f"--workdir={tmp_path / 'later'}", "--serve", "--port=0"]
  with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
  ) as process:
    killer = threading.Timer(120, process.kill)
    killer.start()
    first = process.stdout.readline()
    port = int(
      re.fullmatch(r"live report of .*: http://127.0.0.1:(\d+)/ .*\n", first)[1]
    )
    now = json.loads(ask(("127.0.0.1", port), "/progress.json")[2])
    assert now["planned"] is None, "the folder is not there yet"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    killer.cancel()
  assert process.returncode == 130 and err == ""
  assert out == "\nthe live report has ended; nothing was written\n"
  assert not [*tmp_path.iterdir()]


def look(address, folder, *arguments, seconds=20):
  """Opens the live page in Chromium, for so much time of its own; returns the DOM."""
  command = [
    CHROMIUM,
    *"--headless --no-sandbox --disable-gpu --no-first-run --disable-sync".split(),
    *"--disable-background-networking --disable-component-update".split(),
    f"--user-data-dir={folder / 'profile'}",
    f"--virtual-time-budget={1000 * seconds}",
    *arguments,
    f"http://localhost:{address[1]}/",
  ]
  done = subprocess.run(command, capture_output=True, timeout=120)
  assert done.returncode == 0, done.stderr.decode()
  return done.stdout.decode()


def words(dom, name):
  """Returns the text of a part of the panel."""
  found = re.search(rf'id="live-{name}"[^>]*>(.*?)</(?:strong|span|ul|p|div)>', dom)
  return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split())


class Growing(LiveReport):
  """A live report whose sweep takes a step each time that the page asks."""

  def __init__(self, workdir, steps):
    super().__init__(workdir)
    self.steps = iter(steps)

  def progress(self):
    next(self.steps, lambda: None)()
    self._asked = float("-inf")
    self.renew()
    return super().progress()


@browser
def test_the_page_follows_a_sweep_untouched(growing, undrawn, tmp_path_factory):
  workdir, begin, end = growing
  (workdir / "sweep.json").rename(workdir / "hidden")
  shown = []

  class Noting(Growing):
    def progress(self):
      shown.append(now := super().progress())
      return now

  report = Noting(
    workdir,
    [
      lambda: None,
      lambda: (workdir / "hidden").rename(workdir / "sweep.json"),
      lambda: begin("text-00"),
      lambda: end("text-00"),
      lambda: begin("text-01", state="failed", error="ValueError: <b>bold</b>"),
      lambda: begin("text-01", attempts=2),
    ],
  )
  with serving(report) as address:
    dom = look(address, tmp_path_factory.mktemp("browser"), "--dump-dom")
  assert [now["planned"] for now in shown[:2]] == [None, 2]
  assert words(dom, "done") == "1 of 2 runs are done"
  assert words(dom, "counts") == "1 done 1 running"
  assert "about" in words(dom, "left")
  running = dom[dom.index('id="live-running"') : dom.index('id="live-failed"')]
  assert (
    "40 of 400" in running and "3.250" in running and "tpu-3, process 77" in running
  )
  # The report of the finished run came without a touch.
  assert "1 of 2 runs finished" in dom and 'id="main_text"' in dom
  assert "<b>bold" not in dom


@browser
def test_the_page_of_a_finished_sweep(growing, undrawn, tmp_path_factory):
  workdir, begin, end = growing
  for name in ("text-00", "text-01"):
    begin(name)
    end(name)
  report = LiveReport(workdir)
  report.renew()
  folder = tmp_path_factory.mktemp("browser")
  with serving(report) as address:
    dom = look(address, folder, "--dump-dom")
    assert words(dom, "done") == "All 2 runs are done"
    assert words(dom, "left") == "" and words(dom, "sign").startswith("live, ")
    assert re.search(r'id="live-running"[^>]* hidden', dom)


@browser
def test_a_page_in_use_stays_until_its_reader_asks(growing, undrawn, tmp_path_factory):
  workdir, begin, end = growing
  begin("text-00")
  end("text-00")
  report = Growing(workdir, [lambda: None, lambda: (begin("text-01"), end("text-01"))])
  report.renew()
  plain = live_report._live_page

  def with_a_reader(workdir, number):
    # The page's policy runs its own scripts alone: the reader comes without it.
    text = re.sub(r"<meta http-equiv[^>]*>", "", plain(workdir, number))
    touch = "dispatchEvent(new Event('keydown'))"
    return text.replace("</body>", f"<script>{touch}</script></body>")

  live_report._live_page = with_a_reader
  try:
    report._stamp = None
    report.renew()
    with serving(report) as address:
      dom = look(address, tmp_path_factory.mktemp("browser"), "--dump-dom")
  finally:
    live_report._live_page = plain
  assert words(dom, "done") == "All 2 runs are done"
  assert "1 of 2 runs finished" in dom, "the report of before is still there"
  assert not re.search(r'id="live-new"[^>]* hidden', dom)


def test_the_page_alone_loads_nothing_but_progress(tmp_path):
  report = LiveReport(tmp_path)
  report.renew()
  assert "default-src 'none'" in report.page and "connect-src 'self'" in report.page
  assert not re.search(r'(src|href)="(?!#)', report.page)
