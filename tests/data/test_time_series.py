"""The task `time_series`: its windows, baselines and bad files."""

import gzip
import json

import jax
import numpy as np
import pytest

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, resolve, validate
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.sources import table_build, us_births
from transformer_jax.data.tasks.series import forecast_baselines
from transformer_jax.data.tasks.series.time_series import SeriesScale

RNG = np.random.default_rng(0)
T, H = 200, 3
VALUE_T = np.sin(np.arange(T) * 2 * np.pi / 7) + 0.1 * RNG.normal(size=T)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp("series") / "sales.csv.gz"
  rows = [f"{n % 7},{x}" for n, x in enumerate(VALUE_T)]
  path.write_bytes(gzip.compress("\n".join(["weekday,sales", *rows]).encode()))
  return path


def task_of(path, **options):
  options = {"columns": ("sales", "weekday"), "horizon": H, "season": 7} | options
  options = {"relative": False} | options
  listed = ", ".join(f"{name}={value!r}" for name, value in options.items())
  return tasks.build(f"time_series({str(path)!r}, {listed})")


@pytest.fixture(scope="module")
def data(path):
  return task_of(path), task_of(path).load()


def test_training_windows_are_of_the_training_part(data):
  task, (arrays, facts) = data
  assert facts["values"] == {"train": 160, "test": 20} and facts["split"] == "by time"
  mean, deviation = VALUE_T[:160].mean(), VALUE_T[:160].std()
  standard_T = ((VALUE_T - mean) / deviation).astype("f4")
  batch = jax.jit(lambda key: task.batch(arrays, key, 64, 5))(jax.random.key(0))
  assert batch.input_BL.shape == (64, 5, 2) and batch.target_BL.shape == (64, 5, H)
  firsts = set()
  x_BLC, target_BLN = np.asarray(batch.input_BL), np.asarray(batch.target_BL)
  for x_LC, target_LN in zip(x_BLC, target_BLN, strict=True):
    first = int(np.abs(standard_T - x_LC[0, 0]).argmin())
    firsts.add(first)
    assert first + 5 + H <= 160, "a target is after the training part"
    for n in range(5):
      np.testing.assert_allclose(x_LC[n, 0], standard_T[first + n], rtol=1e-4)
      after = standard_T[first + n + 1 : first + n + 1 + H]
      np.testing.assert_allclose(target_LN[n], after, rtol=1e-4)
  assert len(firsts) > 20
  scale = data[1].fitted
  np.testing.assert_allclose(scale.original("sales", standard_T), VALUE_T, rtol=1e-4)


def test_the_same_values_are_forecast_at_every_length(data):
  task, (arrays, _) = data
  score = jax.jit(lambda n: task.score(arrays, jax.random.key(1), 100, n, 8))
  short, long = score(2), score(8)
  E = task.available(arrays)
  assert E == 20 - H + 1 == long.input_BL.shape[0]
  np.testing.assert_array_equal(short.target_BL[:, -1], long.target_BL[:, -1])
  for batch, n in ((short, 2), (long, 8)):
    assert np.asarray(batch.weight_BL).sum(1).tolist() == [1] * E
    assert (np.asarray(batch.at.real_BL).sum(1) == n).all()
    assert not np.asarray(batch.input_BL)[:, : 8 - n].any()
  truth_EH = sorted(VALUE_T[180 + n : 180 + n + H].tolist() for n in range(E))
  scale = data[1].fitted
  found = scale.original("sales", np.asarray(long.target_BL[:, -1]))
  np.testing.assert_allclose(sorted(found.tolist()), truth_EH, rtol=1e-4, atol=1e-5)


def test_windows_are_shorter_at_the_start_of_the_series(data):
  task, (arrays, _) = data
  scored = arrays["scored"] | {"place_E": np.array([1], np.int32)}
  batch = task.score({"scored": scored}, jax.random.key(0), 4, 8, 8)
  assert np.asarray(batch.at.real_BL).tolist() == [[0] * 6 + [1, 1]]
  np.testing.assert_array_equal(batch.input_BL[0, -1], scored["value_TC"][1])


@pytest.mark.parametrize("season", [0, 2])
def test_a_difference_has_the_error_of_the_value(path, season):
  plain, relative = (task_of(path, season=season, relative=x) for x in (False, True))
  arrays, _ = plain.load()
  value_T = arrays["scored"]["value_TC"][:, 0]
  draw = lambda task: task.score(arrays, jax.random.key(1), 100, 8, 8)
  place_E = np.asarray(draw(plain).input_BL)[:, -1, 0]
  for last, whole_N, target_N in zip(
    place_E, draw(plain).target_BL[:, -1], draw(relative).target_BL[:, -1], strict=True
  ):
    place = int(np.flatnonzero(value_T == last)[-1])
    naive = [place, place, place] if not season else [place - 1, place, place - 1]
    np.testing.assert_allclose(whole_N - target_N, value_T[naive], atol=1e-5)


@pytest.mark.parametrize(("season", "horizon"), [(7, 1), (7, 3), (2, 5), (0, 2)])
def test_a_series_that_repeats_has_no_difference(tmp_path, season, horizon):
  """At its start too, where no value is one season before."""
  values = [n % season if season else 0.5 for n in range(99)] + [9.0] * 101
  (tmp_path / "week.csv").write_text("sales\n" + "\n".join(map(str, values)))
  path = tmp_path / "week.csv"
  task = task_of(
    path, columns=("sales",), season=season, horizon=horizon, relative=True
  )
  arrays, _ = task.load()
  arrays["train"]["value_TC"] = arrays["train"]["value_TC"][:99]
  batch = task.batch(arrays, jax.random.key(0), 512, 20)
  target_BLN, weight_BL = np.asarray(batch.target_BL), np.asarray(batch.weight_BL)
  assert np.abs(target_BLN[weight_BL > 0]).max() < 1e-5
  assert (weight_BL[:, season:] == 1).all() and weight_BL.mean() > 0.95
  if season > 2:
    assert (weight_BL == 0).any(), "no window at the start of the series"


def test_baselines_against_loops():
  place_E = np.arange(179, 200 - H)
  found = forecast_baselines.errors(VALUE_T, place_E, H, train=160, season=7)
  last, seasonal = [], []
  for place in place_E:
    for h in range(1, H + 1):
      last.append(VALUE_T[place] - VALUE_T[place + h])
      seasonal.append(VALUE_T[place + h - 7] - VALUE_T[place + h])
  assert found["last_value"]["mae"] == pytest.approx(np.abs(last).mean(), abs=1e-6)
  assert found["seasonal_naive"]["mse"] == pytest.approx(
    np.square(seasonal).mean(), abs=1e-6
  )
  far = forecast_baselines.seasonal(np.arange(50.0), 5, 2)(np.array([20]))
  assert far.tolist() == [[19, 20, 19, 20, 19]]
  exact = 3 + 2 * np.cos(np.arange(T) * 2 * np.pi / 7)  # a recurrence of two values
  regression = forecast_baselines.errors(exact, place_E, H, 160, 0)["linear_40"]
  assert regression["mae"] < 1e-6


BAD = {
  "empty": ("", "holds no line of numbers after its header"),
  "header alone": ("sales,weekday\n", "holds no line of numbers"),
  "no header": ("1,2\n3,4\n", "names no columns but '1, 2'"),
  "text": ("sales,weekday\n1,2\nmany,3\n", "line 3 has no number in column 'sales'"),
  "NaN": ("sales,weekday\nnan,2\n4,3\n", "line 2 has no number in column 'sales' but"),
  "infinite": (
    "sales,weekday\n1,2\n1,inf\n",
    "line 3 has no number in column 'weekday'",
  ),
  "missing": (
    "sales,weekday\n1,2\n,3\n",
    "line 3 has no number in column 'sales' but ''",
  ),
  "ragged": ("sales,weekday\n1,2\n1\n", "line 3 has 1 fields and the first line 2"),
  "column": ("sale,weekday\n1,2\n", "has no column 'sales'. Did you mean 'sale'?"),
  "short": ("sales,weekday\n" + "1,2\n2,1\n" * 20, "has 40 values, of which 4 are its"),
  "still": ("sales,weekday\n" + "1,2\n" * 99, "column 'sales' is 1 in the whole train"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_said_in_one_line(tmp_path, name):
  text, says = BAD[name]
  (tmp_path / "bad.csv").write_text(text)
  with pytest.raises(DataError) as caught:
    task_of(tmp_path / "bad.csv").load()
  assert says in str(caught.value) and "\n" not in str(caught.value)


def test_bad_arguments(path, tmp_path):
  refused = {
    "horizon is 0": {"horizon": 0},
    "season is -1": {"season": -1},
    "write names": {"columns": ()},
    "cannot be scored": {"split": "train"},
  }
  for says, options in refused.items():
    with pytest.raises(DataError, match=says):
      task_of(path, **options)
  with pytest.raises(DataError, match="no 'nowhere.csv'.*write 'us_births'"):
    task_of("nowhere.csv").load()
  with pytest.raises(DataError, match="prepare it once: python -m .* us_births"):
    task_of("us_births", data_dir=str(tmp_path)).load()
  task = task_of(path)
  arrays, _ = task.load()
  with pytest.raises(DataError, match="has 160 values, and windows of 160.*need 163"):
    task.check(arrays, 160)


def config_of(path, **changes):
  config = base.get_config()
  config.task = f"time_series({str(path)!r}, columns=('sales',))"
  config.model.update(embedding="numbers(features=1)", tied=False)
  config = resolve(config, changes)
  validate(config)
  return build(config)


def test_a_config_builds_it_and_what_does_not_fit_is_refused(path):
  arch = config_of(path).trainer.model.arch
  assert arch.classes == 1
  refused = {
    "write features=1": {"model.embedding": "numbers(features=2)"},
    "these are numbers": {"model.embedding": "tokens"},
    "measure accuracy is of labels": {"evaluate.measures": ("accuracy",)},
    "label_smoothing=0.1 is of labels": {"train.label_smoothing": 0.1},
  }
  for says, changes in refused.items():
    with pytest.raises((ConfigError, ValueError), match=says):
      config_of(path, **changes)


def test_scales_are_kept_and_other_ones_refused(path, tmp_path):
  task = task_of(path)
  task.keep(tmp_path, SeriesScale({"sales": (1.0, 2.0)}))
  assert json.loads((tmp_path / "series.json").read_text()) == {"sales": [1.0, 2.0]}
  with pytest.raises(DataError, match="standardized otherwise"):
    task.keep(tmp_path, SeriesScale({"sales": (1.0, 3.0)}))


def test_a_source_is_written_once_and_read_by_name(tmp_path, monkeypatch):
  rows = "\n".join(f"{x}" for x in VALUE_T)
  tables = lambda self, paths: {"data.csv": f"births\n{rows}\n"}
  monkeypatch.setattr(us_births.UsBirths, "tables", tables)
  fetcher = us_births.UsBirths().fetcher()
  monkeypatch.setattr(type(fetcher), "fetch", lambda self, folder: [])
  folder = table_build.build("us_births", us_births.UsBirths(), str(tmp_path))
  assert folder == table_build.build("us_births", us_births.UsBirths(), str(tmp_path))
  task = task_of("us_births", columns=("births",), data_dir=str(tmp_path))
  arrays, facts = task.load()
  assert facts["licence"] == "PDDL-1.0 and CC0-1.0" and "packages" in facts
  assert arrays["train"]["value_TC"].shape == (160, 1)
