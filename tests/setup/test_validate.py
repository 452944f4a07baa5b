"""Values that no run can use are refused before anything compiles."""

import re

import pytest
from fake_runs import BASE

from experiments.runner.build import build
from experiments.runner.train import describe
from experiments.setup.validate import ConfigError, resolve, validate


@pytest.mark.parametrize(
  ("overrides", "says"),
  [
    ({"model.position": "rop"}, "Did you mean 'rope'"),
    ({"train.rows": 8}, "train.rows is called train.batch_size"),
    ({"model.position": "rope(bse=1)"}, "Did you mean 'base'"),
    ({"model.position": "pathlib:Path"}, "must inherit"),
    ({"model.core": "blockwize"}, "Did you mean 'blockwise'"),
    ({"model.attention": "gqa(2) + windw(8)"}, "Did you mean 'window'"),
    ({"model.attention": "gqa(2) + mqa"}, "both decide how queries and keys"),
    ({"model.kind": "decodr"}, "Did you mean 'decoder'"),
    ({"model.kind": "coder"}, "Write one of decoder, prefix_decoder, encoder, enc"),
    ({"model.width": 65}, "write model.width=64 or 68"),
    ({"model.width": 0}, "write 1 or more"),
    ({"train.steps": 90}, "write train.steps=80 or 120"),
    ({"model.dropout": 1.0}, "write a number from 0 to below 1"),
    ({"train.ema": 1.0}, "write a number from 0 to below 1"),
    ({"train.clip": float("nan")}, "write 0 or more"),
    ({"seeds": (1, 1)}, "write different numbers"),
    ({"evaluate.lengths": (2, 1)}, "write growing multiples"),
    ({"mesh.data": 3, "mesh.tensor": 3}, "only 8 devices here"),
    ({"mesh.data": -1, "train.batch_size": 12}, "write train.batch_size=8 or 16"),
    ({"mesh.tensor": 3, "mesh.data": -1}, "8 devices are not a multiple"),
    ({"mesh.data": 0}, "mesh.data=0: write 1 or more, or -1 for all devices"),
    ({"mesh.seed": -1}, "mesh.seed=-1: write 1 or more$"),
    ({"mesh.seed": 2, "mesh.fsdp": 8}, "mesh.seed=2 x mesh.fsdp=8: only 8 devices"),
    (
      {"mesh.seed": 2},
      "mesh.seed=2 does not divide the 3 seeds: write a m",
    ),
    ({"mesh.fsdp": 5}, "model.width=64 is not a multiple of mesh.fsdp=5"),
    (
      {"mesh.data": 2, "mesh.fsdp": 4, "train.batch_size": 12},
      "of mesh.data x mesh.fsdp=8",
    ),
    ({"train.accumulate": 0}, "train.accumulate=0: write 1 or more"),
    (
      {"train.accumulate": 3},
      "multiple of train.accumulate x mesh.data=3",
    ),
    (
      {"train.accumulate": 4, "mesh.data": 4, "train.batch_size": 8},
      "train.batch_size=8 is not a multiple of train.accumulate x mesh.data=16",
    ),
  ],
)
def test_a_value_that_cannot_be_used_is_refused(overrides, says):
  with pytest.raises(ConfigError, match=says):
    validate(resolve(BASE, overrides), devices=8)


def test_all_problems_are_said_at_once():
  with pytest.raises(ConfigError) as caught:
    validate(resolve(BASE, {"model.norm": "x", "task": "y", "model.heads": 0}), 8)
  assert len(caught.value.problems) == 3


READS = {"model.kind": "encoder_decoder"}


@pytest.mark.parametrize(
  ("overrides", "says"),
  [
    (READS | {"task": "copy(symbols=4)"}, "--config.task='pairs(copy(symbols=4))'"),
    (READS, "kind=decoder, or --config.task='pairs(copy)'"),
    ({"task": "pairs(copy)"}, "write --config.model.kind=encoder_decoder"),
    (
      READS | {"task": "pairs(copy)", "model.position": "cope"},
      "model.core=auto: cope in encoder attention: cope counts tokens",
    ),
    ({"task": "blanks(parity)"}, "write --config.model.kind=encoder"),
    (
      {"task": "blanks(parity)", "model.kind": "prefix_decoder"},
      "--config.task='prefixed(parity)'",
    ),
  ],
)
def test_a_kind_of_model_and_a_task_that_do_not_fit_are_refused(overrides, says):
  with pytest.raises(ConfigError, match=re.escape(says)) as caught:
    build(resolve(BASE, overrides))
  assert f"model.kind={overrides.get('model.kind', 'decoder')}" in str(caught.value)


def test_an_encoder_decoder_has_layers_on_both_sides():
  arch = build(resolve(BASE, READS | {"task": "pairs(addition)"})).trainer.model.arch
  assert (arch.encoders, arch.decoders) == (2, 2)
  assert arch.dims.L == 2 * BASE.train.length + 1  # the prompt, longer than the answer


@pytest.mark.parametrize(
  "overrides",
  [{}, READS | {"task": "pairs(recall(keys=5))"}],
  ids=["decoder", "reader"],
)
def test_a_length_that_cannot_be_scored_is_refused_before_training(overrides):
  many = {"task": "recall(keys=5)", "train.length": 2, "evaluate.lengths": (1, 8)}
  with pytest.raises(ValueError, match=re.escape("write recall(keys=16)")):
    describe(resolve(BASE, many | overrides))
