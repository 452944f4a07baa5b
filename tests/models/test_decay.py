"""What weight decay shrinks: every parameter of every part of a model is looked at."""

import jax
import pytest
from test_attentions import ARGUMENTS

from experiments.configs import base, lineage
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax.attention import attentions
from transformer_jax.axes import Dims, axes_of
from transformer_jax.positions import positions
from transformer_jax.training.optimizers import is_matrix

DIMS = Dims(V=11, D=16, H=4, F=32, L=8)
KEY = jax.random.key(0)
# With two axes or more, yet each is a vector: biases, gains, angles, frequencies, and
# what a query, a key or an energy is multiplied with to be one number.
VECTORS = "query_shift_HK key_shift_HK value_shift_HK key_shift_GK value_shift_GK"
VECTORS += " value_shift_HE energy_shift_HK gate_shift_HE shift_NW hidden_shift_NW"
VECTORS += " query_gain_HK key_gain_HK key_gain_GK content_HK position_HK"
VECTORS += " bonus_HK decay_shift_HK forget_shift_HK input_shift_HE rate_HE"
VECTORS += " key_mix_shift_GK query_mix_shift_HK value_mix_shift_GE value_mix_shift_HE"
VECTORS += (
  " read_mix_shift_GK write_mix_shift_GK mix_shift_HE norm_gain_HE norm_shift_HE"
)
VECTORS += " rate_shift_HK step_shift_HK recurrence_shift_HE removed_HK replaced_HK"
VECTORS += " phase_HK row_HR column_HR log_frequency_HR energy_HK key_HK query_HK"
OPTIONS = ["multihead(bias=True, value=8)", "gqa(2, bias=True)", "gated(start=0.0)"]
OPTIONS += ["gated(headwise=True)", "additive(bias=True)"]
OPTIONS += ["qk_norm(together=True)", "gqa(2) + qk_norm(together=True)"]
MODELS = ["BERT", "LSTM, Luong", "GRU, Bahdanau"]


def names_of(tree):
  return {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def of_variant(variant):
  dims = variant.projections().sizes(DIMS)
  own = jax.eval_shape(lambda: variant.init(KEY, dims))
  projections = variant.projections().weights(DIMS)
  return names_of(own) | {*variant.weights(dims)} | {*projections}


def of_encoding(encoding):
  return names_of(jax.eval_shape(lambda: encoding.init(KEY, DIMS)))


@pytest.fixture(scope="module")
def names():
  """The names of the parameters of everything registered."""
  found = set()
  others = {"liere": "liere(block=4)"}
  for spec in [
    *(others.get(name, name) for name in positions),
    "grape_a('both')",
    "grape_m(per_head=True)",
    "cpb(depth=2)",
  ]:
    found |= of_encoding(positions.build(spec))
  specs = [spec for name in attentions for spec in ARGUMENTS.get(name, [name])]
  for spec in specs + OPTIONS:
    found |= of_variant(attentions.build(spec).layer(0))
  chapters = {label: x for own in lineage.CHAPTERS.values() for label, x in own.items()}
  for label in MODELS:
    config = resolve(lineage.get_config(), dict(chapters[label]))
    found |= names_of(build(config).trainer.shapes.params)
  vision = {"task": "images('digits')", "model.kind": "encoder"}
  vision |= {"model.embedding": "patches(size=4)", "train.length": 4}
  config = resolve(base.get_config(), vision)
  return found | names_of(build(config).trainer.shapes.params)


def test_all_but_vectors_decay(names):
  several = {name for name in names if len(axes_of(name)) > 1}
  assert len(several) > 80
  still = {name for name in several if not is_matrix(name)}
  assert still == {*VECTORS.split()} & names
  gone = {*VECTORS.split()} - names
  assert not gone, f"no parameters any more: {gone}"


def test_what_has_one_axis_or_none_never_decays(names):
  few = {name for name in names if len(axes_of(name)) < 2}
  assert few >= {"gain_D", "growth", "sink_H"} and not any(map(is_matrix, few))


@pytest.mark.parametrize(
  "name",
  ["query_DHK", "gate_DH", "table_HN", "table_LD", "step_HKR", "mix_scores_HN"],
)
def test_a_matrix_or_a_table_decays(names, name):
  assert name in names and is_matrix(name)
