"""Experts: the definition in loops, all ways of running, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import experts

from transformer_jax.axes import Dims
from transformer_jax.evaluation.decode import greedy
from transformer_jax.models import Architecture, Transformer, capture
from transformer_jax.models.feedforward import FeedForward, active_parameters
from transformer_jax.models.feedforward_kinds import feedforwards
from transformer_jax.models.param_tree import flat
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords
from transformer_jax.training import sharding

DIMS = Dims(V=12, D=8, H=2, F=12, L=16)
KINDS = (
  "experts(4, 2)",
  "experts(4, 1, width=6, router='sigmoid', normalized=False, scaled_input=True)",
  "experts(6, 2, shared=10, shared_gate=True, normalized=False)",
  "experts(8, 3, router='sigmoid', bias=True, groups=4, active_groups=2, scale=2.5)",
)
TOKENS_BL = np.random.default_rng(0).integers(0, 11, (2, 7))


def arch(kind, **more):
  parts = {"activation": "swiglu", "decoders": 2, "core": "dense"} | more
  return Architecture(DIMS, "rope", feedforward_kind=kind, **parts)


def random(shapes, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def params_of(model):
  return random(jax.eval_shape(model.init, jax.random.key(0), TOKENS_BL)["params"])


@pytest.mark.parametrize("spec", KINDS)
def test_experts_are_those_of_the_papers(spec):
  layer = FeedForward(arch(spec), feedforwards.build(spec))
  x_BLD = random(jax.ShapeDtypeStruct((2, 5, 8), jnp.float32), 1)
  w = random(jax.eval_shape(layer.init, jax.random.key(0), x_BLD)["params"])
  found = evaluate(lambda w: layer.apply({"params": w}, x_BLD), w)
  wide = {name: np.asarray(x, np.float64) for name, x in w.items()}
  one = functools.partial(experts.output, w=wide, kind=layer.kind)
  expected = np.apply_along_axis(one, -1, np.asarray(x_BLD, np.float64))
  np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_gradients_are_those_of_differences():
  """Also of the router, and none of the bias that only chooses."""
  layer = FeedForward(arch(KINDS[3]), feedforwards.build(KINDS[3]))
  x_BLD = random(jax.ShapeDtypeStruct((1, 5, 8), jnp.float32), 1)
  w = random(jax.eval_shape(layer.init, jax.random.key(0), x_BLD)["params"])
  w = jax.tree.map(lambda x: x / 3, w)
  loss = lambda w: jnp.sum(jnp.sin(layer.apply({"params": w}, x_BLD)))
  gradient = evaluate(jax.grad(loss), w)
  assert not np.any(gradient.pop("router_bias_X"))

  def exact(w):
    wide = {name: np.asarray(x, np.float64) for name, x in w.items()}
    one = functools.partial(experts.output, w=wide, kind=layer.kind)
    return np.sin(np.apply_along_axis(one, -1, np.asarray(x_BLD, np.float64))).sum()

  for name, d in gradient.items():
    step = np.sign(d) * 1e-6
    here = np.asarray(w[name], np.float64)
    up, down = (exact(w | {name: here + s * step}) for s in (1.0, -1.0))
    along = np.sum(np.abs(np.asarray(d, np.float64)))
    np.testing.assert_allclose((up - down) / 2e-6, along, rtol=1e-5, err_msg=name)


def test_scan_remat_and_bfloat16_give_the_same_experts():
  model = Transformer(arch(KINDS[0]))
  params = params_of(model)
  stacked = {"layers": jax.tree.map(lambda *x: np.stack(x), *(
    params["decoder"][f"layer_{n}"] for n in range(2)
  ))}  # fmt: skip
  rest = {n: x for n, x in params["decoder"].items() if not n.startswith("layer_")}
  scanned = params | {"decoder": rest | stacked}
  loss = lambda params, model: jnp.mean(model.apply({"params": params}, TOKENS_BL) ** 2)
  value, gradient = jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, model)
  again = Transformer(arch(KINDS[0], scan=True, remat="full"))
  same, _ = jax.jit(jax.value_and_grad(loss), static_argnums=1)(scanned, again)
  np.testing.assert_allclose(value, same, rtol=1e-5)
  assert all(np.any(x) for x in jax.tree.leaves(gradient))
  low = jax.eval_shape(
    lambda: Transformer(arch(KINDS[0], dtype="bfloat16")).apply(
      {"params": params}, TOKENS_BL, method="states"
    )
  )
  assert low.dtype == jnp.bfloat16


@pytest.mark.parametrize("spec", [KINDS[1], KINDS[3]])
def test_experts_decode_as_they_read_and_pack(spec):
  model = Transformer(arch(f"leading(1, dense, {spec})"))
  params = params_of(model)
  read = lambda token_BL, at=None: model.apply({"params": params}, token_BL, at)
  whole = evaluate(read, TOKENS_BL)
  written = evaluate(lambda t: greedy(model, params, t, 4), TOKENS_BL[:, :3])
  text = np.concatenate([TOKENS_BL[:, :3], written], axis=1)
  best = np.argmax(evaluate(read, text), axis=-1)
  np.testing.assert_array_equal(best[:, 2:-1], written)
  segment_BL = np.array([[1] * 7 + [2] * 7])
  packed = evaluate(read, TOKENS_BL.reshape(1, -1), coords.packed(segment_BL))
  np.testing.assert_allclose(packed.reshape(whole.shape), whole, atol=1e-4)


def test_experts_on_eight_devices_are_those_on_one():
  model = Transformer(arch("by_layer((dense, experts(4, 2, shared=8)))"))
  params = params_of(model)
  loss = lambda params, t: jnp.mean(model.apply({"params": params}, t) ** 2)
  step = jax.jit(jax.value_and_grad(loss))
  tokens = np.tile(TOKENS_BL, (2, 1))
  value, gradient = jax.device_get(step(params, tokens))
  mesh = sharding.make_mesh(data=2, tensor=2, fsdp=2)
  with jax.set_mesh(mesh):
    placed = jax.device_put(params, sharding.split(mesh, params))
    same, split = jax.device_get(step(placed, sharding.place_rows(mesh, tokens)))
  np.testing.assert_allclose(value, same, rtol=1e-5)
  close = functools.partial(np.testing.assert_allclose, atol=1e-4)
  jax.tree.map(close, gradient, split)


def test_what_experts_choose_can_be_looked_at():
  model = Transformer(arch("leading(1, dense, experts(4, 2))"))
  look = lambda params: capture.run(
    model, params, TOKENS_BL, want=("expert_weights", "expert_shares")
  )[1]
  found = evaluate(look, params_of(model))
  (path,) = found["expert_weights"]
  assert path == "decoder/layer_1/feedforward"
  weight_BLX, share_BLX = (found[n][path] for n in ("expert_weights", "expert_shares"))
  assert ((weight_BLX > 0).sum(-1) == 2).all()
  for x_BLX in (weight_BLX, share_BLX):
    np.testing.assert_allclose(x_BLX.sum(-1), 1, rtol=1e-5)


def test_parameters_are_counted_in_all_and_for_a_token():
  def counted(spec):
    architecture = arch(spec)
    model = Transformer(architecture)
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS_BL)["params"]
    params = flat(shapes)
    return sum(x.size for x in params.values()), active_parameters(architecture, params)

  one = 3 * 8 * 12  # of a gated layer
  dense, same = counted("dense")
  assert dense == same
  total, active = counted("leading(1, dense, experts(4, 2))")
  assert total == dense + 3 * one + 8 * 4 and active == dense + one + 8 * 4


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("experts(4, 5)", "active=5, and a token chooses from 4 experts; write at most 4"),
    ("experts(0)", "count is 0; write 1 or more"),
    ("experts(6, 2, groups=4)", "4 groups do not divide 6 experts; change one of them"),
    ("experts(8, 2, groups=2, active_groups=3)", "active_groups=3 of 2 groups"),
    ("experts(8, 3, groups=4, active_groups=1)", "a token chooses from 2 experts"),
    ("experts(4, router='relu')", "router"),
    ("experts(4, shared_gate=True)", "shared_gate=True is of a shared expert; write"),
    ("experts(4, scale=0.0)", "scale"),
    ("experts(4, width=-1)", "width is -1; write 0 or more"),
    ("by_layer(())", "by_layer takes a list of kinds"),
    ("leading(-1)", "count is -1; write 0 or more layers"),
  ],
)
def test_impossible_experts_are_refused(spec, says):
  with pytest.raises(ValueError) as error:
    feedforwards.build(spec)
  assert says in str(error.value) and "\n" not in str(error.value)


def test_experts_need_hidden_units():
  sizes = dict(dims=Dims(V=12, D=8, H=2, F=0, L=16), position="rope", decoders=1)
  with pytest.raises(ValueError, match="experts without hidden units; write width=64"):
    Architecture(**sizes, feedforward_kind="experts(4)")
  assert Architecture(**sizes, feedforward_kind="experts(4, width=6)").dims.F == 0


def test_layers_of_two_kinds_are_no_loop():
  model = Transformer(arch("by_layer((dense, experts(4)))", scan=True))
  with pytest.raises(ValueError, match="feedforward_kind or placement gives layers"):
    jax.eval_shape(model.init, jax.random.key(0), TOKENS_BL)


def test_a_dense_model_is_the_program_it_was():
  """No operation and no parameter of experts, and the router's names are elsewhere."""
  model = Transformer(arch("dense"))
  jaxpr = jax.make_jaxpr(model.apply)({"params": params_of(model)}, TOKENS_BL)
  assert "top_k" not in str(jaxpr)
  names = [*flat(params_of(model))]
  assert not any("router" in name for name in names)
