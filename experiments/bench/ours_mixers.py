"""Mixers in the benchmark: forms of the recurrence, and whole layers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench.programs import compiled
from transformer_jax.attention import Mixer
from transformer_jax.attention.linear_recurrence import (
  StateUpdates,
  chunked,
  sequential,
)
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture
from transformer_jax.models.block import Attention
from transformer_jax.models.mixing import Mixing
from transformer_jax.positions import PositionalEncoding, coords
from transformer_jax.training import sharding

FORMS = {"chunked": chunked, "scan": sequential}
Prepared = tuple[Callable[[], Any], dict[str, Any]]


def updates(L: int, H: int, K: int, per_feature: bool) -> StateUpdates:
  """Returns random updates of the delta rule, of one text in float32.

  L, H, K       tokens, heads and their width
  per_feature   decays are of each feature of a head, else of each head
  """
  keys = jax.random.split(jax.random.key(0), 5)
  q, k, v = (jax.random.normal(key, (1, L, H, K)) for key in keys[:3])
  strength = jax.nn.sigmoid(jax.random.normal(keys[3], (1, L, H, 1)))
  width = K if per_feature else 1
  decay = -0.1 * jax.nn.softplus(jax.random.normal(keys[4], (1, L, H, width)))
  q, k = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
  return StateUpdates(q * K**-0.5, k, strength * v, decay, strength * k)


def delta_rule(
  form, L, H=8, K=64, backward=True, devices=1, dtype="float32", per_feature=False
) -> Prepared:
  """The gated delta rule of one text: outputs, and all gradients.

  form          key of FORMS
  L, H, K       tokens, heads and their width
  backward      also compute gradients
  devices       that share the heads
  dtype         of the tokens; the state is float32
  per_feature   as in `updates`
  """
  mesh = sharding.make_mesh(tensor=devices)
  heads = jax.NamedSharding(mesh, jax.P(None, None, "tensor"))
  tokens = jax.tree.map(lambda x: x.astype(dtype), updates(L, H, K, per_feature))
  tokens = jax.device_put(tokens, heads)
  g_BLHE = jax.device_put(jax.random.normal(jax.random.key(1), (1, L, H, K)), heads)

  def forward(tokens):
    return FORMS[form](tokens)[0]

  def both(tokens):
    out, pull = jax.vjp(forward, tokens)
    return out, pull(g_BLHE)

  with jax.set_mesh(mesh):
    return compiled(both if backward else forward, tokens)


def layer(attention, L, D=512, H=8, backward=True, devices=1) -> Prepared:
  """Attention or a mixer with its projections, without positions, of one text.

  attention   spec of the variant or mixer
  L, D, H     tokens, width and heads
  backward    also compute gradients, of the input and all parameters
  devices     that share the heads
  """
  dims = Dims(V=2, D=D, H=H, F=1, L=L)
  arch = Architecture(dims, PositionalEncoding(), attention=attention, decoders=1)
  model: Mixing | Attention
  if isinstance(arch.attention, Mixer):
    model = Mixing(arch, arch.attention)
  else:
    model = Attention(arch, arch.position, arch.attention)
  at = coords.consecutive(1, L)
  x_BLD = jax.random.normal(jax.random.key(0), (1, L, D))
  params = jax.jit(model.init)(
    jax.random.key(1), x_BLD[:, :2], coords.consecutive(1, 2)
  )
  mesh = sharding.make_mesh(tensor=devices)
  params = jax.device_put(params["params"], sharding.split(mesh, params["params"]))
  x_BLD = sharding.whole(mesh, x_BLD)
  g_BLD = sharding.whole(mesh, jax.random.normal(jax.random.key(2), (1, L, D)))

  def forward(params, x_BLD):
    return model.apply({"params": params}, x_BLD, at)[0]

  def both(params, x_BLD):
    out, pull = jax.vjp(forward, params, x_BLD)
    return out, pull(g_BLD)

  with jax.set_mesh(mesh):
    run, facts = compiled(both if backward else forward, params, x_BLD)
  size = sum(x.size for x in jax.tree.leaves(params))
  return run, facts | {"parameters": size}
