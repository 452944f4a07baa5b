"""The contract of capture: recording changes no number of any encoding or variant.

Every registered encoding and variant, and classes of a user, in a model of one layer.
NumPy runs the operations: nothing is compiled.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import normal
from registries import SCORED

import transformer_jax as tj
from transformer_jax.attention import Variant
from transformer_jax.models import capture
from transformer_jax.models.compatibility import form
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import PositionalEncoding, coords

DIMS = tj.Dims(V=7, D=32, H=4, F=8, L=8)
TOKEN_BL = jnp.array([[1, 2, 3, 4], [5, 6, 1, 2]])
PATH = "decoder/layer_0/attention"
PARTS = [("position", name) for name in sorted(tj.positions.positions)]
PARTS += [("attention", name) for name in sorted(SCORED)]


@dataclasses.dataclass(frozen=True)
class OwnBias(PositionalEncoding):
  """Encoding of a user: one learned number for each head and distance."""

  integer_positions = True

  def init(self, key, dims):
    return {"table_HN": jax.random.normal(key, (dims.H, dims.L))}

  def bias(self, params, pos_L, pos_M):
    ahead_LM = (pos_L[:, None] - pos_M).astype(int)
    return params["table_HN"][jnp.clip(ahead_LM, 0, 7)]


@dataclasses.dataclass(frozen=True)
class OwnSquare(Variant):
  """Variant of a user: weights are squares."""

  def weigh(self, params, s_BHLM, mask_B1LM):
    w_BHLM = jnp.where(mask_B1LM, s_BHLM**2, 0)
    return w_BHLM / jnp.maximum(w_BHLM.sum(-1, keepdims=True), 1e-6)


PARTS += [("position", OwnBias()), ("attention", OwnSquare())]


def ran(parts, kind="decoders"):
  """Returns logits of the model alone, and (logits, captured) of the watched one."""
  arch = tj.Architecture(
    DIMS, **{"position": "none", "core": "dense"} | parts, **{kind: 1}
  )
  model = tj.Transformer(arch)
  ids = {name: TOKEN_BL for name in arch.position.ids}
  at = coords.consecutive(*TOKEN_BL.shape).replace(data=ids)
  reads = TOKEN_BL, at
  shapes = jax.eval_shape(model.init, jax.random.key(0), *reads)["params"]
  given = normal(shapes), *reads
  alone_BLV = evaluate(lambda params, *r: model.apply({"params": params}, *r), *given)
  doubled = []

  def same(path, x):
    doubled.append(path)
    return x

  edit = {place: same for place in capture.EDITABLE}
  watch = functools.partial(capture.run, want=capture.PLACES, edit=edit)
  watched = evaluate(functools.partial(watch, model), *given)
  assert doubled
  return alone_BLV, *watched


def title(part):
  return part if isinstance(part, str) else type(part).__name__


@pytest.mark.parametrize("name,part", PARTS, ids=title)
def test_recording_changes_no_number(name, part):
  alone_BLV, logits_BLV, found = ran({name: part})
  np.testing.assert_array_equal(alone_BLV, logits_BLV)
  assert {*found} == {*capture.PLACES}
  q_BLHK, out_BLHE = found["query"][PATH], found["output"][PATH]
  w_BHLM, mask = found["weights"][PATH], found["mask"][PATH]
  B, L, H = q_BLHK.shape[:3]
  assert (B, L) == TOKEN_BL.shape and out_BLHE.shape[:3] == (B, L, H)
  assert w_BHLM.shape == found["scores"][PATH].shape == (B, H, L, L)
  mask_BHLM = jnp.broadcast_to(mask if mask.ndim == 4 else mask[:, None], w_BHLM.shape)
  assert not np.asarray(w_BHLM)[~np.asarray(mask_BHLM)].any()
  assert [*found["update"]] == [PATH, "decoder/layer_0/feedforward"]
  assert [*found["state"]] == ["decoder/embedding", "decoder/layer_0", "decoder/output"]


@pytest.mark.parametrize("name,part", PARTS, ids=title)
def test_an_encoder_is_recorded_as_a_decoder_is(name, part):
  try:
    whole = tj.Architecture(DIMS, **{"position": "none"} | {name: part}, encoders=1)
    form(getattr(whole, name), "encoder")
  except ValueError as error:  # it looks one way alone, and its sentence says so
    assert str(error)
    return
  alone_BLV, logits_BLV, found = ran({name: part}, "encoders")
  np.testing.assert_array_equal(alone_BLV, logits_BLV)
  assert [*found["weights"]] == ["encoder/layer_0/attention"]
