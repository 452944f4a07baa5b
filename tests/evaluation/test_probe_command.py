"""Probes of finished runs: from Python and from the command."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from absl import flags

from experiments import load_sweep
from experiments.probe import __main__ as probe
from experiments.probe import probe_runs
from experiments.reporting import (
  chosen_runs,
  comparisons,
  figures,
  probe_curves,
  probe_figures,
  probe_result,
  probe_tables,
)
from experiments.reporting.crossed import interval
from experiments.reporting.probe_result import ProbeResult, ProbeSettings
from experiments.setup.validate import ConfigError
from transformer_jax.training.json_files import write_json

SMALL = {"examples": 20, "steps": 20, "samples": 200}


@pytest.fixture
def here(workdir, monkeypatch):
  monkeypatch.chdir(workdir.parents[1])


@pytest.fixture(scope="module")
def text(workdir):
  return load_sweep(workdir).trained("rope")


@pytest.fixture(scope="module")
def copy(workdir):
  return load_sweep(workdir).trained("none", group="copy")


def test_a_run_is_probed_from_python(copy, here):
  found = copy.probe("position", **SMALL, mdl=True)
  names = ("embedding", "layer_0", "output")
  assert found.layers == tuple(f"decoder/{name}" for name in names)
  guesses = {"majority", "median error"}
  names = {"probe", "control", "untrained", "error"}
  assert {*found.score_SPE} == names | guesses
  for score_SPE in found.score_SPE.values():
    assert score_SPE.shape == (2, 3, 20) and np.isfinite(score_SPE).all()
  # Ten places in each text: 4.5 is the median, and the mean error from it 2.5.
  assert found.estimate("median error", 0).mean == pytest.approx(2.5, abs=0.5)
  # Without an encoding the embedding tells the places of two special tokens of ten.
  assert 0.2 <= found.estimate("probe", 0).mean < 0.4
  assert found.classes == 10 and found.measure == "accuracy"
  assert found.bits("probe", 0).mean > 2 and found.uniform == np.log2(10)
  again = copy.probe("position", **SMALL, control=0, untrained=False)
  assert {*again.score_SPE} == {"probe", "error"} | guesses
  # The same texts, tokens and batches, whatever else is computed beside them.
  np.testing.assert_allclose(
    again.score_SPE["probe"], found.score_SPE["probe"], atol=0.11
  )


def test_some_layers_are_those_of_all(copy, here):
  every = copy.probe("next_token", **SMALL, control=0, untrained=False)
  some = copy.probe(
    "next_token", **SMALL, control=0, untrained=False, layers=("output", "0")
  )
  assert some.layers == ("decoder/embedding", "decoder/output")
  np.testing.assert_allclose(
    some.score_SPE["probe"], every.score_SPE["probe"][:, [0, 2]], atol=0.11
  )


def known():
  """Returns a result of two seeds, one layer and three texts."""
  scores = {
    "probe": np.array([[[1.0, 0.5, 0.0]], [[1.0, 1.0, 0.5]]]),
    "control": np.array([[[0.5, 0.5, 0.0]], [[0.5, 0.5, 0.5]]]),
    "majority": np.full((2, 1, 3), 0.25),
  }
  counts = {"train": 9, "test": 3}
  settings = ProbeSettings("position", control=2)
  bits_SP = {"probe": np.array([[1.0], [1.0]])}
  return ProbeResult(
    settings, "accuracy", 4, ("decoder/output",), (0, 1), counts, scores, bits_SP, 2.0
  )


def test_tables_have_the_numbers_with_their_intervals():
  result = known()
  difference_SE = result.score_SPE["probe"][:, 0] - result.score_SPE["control"][:, 0]
  wanted = interval(difference_SE)
  table = probe_tables.table({"rope": result})
  header = ("run", "layer", "accuracy", "control", "selectivity", "bits", "compression")
  assert table.header == header
  [cells] = table.rows
  assert cells[:2] == ("rope", "output") and cells[5:] == ("1.000", "2.00")
  assert cells[4].startswith(f"+{wanted.mean:.3f}")
  assert "the token and 1 before it" in table.notes[1]
  assert "most frequent has 0.250" in " ".join(table.notes[0].split())
  short = probe_tables.table({"rope": result}, short=True)
  assert "control" not in short.header and "selectivity" in short.header
  records, fields = {"rope": result.record()}, dataclasses.asdict(result.settings)
  picture = probe_figures.score_by_layer(fields, records, "a_name")
  rows = [*csv.DictReader(picture.files["csv"].decode().splitlines())]
  by_score = {row["score"]: float(row["mean"]) for row in rows}
  assert by_score["selectivity"] == pytest.approx(wanted.mean)
  assert {row["layer"] for row in rows} == {"decoder/output"}
  values = {(x["score"], x["seed"]): x["value"] for x in result.by_seed()}
  assert (
    values["probe", 1] == pytest.approx(2.5 / 3) and values["bits of probe", 0] == 1
  )


def test_the_figure_names_its_runs_and_has_all_numbers():
  records = {"rope": known().record(), "none": known().record()}
  fields = dataclasses.asdict(known().settings)
  picture = probe_figures.score_by_layer(fields, records, "a_name")
  assert {*picture.files} == {"png", "svg", "pdf", "csv"}
  assert picture.files["csv"].decode().count("\nrope,decoder/output,") == 5
  assert "dotted" in picture.caption and picture.name == "a_name"
  assert picture.caption.endswith("Settings: control=2.")


OTHERS = {
  "label": "distance",
  "probe": "mlp(hidden=64)",
  "layers": ("0", "output"),
  "stack": "encoder",
  "examples": 600,
  "samples": 8000,
  "steps": 100,
  "length": 6,
  "task": "text('corpus')",
  "texts": "train",
  "control": 2,
  "mdl": True,
  "untrained": False,
}


def test_results_of_other_settings_have_files_of_their_own():
  plain = ProbeSettings("position")
  assert plain.name == "position_linear"
  assert {*OTHERS} == {*vars(plain)} - {"extrapolate"}
  names = {dataclasses.replace(plain, **{x: y}).name for x, y in OTHERS.items()}
  assert len(names) == len(OTHERS) and plain.name not in names
  # As JSON has them, and as text of any length.
  assert probe_result.others(json.loads(json.dumps(vars(plain)))) == {}
  long = [ProbeSettings("position", task=f"{'x' * 300}{n}").name for n in (1, 2)]
  assert long[0] != long[1] and max(map(len, long)) <= 120


@pytest.fixture
def command(workdir, here, monkeypatch):
  """Runs the command with some flags; returns its exit code."""

  def run(*words):
    values = flags.FlagValues()
    monkeypatch.setattr(flags, "FLAGS", values)
    monkeypatch.setattr(probe, "FLAGS", values)
    with monkeypatch.context() as patch:
      for kind in ("string", "list", "integer", "bool"):
        name = f"DEFINE_{kind}"
        define = getattr(flags, name)

        def into(*args, define=define, **more):
          return define(*args, flag_values=values, **more)

        patch.setattr(flags, name, into)
      probe.define()
    values(["probe", *words])
    return probe.main(["probe"])

  return run


def test_the_command_writes_beside_the_runs_of_a_sweep(
  command, workdir, tmp_path, capsys
):
  small = ["--examples=20", "--steps=20", "--samples=200", "--control=2"]
  code = command(
    f"--run={workdir}",
    "--groups=copy",
    "--label=target",
    f"--folder={tmp_path}",
    *small,
  )
  assert code == 0
  names = {path.name for path in tmp_path.iterdir()}
  stem = "target_linear_examples_20_samples_200_steps_20_control_2"
  assert names == {f"{stem}.{x}" for x in ("md", "csv", "json", "png", "svg", "pdf")}
  record = json.loads((tmp_path / f"{stem}.json").read_text())
  assert record["runs"][0]["shared_texts"] > 0  # copies of up to four symbols repeat
  assert "are also among the texts" in (tmp_path / f"{stem}.md").read_text()
  assert record["settings"]["label"] == "target" and record["settings"]["control"] == 2
  assert [run["label"] for run in record["runs"]] == ["none"]
  assert "target, read by linear" in capsys.readouterr().out
  assert not (workdir / "probes").exists()


def test_the_report_of_a_sweep_has_the_figures_of_its_groups(workdir, capsys):
  [run] = [x for x in comparisons.find(workdir).sweep.runs if x.group == "copy"]
  fields = dataclasses.asdict(known().settings)
  path = workdir / "probes" / "position_linear.json"
  try:
    runs = [{"id": run.id, "label": "other name", **known().record()}, {"id": "gone"}]
    write_json(path, {"settings": fields, "runs": runs})
    found = comparisons.find(workdir)
    [figure] = probe_curves.probe_curves(found, "copy")
    assert "none,decoder/output,probe" in figure.files["csv"].decode()
    assert figure.name == "probes_position_linear_copy"
    assert figure in figures.draw(found)[0]["copy"]
    assert probe_curves.probe_curves(found, "text") == []
    write_json(path, {"runs": 3})
    assert probe_curves.probe_curves(found, "copy") == []
    assert "probe its runs again" in capsys.readouterr().err
  finally:
    shutil.rmtree(path.parent)


def failing(run, label="position", **settings):
  with pytest.raises(ConfigError) as error:
    run.probe(label, **SMALL | settings)
  return str(error.value)


def test_bad_input_is_one_sentence(text, copy, here):
  said = failing(copy, layers=("layer_7",))
  assert "--layers=layer_7: there is no such layer" in said and "layer_0" in said
  assert "or 0 to 2" in failing(copy, layers=("3",))
  assert "add --extrapolate" in failing(copy, length=9)
  assert "--stack=encoder: this model has decoder" in failing(copy, stack="encoder")
  assert "This run's task makes no labels" in failing(copy, "depth")
  assert "unknown probe 'linaer'. Did you mean 'linear'?" in failing(
    copy, probe="linaer"
  )
  assert "more classes" not in failing(text, "next_token", samples=100)
  assert "256 classes and" in failing(text, "next_token", samples=100)
  assert "have class 0" in failing(copy, "length_so_far(since=2)", length=1)
  assert "has no split 'tset'" in failing(copy, texts="tset")
  assert "--texts=test: probes are scored on these texts" in failing(copy, texts="test")
  said = failing(copy, task="text('corpus')")
  assert "vocabulary has 256 tokens and the run was trained with 8" in said


def test_a_table_of_positions_ends_the_length(copy, here):
  """A model with eight positions cannot read longer texts, extrapolated or not."""
  experiment = copy.experiment
  arch = dataclasses.replace(experiment.trainer.model.arch, position="learned")
  model = experiment.trainer.model.clone(arch=arch)
  short = dataclasses.replace(
    experiment,
    trainer=dataclasses.replace(experiment.trainer, model=model),
    evaluator=dataclasses.replace(experiment.evaluator, model=model),
  )
  run = dataclasses.replace(copy, experiment=short)
  assert "positions and this length needs" in failing(run, length=64, extrapolate=True)


def test_longer_texts_are_probed_where_asked(copy, here):
  found = copy.probe(
    "position", **SMALL, length=6, extrapolate=True, control=0, untrained=False
  )
  assert found.classes == copy.task.tokens(6) and found.settings.name.startswith(
    "position_linear_6"
  )


def test_runs_are_chosen_by_group_and_label(workdir):
  assert {*chosen_runs.folders(workdir)} == {"text rope", "copy none"}
  assert {*chosen_runs.folders(workdir, groups=["text"])} == {"rope"}
  with pytest.raises(ConfigError, match="--labels: there is no 'rop'.*'rope'"):
    chosen_runs.folders(workdir, labels=["rop"])
  with pytest.raises(ConfigError, match="--groups: there is no 'txt'"):
    chosen_runs.folders(workdir, groups=["txt"])
  [folder] = chosen_runs.folders(workdir, groups=["copy"]).values()
  assert chosen_runs.folders(folder, alone="it") == {"it": folder}
  with pytest.raises(ConfigError, match="is no sweep: leave out --groups"):
    chosen_runs.folders(folder, groups=["copy"])


def test_a_run_without_checkpoints_is_named(workdir, tmp_path, here):
  [folder] = chosen_runs.folders(workdir, groups=["copy"]).values()
  bare = tmp_path / "bare"
  shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("checkpoints"))
  with pytest.raises(ConfigError, match="has no checkpoint: copy its folder"):
    probe_runs.probed({"bare": bare}, ProbeSettings("position"))
  with pytest.raises(ConfigError, match="is no run: it has no config.json"):
    probe_runs.probed({"none": tmp_path}, ProbeSettings("position"))
