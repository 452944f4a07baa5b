"""The quick test of classes of users: what it refuses, and what it lets pass."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import pytest
from test_positions import FEW

from transformer_jax.positions import PositionalEncoding, positions, probe
from transformer_jax.positions.rope import Rope
from transformer_jax.spec import SpecError

# Ids of the task, and the length of the text, move these and not positions alone.
UNMOVED = {"coupled", "learned_2d", "liere", "sinusoidal_2d", "longrope"}
# Later tokens show past the length that LongRoPE was given.
UNCHANGED = {"longrope"}


# The contract in test_positions.py finds quickly what the others declare.
PROBED = [
  pytest.param(name, marks=[pytest.mark.slow] * (name in FEW))
  for name in sorted(positions)
]


@pytest.mark.parametrize("name", PROBED)
def test_every_encoding_is_as_it_declares(name):
  encoding = positions.build(name)
  found = probe.probe(encoding)
  assert (found.shift[0] == 0) == encoding.relative or name in UNMOVED
  needs_full_text = found.later_tokens > 1e-3
  assert needs_full_text == encoding.needs_full_text or name in UNCHANGED
  assert not found.looks_up or encoding.integer_positions
  if not encoding.needs_full_text:
    assert (found.later_turns > 1e-3) == encoding.centred
  assert found.future < 1e-6 and found.border < 1e-5 and not found.idle


# Classes of a user


def encoding(**members):
  """Returns an object of a user's class; its parameters are a rate for each head."""
  start = {"init": lambda self, key, dims: {"rate_H": jnp.full(dims.H, 0.3)}}
  cls = type(
    "Mine", (PositionalEncoding,), {"__module__": __name__, **start, **members}
  )
  return dataclasses.dataclass(frozen=True)(cls)()


def distance(pos_L, pos_M):
  return jnp.abs(pos_L[:, None] - pos_M[None, :])


def fade(self, params, pos_L, pos_M):
  return -params["rate_H"] * jnp.log1p(distance(pos_L, pos_M))


@pytest.mark.parametrize("old, new", [("turn", "transform_qk"), ("place", "assign_")])
def test_members_under_former_names_are_refused_by_their_present_ones(old, new):
  with pytest.raises(SpecError, match=f"Mine.{old} is called {new}"):
    probe.check(encoding(bias=fade, **{old: lambda self, *arguments: arguments}))
  with pytest.raises(SpecError, match="Mine.whole_text is called needs_full_text"):
    probe.check(encoding(bias=fade, whole_text=True))


def table(name, *axes):
  return lambda self, key, dims: {name: jnp.zeros([getattr(dims, a, 16) for a in axes])}


def totals(self, params, s_LM, tile):
  return s_LM - params["rate_H"] * jnp.sum(s_LM, axis=1, keepdims=True)


def mean_of_text(self, params, data, at):
  return {"mean_BL": jnp.mean(data["mean_BL"], axis=1, keepdims=True) + 0 * at.pos_BL}


def running(self, params, data, at):
  return {"mean_BL": jnp.cumsum(data["mean_BL"], axis=1)}


def add_mean(self, params, s_LM, tile):
  return s_LM + params["rate_H"] * tile.k_data["mean_BL"]


def first_feature(self, params, x_BLD, q_BLHK):
  return {"mean_BL": x_BLD[..., 0]}


def by_length(self, params, q_BLHK, k_BMHK, q_at, k_at):
  return q_BLHK * (1 + jnp.max(k_at.pos_BL)), k_BMHK


def one_sided(self, params, q_BLHK, k_BMHK, q_at, k_at):
  length = 1.0 + jnp.max(k_at.pos_BL)
  return q_BLHK * length, k_BMHK / length


def looked_up(self, params, x_BLD, at):
  return x_BLD + params["table_ND"][at.pos_BL]


def turned_by_text(self, params, x_BLHK, pos_BL):
  return x_BLHK * (1.0 + pos_BL / (1.0 + jnp.max(pos_BL)))[..., None, None]


WRONG = {
  "relative, in the query alone": (
    {"bias": lambda self, p, i, j: -p["rate_H"] * (i[:, None] + 0 * j)},
    "relative = False",
  ),
  "relative, far away": (
    {"bias": lambda self, p, i, j: fade(self, p, i, j) * (1 + (i[:, None] > 9000))},
    "relative = False",
  ),
  "a declaration misspelt": ({"bias": fade, "relativ": False}, "rename it to relative"),
  "a declaration as a method": (
    {"bias": fade, "relative": lambda self: False},
    "write relative = ... in the class",
  ),
  "ids as a text": ({"bias": fade, "ids": "row_BL"}, "ids is 'row_BL'; write ids = ()"),
  "a field for a hook": (
    {"full_scores": 4, "bias": fade},
    "Mine.full_scores hides the hook full_scores",
  ),
  "no parameters among the arguments": (
    {"bias": lambda self, pos_L, pos_M: 0.0},
    "takes (self, pos_L, pos_M); write def bias(self, params, pos_L, pos_M)",
  ),
  "no axis letter": (
    {"init": lambda self, key, dims: {"rate": jnp.ones(dims.H)}, "bias": fade},
    "parameter 'rate' has shape (3,) with 3 heads of width 8",
  ),
  "another axis letter": (
    {"init": table("rate_K", "H"), "bias": fade},
    "call it 'rate_H'",
  ),
  "a whole number to train": (
    {"init": lambda self, key, dims: {"rate_H": jnp.ones(dims.H, int)}, "bias": fade},
    "has no gradient; return it from constants(dims)",
  ),
  "another name": (
    {"init": table("slope_H", "H"), "bias": fade},
    "reads 'rate_H', which it does not get; it has slope_H",
  ),
  "a row instead of a matrix": (
    {"bias": lambda self, p, i, j: -p["rate_H"] * j[None, :]},
    "Mine.bias returns (1, 7) where b_LM of one head must be (5, 7)",
  ),
  "no return": ({"bias": lambda self, params, pos_L, pos_M: None}, "must be (5, 7)"),
  "a form that is none": (
    {"bias": fade, "bidirectional": lambda self: None},
    "Mine.bidirectional returns None; return an encoding",
  ),
  "a parameter without gradient": (
    {"bias": lambda self, p, i, j: -0.1 * distance(i, j)},
    "parameter 'rate_H' has no gradient",
  ),
  "a parameter that is rounded": (
    {"bias": lambda self, p, i, j: -jnp.round(p["rate_H"] * 9) * distance(i, j)},
    "parameter 'rate_H' has no gradient",
  ),
  "whole rows in a score": ({"score": totals}, "use full_scores"),
  "a bias by the last key": (
    {"bias": lambda self, p, i, j: -p["rate_H"] * distance(i, j) / (1 + jnp.max(j))},
    "Mine.bias of some positions differs",
  ),
  "the mean of the text": (
    {"token_data": first_feature, "accumulate": mean_of_text, "score": add_mean},
    "what later tokens hold changes earlier ones",
  ),
  "sums through other texts": (
    {"token_data": first_feature, "accumulate": running, "score": add_mean},
    "over the border of two texts",
  ),
  "later tokens": (
    {"transform_qk": by_length, "init": lambda self, key, dims: {}, "relative": False},
    "needs_full_text = True",
  ),
  "later tokens that cancel": (
    {"transform_qk": one_sided, "init": lambda self, key, dims: {}},
    "centred = True",
  ),
  "a turn by the whole text": (
    {"rotate": turned_by_text, "init": lambda self, key, dims: {}},
    "turn each by its own position",
  ),
  "a table that ends in silence": (
    {"embed": looked_up, "init": table("table_ND", "N", "D"), "relative": False}
    | {"integer_positions": True},
    "return the number of rows from num_positions(dims)",
  ),
  "a table between its rows": (
    {"embed": looked_up, "init": table("table_ND", "N", "D"), "relative": False}
    | {"extrapolation": "clipped"},
    "integer_positions = True",
  ),
  "values that are not linear": (
    {"values": lambda self, p, w, i, j: p["rate_H"] * jnp.ones((w.shape[0], 8))},
    "Mine.values is not linear",
  ),
  "an id that is not declared": (
    {
      "score": lambda self, p, s, tile: s * p["rate_H"] * tile.q_data["row_BL"][:, None]
    },
    "write ids = ('row_BL',) in the class",
  ),
  "a number for a mask": (
    {"bias": lambda self, p, i, j: jnp.where(distance(i, j) > 2, -1e9, p["rate_H"])},
    "return True where a head attends from mask(self, params, pos_L, pos_M)",
  ),
  "a mask of a row": (
    {"bias": fade, "mask": lambda self, params, i, j: j[None, :] >= 0},
    "Mine.mask returns (1, 7) where mask_LM of one head must be (5, 7)",
  ),
  "a mask without parameters": (
    {"bias": fade, "mask": lambda self, i, j: distance(i, j) < 3},
    "write def mask(self, params, pos_L, pos_M)",
  ),
  "an error": (
    {"bias": lambda self, p, i, j: p["rate_H"] * (i @ j)},
    "Mine.bias fails in line",
  ),
  "an array in a field": (
    {"bias": fade, "__hash__": None},
    "make it a frozen dataclass",
  ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_untrue_is_refused_in_one_sentence_with_the_cure(case):
  members, says = WRONG[case]
  with pytest.raises(SpecError) as error:
    probe.check(encoding(**members))
  said = str(error.value)
  assert says in said and said.startswith("Mine") and "\n" not in said


def fire_like(self, params, pos_L, pos_M):
  return -params["rate_H"] * distance(pos_L, pos_M) / (1 + pos_L[:, None])


def rolled(self, params, x_BLHK, pos_BL):
  angle_BL11 = pos_BL[:, :, None, None] * 0.7
  a, b = jnp.split(x_BLHK, 2, axis=-1)
  cos, sin = jnp.cos(angle_BL11), jnp.sin(angle_BL11)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def rows_of_table(self, params, x_BLD, at):
  row_BLD = params["table_ND"].at[at.pos_BL].get(mode="fill", fill_value=jnp.nan)
  return x_BLD + row_BLD


def two_of(*names):
  return lambda self, key, dims: {name: jnp.ones(dims.H) for name in names}


RIGHT = {
  "a bias": {"bias": fade},
  "a helper like a hook": {
    "biased": lambda self, params, i, j: fade(self, params, i, j),
    "bias": lambda self, params, i, j: self.biased(params, i, j),
  },
  "other names of arguments": {
    "bias": lambda self, p, queries, keys: fade(self, p, queries, keys)
  },
  "an absolute bias, declared": {"bias": fire_like, "relative": False},
  "a shift of all scores": {
    "init": lambda self, key, dims: {
      "rate_H": jnp.ones(dims.H),
      "shift_H": jnp.ones(dims.H),
    },
    "bias": lambda self, p, i, j: fade(self, p, i, j) + p["shift_H"],
  },
  "a number for far keys": {
    "init": two_of("rate_H", "far_H"),
    "bias": lambda self, p, i, j: jnp.where(
      distance(i, j) < 64, fade(self, p, i, j), p["far_H"]
    ),
  },
  "an array of its own, without axes": {
    "init": lambda self, key, dims: {"rate_H": jnp.ones(dims.H), "taps": jnp.ones(3)},
    "bias": lambda self, p, i, j: fade(self, p, i, j) * p["taps"].sum(),
  },
  "a step": {
    "bias": lambda self, p, i, j: jnp.where(distance(i, j) > 3.5, -p["rate_H"], 0.0)
  },
  "a turn without parameters": {"rotate": rolled, "init": lambda self, key, dims: {}},
  "a learned table": {
    "embed": rows_of_table,
    "init": lambda self, key, dims: {"table_ND": jnp.zeros((dims.L, dims.D))},
    "num_positions": lambda self, dims: dims.L,
    "relative": False,
    "integer_positions": True,
    "extrapolation": "table ends",
  },
  "only ahead": {
    "init": lambda self, key, dims: {
      "rate_H": jnp.ones(dims.H),
      "ahead_H": jnp.ones(dims.H),
    },
    "bias": lambda self, p, i, j: jnp.where(
      i[:, None] >= j, -p["rate_H"] * distance(i, j), -p["ahead_H"] * distance(i, j)
    ),
  },
  "no end in silence, declared": {
    "embed": looked_up,
    "init": table("table_ND", "N", "D"),
    "relative": False,
    "integer_positions": True,
    "extrapolation": "last row",
  },
}


@pytest.mark.parametrize("case", RIGHT)
def test_what_is_right_passes(case):
  probe.check(encoding(**RIGHT[case]))


@pytest.mark.parametrize("kind", [ValueError, AssertionError, KeyError])
def test_a_class_made_for_other_sizes_is_probed_with_those_of_the_model(kind):
  def init(self, key, dims):
    if dims.K != 64:
      raise kind("heads must be 64 wide")
    return {"rate_H": jnp.ones(dims.H)}

  wide = probe.SIZES.__class__(V=4, D=128, H=2, F=8, L=16)
  probe.check(encoding(init=init, bias=fade), wide)
  with pytest.raises(SpecError, match="relative = False"):
    probe.check(encoding(init=init, bias=fire_like), wide)


def test_a_helper_like_a_hook_may_be_used_by_a_subclass():
  class Parent(PositionalEncoding):
    def biased(self, params, pos_L, pos_M):
      return -1.0 * distance(pos_L, pos_M)

  class Child(Parent):
    def bias(self, params, pos_L, pos_M):
      return self.biased(params, pos_L, pos_M)

  probe.check(Child())
  with pytest.raises(SpecError, match="Parent.biased is not a hook.*rename it to bias"):
    probe.check(Parent())


def test_a_subclass_of_a_class_of_the_package_is_probed():
  class Turned(Rope):
    def rotate(self, params, x_BLHK, pos_BL):
      return super().rotate(params, x_BLHK, pos_BL) * (1 + pos_BL[..., None, None] / 99)

  with pytest.raises(SpecError, match="Turned declares relative = True"):
    probe.check(Turned())


def test_the_probe_compiles_nothing_and_is_quick(monkeypatch):
  mine = encoding(bias=fade, rotate=rolled)
  probe.check(encoding(bias=fade))  # JAX's own first time
  compiled = []
  monkeypatch.setattr(
    jax._src.compiler, "backend_compile_and_load", lambda *a, **k: compiled.append(a)
  )
  start = time.process_time()
  probe.check(mine)
  assert not compiled and time.process_time() - start < 3
