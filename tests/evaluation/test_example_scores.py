"""Scores of single examples: their means are the scores, and their file is safe."""

import dataclasses
import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import one_program
import pytest
from test_lengths import Digits, make

from transformer_jax.evaluation import example_scores
from transformer_jax.evaluation.example_scores import ExampleScores
from transformer_jax.evaluation.lengths import Evaluator

CELL = (4, "accuracy", "mean")
SCORES = ExampleScores(
  (3, 5),
  {CELL: np.array([[0.5, np.nan], [0.25, np.nan]], np.float32)},
  {(4, "mean"): np.array([4, 0], np.float32)},
)


@dataclasses.dataclass(frozen=True)
class Holes(Digits):
  """Every third example has no target."""

  def score(self, arrays, key, batch_size, length, bucket):
    batch = super().score(arrays, key, batch_size, length, bucket)
    some_B1 = (jnp.arange(batch_size) % 3 > 0)[:, None]
    return dataclasses.replace(batch, weight_BL=batch.weight_BL * some_B1)


@pytest.mark.parametrize("task", [Digits(), Holes()])
def test_a_score_is_the_mean_of_its_examples_and_has_the_bits_it_had(task):
  model, task, params = make("alibi", task)
  evaluator = Evaluator(model, task, examples=6, batch_size=3)
  rows, examples = evaluator.run_examples(params, (), (4, 32))
  assert examples.seeds == (0, 1)
  columns = {(row["length"], row["measure"], row["part"]) for row in rows}
  assert columns == {*examples.value_SE}
  for row in rows:
    value_SE = examples.value_SE[row["length"], row["measure"], row["part"]]
    assert value_SE.shape == (2, 6)
    np.testing.assert_allclose(
      np.nanmean(value_SE[row["seed"]]), row["value"], rtol=1e-6
    )
  counted = [4] * 6 if type(task) is Digits else [0, 4, 4] * 2
  assert examples.weight_E[32, "mean"].tolist() == counted
  assert examples.weight_E[32, "last_quarter"].tolist() == [n / 4 for n in counted]
  missing = np.isnan(examples.value_SE[4, "exact_match", "mean"])
  assert (missing == (np.array(counted) == 0)).all()
  # The program without single examples, as it was before they were kept.
  alone = jax.jit(jax.vmap(lambda p: one_program.scores(evaluator, p, (), 32, 32)[0]))
  for seed in examples.seeds:
    own = jax.tree.map(lambda x, n=seed: x[n : n + 1], params)
    found = {cell: float(x_1[0]) for cell, x_1 in alone(own).items()}
    assert found == {
      (row["measure"], row["part"]): row["value"]
      for row in rows
      if (row["seed"], row["length"]) == (seed, 32)
    }


def test_the_file_is_read_as_written_and_by_numpy_alone(tmp_path):
  example_scores.write(tmp_path, SCORES)
  again = example_scores.read(tmp_path)
  assert again.seeds == (3, 5) and again.value_SE.keys() == {CELL}
  np.testing.assert_array_equal(again.value_SE[CELL], SCORES.value_SE[CELL])
  with np.load(tmp_path / example_scores.FILE, allow_pickle=False) as archive:
    assert archive["value/4/accuracy/mean"].dtype == np.float32
    assert archive["weight/4/mean"].tolist() == [4, 0]
  assert SCORES.content() == SCORES.content()  # no time of day in it
  assert example_scores.read(tmp_path / "older") is None


def archive(**arrays):
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
    for name, content in arrays.items():
      file.writestr(f"{name}.npy", content)
  return out.getvalue()


def header(shape, dtype="<f4"):
  out = io.BytesIO()
  fields = {"descr": dtype, "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(out, fields)
  return out.getvalue()


HOSTILE = {
  "no archive": b"PK and nothing",
  "half of it": SCORES.content()[:200],
  "objects": archive(seeds=header((1,), "|O") + b"cos\nsystem\n(S'true'\ntR."),
  "a header that promises memory": archive(seeds=header((2**40,))),
  "a negative size": archive(seeds=header((-1,)) + b"\0" * 4),
  "no array": archive(seeds=b"\0" * 40),
  "no seeds": archive(other=header((1,)) + b"\0" * 4),
  "more than is read": archive(seeds=header((2**18,)) + bytes(2**20)),
  "another number of seeds": archive(
    **{
      "seeds": header((1,), "<i8") + bytes(8),
      "value/4/accuracy/mean": header((2, 1)) + bytes(8),
      "weight/4/mean": header((1,)) + bytes(4),
    }
  ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_file_counts_as_none_and_is_named(
  name, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(example_scores, "MOST_BYTES", 2**19)
  (tmp_path / example_scores.FILE).write_bytes(HOSTILE[name])
  assert example_scores.read(tmp_path) is None
  [line] = capsys.readouterr().err.splitlines()
  assert "examples.npz is not readable" in line and "run the sweep again" in line
