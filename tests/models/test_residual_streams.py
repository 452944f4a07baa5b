"""Placements with several streams: recorded numbers, gradients, bad input."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.models.residual import ResidualConnection, placements
from transformer_jax.models.residual.attention_residuals import weights
from transformer_jax.spec import SpecError

THIRD_PARTY = pathlib.Path(__file__).parents[2] / "third_party"


@functools.cache
def recorded(name):
  with np.load(THIRD_PARTY / f"{name}.npz", allow_pickle=False) as file:
    return {key: jnp.asarray(x) for key, x in file.items()}


def close(found, wanted):
  # Some are sums over all entries, which cancel: jax 0.12 adds in another order.
  np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=5e-6)


class Given:
  """A layer without norms, whose connections have these parameters."""

  def __init__(self, params):
    self.params = params

  def __call__(self, name):
    return lambda x: x

  def connection(self, name):
    return self.params


def tanh_layer(placement, params, stream):
  """Returns the stream after a layer that has tanh as its only sublayer."""
  return placement(Given(params), stream, {"feedforward": jnp.tanh})


def of_hyper(w, less=0.0):
  """Returns our parameters of the package's; `less` is taken off their gains."""
  static, dynamic = w["static_alpha"], w["dynamic_alpha_fn"]
  return {
    "read_N": static[:, 0],
    "mix_NN": static[:, 1:],
    "write_N": w["static_beta"],
    "norm_gain_D": w["norm.gamma"] + 1 - less,
    "token_read_D": dynamic[:, 0],
    "token_mix_DN": dynamic[:, 1:],
    "token_write_D": w["dynamic_beta_fn"],
    "read_scale": w["dynamic_alpha_scale"],
    "write_scale": w["dynamic_beta_scale"],
  }


def under(arrays, prefix):
  return {n[len(prefix) :]: x for n, x in arrays.items() if n.startswith(prefix)}


def test_hyper_connections_are_the_package_s():
  there = recorded("hyper_connections/hyper_connections")
  placement = placements.build("hyper_connections(4)")
  params, x_BLND = of_hyper(under(there, "weights/")), there["inputs/streams"]
  found, pull = jax.vjp(functools.partial(tanh_layer, placement), params, x_BLND)
  close(found, there["outputs/new_streams"])
  grads, grad_BLND = pull(there["inputs/grad_out"])
  close(grad_BLND, there["outputs/dstreams"])
  want = of_hyper(under(there, "outputs/grad/"), less=1.0)
  for name, grad in grads.items():
    close(grad, want[name])


def of_manifold(w, names=("read", "write", "mix")):
  """Returns our parameters of DeepSeek-V4's, whose rows lie in one matrix."""
  N, D = 4, 8
  fn, base, scale = w["fn"], w["base"], jnp.atleast_1d(w["scale"])
  ends = np.cumsum([0, N, N, N * N])
  params = {}
  for n, name in enumerate(names):
    rows = slice(ends[n], ends[n + 1])
    out = (N, N) if name == "mix" else (N,)
    letters = "NN" if name == "mix" else "N"
    params[f"{name}_ND{letters}"] = fn[rows].T.reshape(N, D, *out)
    params[f"{name}_shift_{letters}"] = base[rows].reshape(out)
    params[f"{name}_scale"] = scale[n]
  return params


def test_hyper_connections_on_the_manifold_are_those_of_deepseek_v4():
  there = recorded("transformers/mhc_deepseek_v4")
  placement = placements.build("mhc(4)")
  x_BLND = there["inputs/streams"]
  params = of_manifold(under(there, "weights/conn/"))
  head = {n[3:]: x for n, x in under(there, "weights/head/").items()}
  last = of_manifold(head, ("read",))

  def whole(params, last, x_BLND):
    x_BLND = tanh_layer(placement, params, x_BLND)
    return placement.close(last, x_BLND), x_BLND

  y_BLD, pull, x_after = jax.vjp(whole, params, last, x_BLND, has_aux=True)
  close(x_after, there["outputs/new_streams"])
  close(y_BLD, there["outputs/y"])
  grads, head_grads, grad_BLND = pull(there["inputs/grad_out"])
  close(grad_BLND, there["outputs/dstreams"])
  head = {n[3:]: x for n, x in under(there, "outputs/grad/head/").items()}
  wanted = of_manifold(under(there, "outputs/grad/conn/")), of_manifold(head, ("read",))
  for found, want in zip((grads, head_grads), wanted, strict=True):
    for name, grad in found.items():
      close(grad, want[name])


def test_a_mix_on_the_manifold_has_sums_of_one():
  placement = placements.build("mhc(3)")
  x_BLND = jax.random.normal(jax.random.key(0), (1, 5, 3, 4))
  params = ResidualConnection(placement, 0).init(jax.random.key(1), Sizes())
  params = jax.tree.map(lambda x: 3 * x, params)
  _, _, mix_BLNS = placement.weights(params, x_BLND)
  close(mix_BLNS.sum(-1), np.ones((1, 5, 3)))
  close(mix_BLNS.sum(-2), np.ones((1, 5, 3)))


class Sizes:
  D = 4

  @classmethod
  def start(cls, placement):
    return ResidualConnection(placement, 0).init(jax.random.key(1), cls())


@pytest.mark.parametrize("case", ["plain", "scale"])
def test_attention_residuals_are_those_of_flash_linear_attention(case):
  there = recorded("flash_linear_attention/attnres")
  scale = 0.25 if case == "scale" else 1.0
  placement = placements.build(f"attention_residuals(scale={scale})")
  sources = tuple(there[f"inputs/residual{n}"] for n in range(4))
  params = {
    "query_D": there["inputs/query"],
    "key_gain_D": there["inputs/rms_weight"],
  }
  found, pull = jax.vjp(placement.close, params, sources)
  close(found, there[f"outputs/{case}/o"])
  grads, grad_sources = pull(there["inputs/grad_out"])
  close(grads["query_D"], there[f"outputs/{case}/dquery"])
  close(grads["key_gain_D"], there[f"outputs/{case}/drms_weight"])
  for n, grad in enumerate(grad_sources):
    close(grad, there[f"outputs/{case}/dresidual{n}"])
  found = weights(sources, params["query_D"], params["key_gain_D"], scale)
  close(found, there[f"outputs/{case}/weights"])


def test_attention_residuals_of_blocks_attend_to_sums():
  """Two sublayers of a block: the second reads the embedding and a partial sum."""
  placement = placements.build("attention_residuals(block=2)")
  params = {"query_D": jnp.zeros(4), "key_gain_D": jnp.ones(4)}
  parts = {"attention": lambda x: 10 * x, "feedforward": lambda x: x + 1}
  one = jnp.ones((1, 1, 4))
  outputs = placement(Given(params), (one,), parts)
  # The first reads 1; the second the mean of 10 and 1, and adds to the block's sum.
  assert [float(y[0, 0, 0]) for y in outputs] == [10 + 6.5, 1]
  after = placement.layer(1)(Given(params), outputs, parts)
  mean = (16.5 + 1) / 2
  first = 10 * mean
  second = (first + 16.5 + 1) / 3 + 1
  found = [float(y[0, 0, 0]) for y in after]
  np.testing.assert_allclose(found, [first + second, 16.5, 1], rtol=1e-6)


def test_hyper_connections_begin_as_one_stream_after_another_reads():
  placement = placements.build("hyper_connections(streams=3)")
  read = lambda layer, sublayer: int(
    placement.layer(layer).init(jax.random.key(0), Sizes(), sublayer)["read_N"].argmax()
  )
  assert [read(n // 2, n % 2) for n in range(4)] == [0, 1, 2, 0]


@pytest.mark.parametrize(
  "spec, sentence",
  [
    ("mhc(streams=0)", "write a number of residual streams"),
    ("hyper_connections(streams=1.5)", "streams"),
    ("attention_residuals(block=0)", "write how many sublayers are summed"),
    ("state_attention(rank=0)", "rank is 0"),
    ("scaled(learned='token')", "write 'scalar', 'feature'"),
    ("x0_skip(nothing)", "nothing"),
    ("x0_skip(mhc)", "of one stream"),
    ("mhc(iterations=0)", "iterations is 0"),
    ("by_layer((pre, mhc))", "which all layers need"),
  ],
)
def test_what_has_no_meaning_is_refused_in_a_sentence(spec, sentence):
  with pytest.raises(SpecError, match=sentence):
    placements.build(spec)


@pytest.mark.parametrize(
  "spec, expected",
  [
    ("scaled(0.5)", 59.5),  # 1 + (2 + 10) / 2 = 7; 7 + 3 * 35 / 2
    ("scaled(0.5, stream=2.0)", 76),  # 2 + (2 + 10) / 2 = 8; 16 + 3 * 40 / 2
  ],
)
def test_scaled_residuals(spec, expected):
  gains = {"f": 2, "g": 5}
  norm = lambda name: lambda x: gains[name] * x
  parts = {"f": lambda x: x + 10, "g": lambda x: 3 * x}
  assert placements.build(spec)(norm, 1, parts) == expected


def test_learned_scales_and_gates_by_hand():
  one, parts = jnp.full((1, 1, 2), 2.0), {"feedforward": lambda x: 3 * x}
  scaled = placements.build("scaled(learned='feature')")
  found = scaled(Given({"gain_D": jnp.array([0.0, 0.5])}), one, parts)
  assert found.ravel().tolist() == [2.0, 5.0]
  gates = {"gate_DD": jnp.zeros((2, 2)), "gate_shift_D": jnp.array([0.0, 50.0])}
  found = placements.build("highway")(Given(gates), one, parts)
  assert found.ravel().tolist() == [4.0, 6.0]
  skip = placements.build("x0_skip")
  gains = {"gain": jnp.asarray(0.5), "first_gain": jnp.asarray(2.0)}
  found = skip(Given(gains), (one, 10 * one), parts)[0]
  assert found.ravel().tolist() == [4 * (1 + 40)] * 2


@pytest.mark.parametrize("spec", ["hyper_connections", "mhc"])
def test_a_token_of_zeros_has_finite_gradients(spec):
  placement = placements.build(spec)
  params = Sizes.start(placement)

  def loss(x_BLD):
    return jnp.sum(tanh_layer(placement, params, placement.open({}, x_BLD)))

  assert np.isfinite(jax.grad(loss)(jnp.zeros((1, 2, 4)))).all()
