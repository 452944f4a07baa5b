"""The report's files on folders that look like real sweeps, and on broken ones."""

import csv
import io
import json
import struct

import pytest
import rich.console
from fake_sweep import COPY, TEXT, edit, read_page, write_sweep

from experiments.reporting import comparisons, load, score_tables, summary
from experiments.reporting.page import print_report, write_report


def test_files_for_papers_and_slides(quick):
  rows = list(csv.DictReader((quick / "results.csv").read_text().splitlines()))
  assert len(rows) == 6 * 4 * 2 + 6 * 4 * 2 * 2
  (row,) = [
    row
    for row in rows
    if (row["group"], row["variant"], row["length"], row["part"])
    == ("text", "alibi", "512", "mean")
  ]
  assert row["verdict"] == "better" and float(row["p"]) <= float(row["p_holm"]) < 0.05
  assert float(row["difference_low"]) < float(row["difference"]) < 0
  assert float(row["mean_low"]) < float(row["mean"]) < float(row["mean_high"])
  for group in ("text", "copy"):
    for kind in ("length_curves", "training_curves", "differences"):
      png = (quick / f"{kind}_{group}.png").read_bytes()
      width, height = struct.unpack(">II", png[16:24])
      assert png[:4] == b"\x89PNG" and width > 1200 and height > 500
  assert "| alibi | 2.7" in (quick / "tables.md").read_text()
  latex = (quick / "tables.tex").read_text()
  assert r"last quarter" in latex and r"$\pm$" in latex and "±" not in latex
  assert not list(quick.glob("*.part"))


def test_terminal_table_fits_80_columns(quick):
  out = io.StringIO()
  print_report(quick, rich.console.Console(file=out, width=80))
  lines = out.getvalue().splitlines()
  (alibi, *_) = [line for line in lines if line.startswith("alibi")]
  assert "▲ better" in alibi and "…" not in out.getvalue()


def test_names_stay_readable_in_a_narrow_terminal(quick):
  out = io.StringIO()
  print_report(quick, rich.console.Console(file=out, width=56))
  lines = out.getvalue().splitlines()
  assert any(line.startswith("sinusoidal ") for line in lines)


def break_runs(workdir):
  """Makes four of the first runs fail, end damaged, stop half way and lose a seed."""
  (workdir / "runs/text-01/result.json").unlink()
  error = "RESOURCE_EXHAUSTED: <b>34 GB</b>"
  edit(workdir, "text-01", "status.json", state="failed", error=error, step=120)
  (workdir / "runs/text-03/result.json").write_text('{"id": ')
  (workdir / "runs/text-05/result.json").unlink()
  edit(workdir, "text-05", "status.json", state="interrupted", step=200)
  with open(workdir / "runs/text-05/metrics.jsonl", "a") as log:
    log.write('{"step": 440, "lo')
  result = json.loads((workdir / "runs/text-04/result.json").read_text())
  for score in result["scores"]:
    score["value"] = None if score["seed"] == 1 else score["value"]
  edit(workdir, "text-04", scores=result["scores"], diverged={"1": 230})
  (workdir / "runs/of-another-plan").mkdir()


def test_a_result_that_was_not_written_so_and_a_record_with_gaps_are_said(tmp_path):
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", TEXT)})
  edit(workdir, "text-00", rows_lost=[40, 80])
  edit(workdir, "text-01", "status.json", checksums={"result.json": "0" * 32})
  troubled = comparisons.find(workdir).troubled
  found = {(run.label, state): what for run, state, what in troubled}
  gaps = "metrics.jsonl lacks 2 steps, the first is 40"
  assert found["none", "record damaged"] == gaps
  assert "result.json is not what was written" in found["sinusoidal", "damaged"]


@pytest.mark.parametrize("content", ["[]", '{"runs": 3}', '{"groups": 3}', "\x00"])
def test_a_damaged_plan_is_one_sentence(tmp_path, content):
  (tmp_path / "sweep.json").write_text(content)
  with pytest.raises(load.ReportError, match="run the sweep again"):
    load.read(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_runs_without_a_result_are_named_and_shown(tmp_path):
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", TEXT)})
  break_runs(workdir)
  write_report(workdir)
  page, text = read_page(workdir), (workdir / "report.html").read_text()
  trouble = {(row[0], row[2]): row[3] for row in page.tables["trouble"]}
  assert trouble["sinusoidal", "failed"] == "step 120: RESOURCE_EXHAUSTED: <b>34 GB</b>"
  assert "<b>" not in text
  assert "result.json is damaged" in trouble["t5", "damaged"]
  assert "step 200" in trouble["rope", "interrupted"]
  assert trouble["alibi", "diverged"] == "seed 1 at step 230"
  main = {row[0]: row for row in page.tables["main_text"]}
  assert main["alibi"][6] == "diverged" and "(2 of 3 seeds)" in main["alibi"][4]
  assert main["rope"][6] == "unfinished" and main["t5"][6] == "failed"
  assert "3 of 6 runs finished" in text and "1 more run folders here" in text
  lead = summary.answer(comparisons.find(workdir), "text")[0]
  assert "8x the training length none has 3.4" in lead, "what lost a seed cannot win"


@pytest.mark.usefixtures("undrawn")
def test_a_report_is_replaced_as_a_whole(tmp_path):
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", {"none": TEXT["none"]})})
  path = write_report(workdir)
  (tmp_path / "kept.html").hardlink_to(path)  # the file that a reader has open
  edit(workdir, "text-00", command="another command")
  before = (tmp_path / "kept.html").read_text()
  assert "another command" in write_report(workdir).read_text()
  assert (tmp_path / "kept.html").read_text() == before


def test_zero_finished_runs_still_make_a_page(tmp_path):
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", {"none": TEXT["none"]})})
  (workdir / "runs/text-00/result.json").unlink()
  edit(workdir, "text-00", "status.json", state="running")
  write_report(workdir)
  assert "No run has finished (none running)." in (workdir / "report.html").read_text()
  assert (workdir / "training_curves_text.png").exists()
  print_report(workdir, rich.console.Console(file=io.StringIO()))


SCORE = {"seed": 0, "length": 64, "measure": "bits_per_byte", "value": 3.0}


@pytest.mark.parametrize(
  "change",
  [
    {"scores": [{"seed": 0}]},
    {"scores": [SCORE | {"part": ["mean"]}]},
    {"scores": [SCORE | {"seed": "0"}]},
    {"train_length": 0},
    {"lengths": None},
    {"measures": [{"name": "loss", "better": "up"}]},
    {"measures": []},
    {"measures": [{"name": "loss", "better": "lower", "bounds": [0]}]},
    {"seeds": "012"},
    {"diverged": [3]},
    {"data": ["aa"]},
    {"targets": {"64": {"fingerprint": ["aa"]}}},
  ],
  ids=lambda change: next(iter(change)),
)
def test_a_result_of_the_wrong_shape_is_damaged(tmp_path, change):
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", TEXT)})
  edit(workdir, "text-04", **change)
  (run,) = [run for run in load.read(workdir).runs if run.label == "alibi"]
  assert run.state == "damaged" and "result.json is damaged" in run.error
  assert len(comparisons.find(workdir).finished) == 5


def test_odd_plans_one_seed_one_length_unknown_groups_equal_labels(tmp_path):
  means = {"none": (3.0,), "$x_1$ <i>& 5%$ ^\\_{": (2.0,)}
  workdir = write_sweep(
    tmp_path, {"a/b ü": ("bits_per_byte", means)}, (0,), (64,), groups=["empty"]
  )
  plan = json.loads((workdir / "sweep.json").read_text())
  plan["runs"].append(plan["runs"][0] | {"id": "again"})
  (workdir / "sweep.json").write_text(json.dumps(plan))
  write_report(workdir)
  text = (workdir / "report.html").read_text()
  assert "<i>&" not in text and "one seed" in text
  assert "No run has finished (none was planned)." in text
  assert (workdir / "length_curves_a_b_.png").exists()
  assert "none [again]" in text
  named = [run.label for run in load.read(workdir).runs]
  assert named[0] == "none" and named[-1] == "none [again]"  # the baseline keeps it


def test_a_run_alone_is_not_called_the_best(tmp_path):
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", {"rope": TEXT["rope"]})})
  lead, more = summary.answer(comparisons.find(workdir), "text")
  assert lead.startswith("At 8x the training length rope has 3.7") and not more
  assert "best" not in lead


@pytest.mark.usefixtures("undrawn")
def test_a_group_without_the_baseline_has_no_verdicts(tmp_path):
  chapters = {"translation": ("accuracy", {"Transformer": COPY["rope"]})}
  chapters["hidden"] = ("accuracy", {"BERT": COPY["none"], "RoBERTa": COPY["alibi"]})
  workdir = write_sweep(tmp_path, chapters, baseline="Transformer")
  found = comparisons.find(workdir)
  lead, more = summary.answer(found, "hidden")
  nothing = "There is nothing to compare with: the baseline Transformer is not in this"
  assert "RoBERTa has the best mean" in lead and lead.endswith(f"{nothing} group.")
  assert "is best" not in lead + more
  page = write_report(workdir).read_text()
  table = read_page(workdir).tables["main_hidden"]
  assert table[0] == ["variant", "1x mean", "8x mean"]
  assert [row[0] for row in table[1:]] == ["BERT", "RoBERTa"]
  both = "BERT at 1x, RoBERTa at 1x, BERT at 8x and RoBERTa at 8x not compared"
  assert both in page and "resolved from Transformer" not in page
  header = score_tables.short_table(found, "hidden").header
  assert header == ("variant", "1x mean", "8x mean")
  assert {c.verdict for c in found.comparisons} == {"baseline", "not compared"}


def test_a_folder_that_is_no_sweep_says_what_to_do(tmp_path):
  with pytest.raises(load.ReportError, match="no sweep.json.*--workdir"):
    write_report(tmp_path)
  (tmp_path / "sweep.json").write_text("{")
  with pytest.raises(load.ReportError, match="damaged.*run the sweep again"):
    write_report(tmp_path)


@pytest.mark.parametrize("finished", [True, False])
def test_command_line(commands, tmp_path, finished):
  two = {name: COPY[name] for name in ("none", "rope")}
  workdir = write_sweep(tmp_path, {"copy": ("accuracy", two)}) if finished else tmp_path
  done = commands.run("experiments.report", f"--workdir={workdir}")
  assert done.returncode == (0 if finished else 2), done.stderr
  if finished:
    assert f"report: {workdir / 'report.html'}" in done.stdout
  else:
    assert done.stderr.startswith("error: no sweep.json in")
