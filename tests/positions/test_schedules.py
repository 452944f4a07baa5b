"""Encodings by layer: which layer has which, with what names, in a whole model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_papers import close
from test_wrappers import DIMS, TOKEN_BL, B, L, drawn, make

from transformer_jax.attention.cores import cores
from transformer_jax.models import empty_cache
from transformer_jax.numpy_interpreter import trace
from transformer_jax.positions import PositionalEncoding, coords, positions
from transformer_jax.positions.every import Every
from transformer_jax.positions.randomized import Randomized
from transformer_jax.spec import SpecError


def kinds(spec, layers):
  """Returns the encodings of the first layers."""
  schedule = positions.build(spec)
  return [type(schedule.layer(n).encoding).__name__ for n in range(layers)]


def test_every_gives_the_last_of_a_period_the_special_encoding():
  none, rope = "PositionalEncoding", "Rope"
  assert kinds("every", 8) == [rope, rope, rope, none] * 2
  assert kinds("every(1, none, rope)", 4) == [none] * 4
  assert kinds("every(5, none, rope)", 4) == [rope] * 4
  assert kinds("by_layer((alibi, rope, none))", 4) == ["Alibi", rope, none, "Alibi"]


def test_a_spec_may_hold_a_tuple_of_specs():
  spec = "randomized(by_layer((rope(base=5.0), t5)), max_positions=9)"
  assert positions.build(spec).encoding.parts == (
    positions.build("rope(base=5.0)"),
    positions.build("t5"),
  )
  with pytest.raises(SpecError, match="Did you mean 'rope'"):
    positions.build("by_layer((none, rop))")


@pytest.mark.parametrize("spec", ["by_layer(rope)", "by_layer(())"])
def test_by_layer_wants_a_list(spec):
  with pytest.raises(ValueError, match="by_layer takes a list of encodings"):
    positions.build(spec)


@pytest.mark.parametrize("period", ["0", "rope"])
def test_every_wants_a_period(period):
  with pytest.raises(ValueError, match="write every"):
    positions.build(f"every({period}, none, rope)")


@pytest.mark.parametrize(
  "part", ["learned", "randomized(rope)", "abacus", "coupled(alibi)", "sinusoidal_2d"]
)
def test_what_happens_before_the_first_layer_belongs_around_a_schedule(part):
  says = "embeds or places tokens before the first one; wrap the whole schedule"
  for spec in (f"every(2, none, {part})", f"by_layer(({part}, rope))"):
    with pytest.raises(ValueError, match=says):
      positions.build(spec)


def test_parameters_keep_distinct_names_and_stay_in_their_layers():
  schedule = positions.build("by_layer((t5, t5(8, 6), shaw, every(2, t5, log_n)))")
  shapes = jax.eval_shape(lambda: schedule.init(jax.random.key(0), DIMS))
  shared = {"e0_table_HN", "e1_table_HN", "e3_e0_table_HN"}
  each = {"e2_key_NK", "e2_value_NK", "e3_e1_sharpness_H"}
  assert {*shapes} == shared | each
  assert {name for name in shapes if schedule.in_layer(name)} == each
  layer = schedule.layer(6)
  own = jax.eval_shape(lambda: layer.init(jax.random.key(0), DIMS))
  assert {*own} == {"e2_key_NK", "e2_value_NK"} and all(map(layer.in_layer, own))
  same = schedule.layer(1)
  assert not same.in_layer("e1_table_HN") and not same.in_layer("e2_key_NK")


def test_a_schedule_is_what_its_parts_are():
  schedule = positions.build("every(2, forgetting, t5)")
  assert schedule.relative and schedule.per_layer and schedule.integer_positions
  assert not schedule.needs_full_text and schedule.tile_local
  assert positions.build("every(2, none, t5)").extrapolation == "defined or last bucket"
  assert positions.build("every(2, nope_scaled, fire)").needs_full_text
  assert not positions.build("every(2, nope_scaled, fire)").relative
  assert positions.build("every(2, axial_rope, rope)").ids == ("row_BL", "column_BL")
  with pytest.raises(ValueError, match="use it in a decoder"):
    positions.build("every(2, cope, t5)").bidirectional()
  both = positions.build("every(2, rope, t5)").bidirectional()
  assert both.rest.causal is False and both.special == positions.build("rope")


@dataclasses.dataclass(frozen=True)
class Whole(PositionalEncoding):
  """Needs whole rows, and has few positions."""

  max_positions: int = 7

  def full_scores(self, params, s_HLM, tile):
    return s_HLM

  def num_positions(self, dims):
    return self.max_positions


def test_a_schedule_needs_whole_rows_and_ends_where_one_of_its_parts_does():
  schedule, blockwise = positions.build("every(3)"), cores.build("blockwise")
  assert blockwise.refusal(schedule) is None and schedule.num_positions(DIMS) is None
  rope, whole = schedule.rest, Whole()
  for mixed in (Every(3, whole, rope), Every(3, rope, whole)):
    assert "whole rows" in blockwise.refusal(mixed) and not mixed.tile_local
    assert mixed.num_positions(DIMS) == 7
  assert mixed.layer(2).tile_local and not mixed.layer(0).tile_local
  assert Every(3, Whole(9), whole).num_positions(DIMS) == 7
  wrapped = Randomized(mixed, max_positions=7)
  assert not wrapped.tile_local and wrapped.layer(2).tile_local


@functools.cache
def scheduled():
  """Returns a model whose layers have tables of their own, and random parameters."""
  model = make("shape(log_n(every(2, shaw(max_distance=2), t5(8, 6))), max_shift=9)")
  return model, drawn(model, TOKEN_BL)


def test_a_schedule_trains_every_layer():
  model, params = scheduled()

  @interpreted
  @jax.grad
  def slopes(params):
    rngs = {"position": jax.random.key(1)}
    logits_BLV = model.apply(params, TOKEN_BL, rngs=rngs, progress=0.5)
    return jnp.mean(jnp.square(logits_BLV))

  slopes = slopes(params)["params"]["decoder"]
  shared, first, last = (
    slopes["position"],
    slopes["layer_0"]["attention"]["position"],
    slopes["layer_1"]["attention"]["position"],
  )
  assert {*shared} == {"e1_table_HN"} and {*first} == {"sharpness_H"}
  assert {*last} == {"sharpness_H", "e0_key_NK", "e0_value_NK"}
  for name, slope in (shared | first | last).items():
    assert np.any(np.abs(slope) > 1e-6), name


def test_a_schedule_decodes_on_the_cache_as_in_one_pass():
  model, params = scheduled()
  want = interpreted(model.apply)(params, TOKEN_BL)
  cache, got = empty_cache(model.arch, B, L + 2), []
  here = lambda n: coords.consecutive(1, 1, np.int32(n))
  decode = functools.partial(model.apply, method="decode")
  step = trace(decode, params, TOKEN_BL[:, :1], here(0), None, cache)
  for n in range(L):
    out, cache = step(params, TOKEN_BL[:, n : n + 1], here(n), None, cache)
    got.append(out)
  close(np.concatenate(got, axis=1), want, atol=5e-5)


def test_a_schedule_is_no_single_program_for_all_layers():
  for spec, refused in (("every(2)", True), ("every(1)", False), ("every(3)", False)):
    model = make(spec, scan=True)
    if not refused:
      drawn(model, TOKEN_BL)
      continue
    with pytest.raises(ValueError, match="set model.scan=False"):
      drawn(model, TOKEN_BL)
