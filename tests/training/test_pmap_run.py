"""`mesh.pmap=True`: a run by pmap has the numbers of the mesh, and resumes."""

import jax
import numpy as np
import pytest
from test_accumulate import SMALL
from test_training import close

from experiments.configs import base
from experiments.runner import train
from experiments.runner.build import build
from experiments.setup.identity import run_id
from experiments.setup.validate import ConfigError, flatten, resolve, validate
from transformer_jax.training import dispatch, sharding

CHANGES = SMALL | {"seeds": (3, 5), "model.dropout": 0.25, "mesh.data": 2}
CHANGES |= {
  "train.steps": 4,
  "train.steps_per_dispatch": 2,
  "train.schedule": "constant",
}
CHANGES |= {"train.checkpoint_every": 2, "train.optimizer": "adamw(lr=1e-2)"}
CHANGES |= {"evaluate.lengths": (1,), "evaluate.examples": 8, "evaluate.batch_size": 4}


ENCODER = {"task": "blanks(copy(symbols=8))", "model.kind": "encoder"}


def config(**more):
  return resolve(base.get_config(), CHANGES | {"mesh.pmap": True} | more)


def compiled(by_pmap, seeds=(3, 5), **more):
  trainer, mesh = build(config(**more)).trainer, sharding.make_mesh(data=2)
  return dispatch.compile_steps(trainer, seeds, (), mesh, 2, by_pmap=by_pmap)


@pytest.mark.parametrize(
  "more",
  [
    {},
    pytest.param(
      {"task": "pairs(copy(symbols=8))", "model.kind": "encoder_decoder"}
      | {"model.position": "randomized(rope, max_positions=64)"},
      marks=pytest.mark.slow,
    ),
  ],
  ids=["decoder", "encoder_decoder"],
)
def test_losses_and_parameters_are_those_of_the_mesh(more):
  mesh, pmap = (compiled(by_pmap, **more) for by_pmap in (False, True))
  (want, want_metrics), (got, got_metrics) = (
    program((), program((), program.init())[0]) for program in (mesh, pmap)
  )
  assert want_metrics["loss"].shape == got_metrics["loss"].shape == (2, 2)
  close(got_metrics, want_metrics, atol=1e-5)
  close(got.params, want.params, atol=1e-5)
  assert got.step.tolist() == [4, 4]
  assert jax.tree.leaves(got.params)[0].sharding.is_fully_replicated


def test_a_run_scores_as_on_the_mesh_and_resumes_to_the_same_bits(tmp_path):
  def ran(name, stop=False, **more):
    folder = tmp_path / name / "runs" / "one"
    folder.mkdir(parents=True, exist_ok=True)
    return train.run(config(**more), folder, "tiny", stop)

  class AfterOne:
    """True after the first dispatch."""

    asked = 0

    def __bool__(self):
      self.asked += 1
      return self.asked > 1

  mesh, pmap = ran("mesh", **{"mesh.pmap": False}), ran("pmap")
  assert ran("stopped", stop=AfterOne()) is None
  resumed = ran("stopped")
  scores = [[x["value"] for x in result["scores"]] for result in (mesh, pmap, resumed)]
  np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)
  assert scores[2] == scores[1]
  assert pmap["peak_bytes"] > 0 and pmap["mesh"]["data"] == 2


def test_it_has_an_id_of_its_own_and_older_runs_keep_theirs():
  flat = flatten(config(**{"mesh.pmap": False}))
  older = {key: value for key, value in flat.items() if key != "mesh.pmap"}
  assert run_id(flat) == run_id(older) != run_id(flatten(config()))


@pytest.mark.parametrize(
  ("more", "says"),
  [
    (
      {"mesh.fsdp": 2},
      "mesh.pmap=True splits batches alone, by mesh.data: write mesh.",
    ),
    ({"mesh.seed": 2}, "write mesh.seed=1"),
    ({"mesh.tensor": 2}, "write mesh.tensor=1"),
    ({"mesh.sequence": 2}, "write mesh.sequence=1"),
    ({"train.accumulate": 2}, "write train.accumulate=1, or mesh.pmap=False"),
    ({"train.batch_size": 9}, "train.batch_size=9 is not a multiple of mesh.data=2"),
  ],
  ids=str,
)
def test_what_pmap_does_not_split_is_refused_in_one_sentence(more, says):
  with pytest.raises(ConfigError) as error:
    validate(config(**more), devices=8)
  assert says in str(error.value) and len(error.value.problems) == 1


def test_a_norm_of_the_batch_is_refused_before_anything_compiles():
  with pytest.raises(ConfigError, match="mesh.pmap=True: batchnorm reads the whole"):
    build(config(**{"model.norm": "batchnorm", **ENCODER}))
