"""Texts of others reach a terminal without its commands, and a spreadsheet without."""

import csv
import io
import json
import os
import subprocess
import sys
import types

import pytest
import rich.console
from fake_sweep import Page, write_sweep

from experiments import inference
from experiments.reporting import comparisons, load, results_csv
from experiments.reporting.page import print_report, write_report
from transformer_jax import command, untrusted
from transformer_jax.training import json_files
from transformer_jax.training.progress import Progress

BAIT = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\r\x08"
HTML = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
MEANS = {"none": (3.0, 3.2), "=HYPERLINK(1)": (2.0, 2.2), f"-x {BAIT}": (3.5, 3.6)}
MEANS |= {HTML: (2.5, None), "{{ 7 * 7 }}": (2.4, 2.5)}
HOSTILE = {"text": ("bits_per_byte", MEANS)}
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\r\x08"


def test_commands_to_a_terminal_are_written_out():
  assert untrusted.shown(BAIT) == SHOWN
  kept = "Grüße, 漢字, עברית\tand\nline ▲ ± – 😀"
  assert untrusted.shown(kept) == kept
  assert all(
    untrusted.shown(chr(n)).isprintable() or chr(n) in "\t\n" for n in range(160)
  )


def clean(text):
  return not any(untrusted.CONTROL.findall(text))


def test_bars_lines_and_warnings_show_no_command(capsys):
  for terminal in (True, False):
    out = io.StringIO()
    console = rich.console.Console(file=out, force_terminal=terminal, width=200)
    with Progress(2, f"label {BAIT}", console=console) as bar:
      bar.update(1, note=BAIT)
      bar.update(2, note=BAIT)
    assert BAIT[:10] not in out.getvalue() and "\x9b" not in out.getvalue()
    assert SHOWN in out.getvalue()
  assert clean(out.getvalue())  # without a terminal rich has no commands of its own
  json_files.warn(f"damaged {BAIT}")
  inference.warn(f"long {BAIT}")
  said = capsys.readouterr().err
  assert clean(said) and said.count(SHOWN) == 2


def test_answers_are_exact_in_a_file_and_clean_on_a_terminal(monkeypatch, capsys):
  flags = types.SimpleNamespace(run="there", batch_size=1, allow=[])
  monkeypatch.setattr(inference, "FLAGS", flags)
  inference.main(["label"], lambda: [BAIT])
  assert capsys.readouterr().out == f"{BAIT}\n"
  monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
  inference.main(["label"], lambda: [BAIT])
  assert capsys.readouterr().out == f"{SHOWN}\n"


def test_the_error_of_any_command_is_clean(capsys):
  def fails():
    raise ValueError(f"cannot read {BAIT}")

  with pytest.raises(SystemExit):
    command.guarded(fails, (ValueError,))
  assert capsys.readouterr().err == f"error: cannot read {SHOWN}\n"


def test_a_flag_with_a_command_is_shown_in_the_error():
  argv = [sys.executable, "-m", "experiments.run", f"--nothing{BAIT[:9]}=1"]
  done = subprocess.run(argv, capture_output=True, text=True, env=os.environ)
  assert done.returncode == 2 and clean(done.stdout + done.stderr)


@pytest.mark.parametrize(
  ("value", "cell"),
  [
    ("=1+1", "'=1+1"),
    ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
    ("-rope", "'-rope"),
    ("@SUM(A1)", "'@SUM(A1)"),
    ("\t=1", "'\t=1"),
    ("\r=1", "'\r=1"),
    ("-0.5", "-0.5"),
    ("+3", "+3"),
    ("-1e-05", "-1e-05"),
    (-0.5, -0.5),
    (-3, -3),
    (None, None),
    ("", ""),
    ("rope(base=5e5)", "rope(base=5e5)"),
  ],
)
def test_a_cell_is_no_formula_and_a_number_stays_one(value, cell):
  assert untrusted.cell(value) == cell


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
  """A finished sweep whose labels and groups are hostile."""
  workdir = tmp_path_factory.mktemp("hostile")
  write_sweep(workdir, HOSTILE, lengths=(64, 128), question=f"{HTML} {BAIT}")
  write_report(workdir)
  return workdir


def test_no_cell_of_results_is_a_formula(hostile):
  found = comparisons.find(hostile)
  rows = [*csv.reader(io.StringIO(results_csv.to_csv(found)))]
  assert any(row[1].startswith("'=") for row in rows)
  negative = 0
  for cell in (cell for row in rows for cell in row):
    if untrusted.FORMULA.match(cell):
      negative += float(cell) < 0
  assert negative


def test_the_page_holds_no_tag_of_a_label(hostile):
  text = (hostile / "report.html").read_text()
  page = Page(text)
  assert not {"link", "iframe", "img"} & {tag for tag, _ in page.tags}
  assert sum(tag == "script" for tag, _ in page.tags) == 1  # the page's own
  assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
  assert all(load.startswith("#") for load in page.loads)
  assert "{{ 7 *" in text and "\x1b" not in text and "alert(1)" in text


def test_a_report_shows_no_command(hostile):
  out = io.StringIO()
  console = rich.console.Console(file=out, width=120)
  print_report(hostile, console)
  assert clean(out.getvalue()) and "\\x1b[2J" in out.getvalue()


@pytest.mark.parametrize("name", ["../other", "/etc", "..", "", "a/../../b"])
def test_a_sweep_names_folders_below_its_own(tmp_path, name):
  (tmp_path / "sweep.json").write_text(json.dumps({"runs": [{"id": name}]}))
  with pytest.raises(load.ReportError, match="which is no name of a folder in runs"):
    load.read(tmp_path)
