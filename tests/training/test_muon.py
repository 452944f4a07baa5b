"""Muon: recorded steps of three implementations, which axes, layers each alone."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_accumulate import trainer
from test_training import close

from transformer_jax.axes import axes_of
from transformer_jax.models.param_tree import flat
from transformer_jax.spec import SpecError
from transformer_jax.training import dispatch, sharding
from transformer_jax.training.optimizers import build, optimizers
from transformer_jax.training.optimizers.matrix_axes import (
  is_hidden_matrix,
  matrix_axes,
)

RECORDED = pathlib.Path(__file__).parents[2] / "third_party" / "muon"
SHAPES = ("square", "tall", "wide")
AUTHORS = "bias_correction=False"

# {implementation/case: arguments}; PyTorch and the authors transpose matrices.
OPTAX = {
  "optax/default": "lr=0.02",
  "optax/no_nesterov": "lr=0.02, nesterov=False, beta=0.9",
  "optax/decay": "lr=0.05, weight_decay=0.1",
  "optax/consistent_rms": "lr=0.02, consistent_rms=0.2",
}
OTHERS = {
  "keller_jordan/default": f"lr=0.02, {AUTHORS}",
  "keller_jordan/decay": f"lr=0.05, weight_decay=0.1, beta=0.9, {AUTHORS}",
  "torch/original": f"lr=0.02, {AUTHORS}",
  "torch/rms_adamw": f"lr=0.02, weight_decay=0.1, consistent_rms=0.2, {AUTHORS}",
  "torch/no_nesterov": (
    f"lr=0.02, weight_decay=0.1, beta=0.9, nesterov=False, {AUTHORS}"
  ),
}


@pytest.fixture(scope="module")
def recorded():
  with np.load(RECORDED / "muon.npz", allow_pickle=False) as file:
    return dict(file.items())


def rate_of(arguments):
  return float(re.search(r"lr=([0-9.]+)", arguments)[1])


def steps(arguments, recorded, transposed):
  """Returns the parameters after steps 1, 2 and 5 of the recorded gradients."""
  rate = rate_of(arguments)
  muon = optimizers.build(f"muon({arguments})").build(lambda step: rate)

  def read(part):
    matrices = {f"{name}_DF": recorded[f"inputs/{part}/{name}"] for name in SHAPES}
    return {n: jnp.asarray(x.T if transposed else x) for n, x in matrices.items()}

  @jax.jit
  def step(params, moments, grads):
    updates, moments = muon.update(grads, moments, params)
    return jax.tree.map(jnp.add, params, updates), moments

  params = read("param")
  moments = muon.init(params)
  for n in range(5):
    params, moments = step(params, moments, read(f"grad{n}"))
    if n + 1 in (1, 2, 5):
      yield n + 1, {k: x.T if transposed else x for k, x in params.items()}


@pytest.mark.parametrize("case", OPTAX | OTHERS)
def test_steps_are_the_recorded_ones(case, recorded):
  transposed = case in OTHERS
  for n, params in steps((OPTAX | OTHERS)[case], recorded, transposed):
    for name in SHAPES:
      want = recorded[f"outputs/{case}/step{n}/{name}"]
      got = params[f"{name}_DF"]
      # float32 sums in another order: 7e-7 at most when this was written.
      np.testing.assert_allclose(got, want, atol=5e-6, rtol=0, err_msg=f"{n} {name}")


@pytest.mark.parametrize(
  ("case", "dtype"),
  [
    ("keller_jordan/default", "bfloat16"),
    ("keller_jordan/decay", "bfloat16"),
    ("torch/original", "bfloat16_fused"),
  ],
)
def test_steps_in_bfloat16_are_those_of_the_others_as_shipped(case, dtype, recorded):
  arguments, (implementation, _, name) = OTHERS[case], case.partition("/")
  rate = rate_of(arguments)
  arguments += f", ns_dtype={dtype}"
  for n, params in steps(arguments, recorded, transposed=True):
    for shape in SHAPES:
      want = recorded[f"outputs/{implementation}_bf16/{name}/step{n}/{shape}"]
      got = params[f"{shape}_DF"]
      # Other rounding moves entries of an orthogonal matrix by 0.02 and more.
      np.testing.assert_allclose(got, want, atol=1e-4 * rate, err_msg=f"{n} {shape}")


@pytest.mark.parametrize(
  ("name", "inputs", "outputs"),
  [
    ("query_DHK", "D", "HK"),
    ("query_HDK", "D", "HK"),
    ("out_HKD", "HK", "D"),
    ("out_HED", "HE", "D"),
    ("key_CHK", "C", "HK"),
    ("in_DF", "D", "F"),
    ("gate_DH", "D", "H"),
    ("input_DNW", "D", "W"),
    ("in_XDF", "D", "F"),
    ("out_XFD", "F", "D"),
    ("router_DX", "D", "X"),
    ("future_NDD", "D", "D"),
    ("forget_key_DHW", "D", "HW"),
    ("step_HKR", "K", "R"),
    ("dense_DD", "D", "D"),
  ],
)
def test_inputs_and_outputs_are_read_from_the_name(name, inputs, outputs):
  axes, letters = matrix_axes(name), axes_of(name)
  sides = ("".join(letters[n] for n in side) for side in (axes.inputs, axes.outputs))
  assert tuple(sides) == (inputs, outputs) and is_hidden_matrix(name)


def test_embeddings_heads_tables_and_vectors_are_adam_s():
  names = "embedding_VD output_DV patch_CPPD table_LD table_HN type_ND key_NK near_HNK"
  names += " gain_D shift_V growth key_gain_HK content_HK shift_NW mix_HKN log_rate_H"
  names += " shared_mix_D1 token_mix_DN mix_FN read_NDN"
  assert not [name for name in names.split() if is_hidden_matrix(name)]


def muon_of(arguments, params, grads):
  """Returns the updates of one step."""
  muon, _ = build(f"muon({arguments})", "constant", 0.0, 1, 8)
  step = jax.jit(lambda params, grads: muon.update(grads, muon.init(params), params))
  return step(params, grads)[0]


def test_updates_of_heads_together_and_alone():
  """Together the matrix D to HK is orthogonal, alone that of each head."""
  grads = {"query_DHK": np.random.default_rng(0).normal(size=(8, 2, 3))}
  params = jax.tree.map(jnp.zeros_like, grads)
  whole = muon_of("lr=1.0", params, grads)["query_DHK"]
  heads = muon_of("lr=1.0, per_head=True", params, grads)["query_DHK"]
  for update, matrices in (
    (whole, [whole.reshape(8, 6)]),
    (heads, [heads[:, 0], heads[:, 1]]),
  ):
    for matrix in matrices:
      sizes = np.linalg.svd(matrix, compute_uv=False)
      # The iteration ends between 0.7 and 1.2 (Jordan et al., 2024).
      assert sizes.min() > 0.6 and sizes.max() < 1.3, update.shape
  assert np.linalg.svd(whole[:, 0], compute_uv=False).min() < 0.999 * sizes.max()


@pytest.mark.parametrize("more", ["", "nesterov=False", "coefficients=dion"])
def test_in_bfloat16_all_options_are_nearly_those_of_float32(more):
  """Also layers in a loop, heads alone, and a momentum with its bias corrected."""
  rng = np.random.default_rng(0)
  params = {"query_DHK": jnp.zeros((3, 8, 2, 3)), "out_FD": jnp.zeros((3, 6, 8))}
  grads = [jax.tree.map(lambda x: rng.normal(size=x.shape), params) for _ in range(2)]
  found = []
  for dtype in ("float32", "bfloat16", "bfloat16_fused"):
    arguments = ", ".join(["per_head=True, consistent_rms=0.2", *filter(None, [more])])
    muon, _ = build(f"muon(lr=1.0, {arguments}, ns_dtype={dtype})", "constant", 0, 1, 8)
    moments, update = muon.init(params), jax.jit(muon.update)
    for gradient in grads:
      updates, moments = update(gradient, moments, params)
    found.append(updates)
  for other in found[1:]:
    for name, x in other.items():
      size = np.sqrt(np.mean(np.square(found[0][name])))
      np.testing.assert_allclose(x, found[0][name], atol=0.3 * size, err_msg=name)


def test_a_training_step_on_eight_devices_is_that_of_one():
  """Matrices are split over their inputs and outputs, and iterated as a whole."""
  trained = trainer(**{"train.optimizer": "muon(lr=0.02)", "model.layers": 2})
  alone = dispatch.compile_steps(trained, (3,), (), sharding.make_mesh(), 2)
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  split = dispatch.compile_steps(trained, (3,), (), mesh, 2)
  (want, want_metrics), (got, got_metrics) = (
    program((), program.init()) for program in (alone, split)
  )
  (name,) = (n for n in flat(got.params) if n.endswith("layer_0/attention/query_DHK"))
  assert {"fsdp", "tensor"} <= {*flat(got.params)[name].sharding.spec}
  close(got.params, want.params)
  close(got_metrics, want_metrics)


def test_adam_has_a_rate_of_its_own_on_the_same_schedule():
  params = {"in_DF": jnp.ones((2, 2)), "gain_D": jnp.ones(2)}
  muon, rate = build("muon(lr=0.5, adam_lr=0.1)", "constant(warmup=2)", 0.0, 4, 8)
  moments, update = muon.init(params), jax.jit(muon.update)
  for n in range(3):
    updates, moments = update(params, moments, params)
    np.testing.assert_allclose(updates["gain_D"], -0.1 * n / 2, rtol=1e-5)
    np.testing.assert_allclose(rate(n), 0.5 * n / 2, rtol=1e-6)


def test_only_some_matrices():
  params = {"in_DF": jnp.eye(2), "out_FD": jnp.eye(2)}
  updates = muon_of("lr=1.0, adam_lr=0.1, only=('out_FD',)", params, params)
  np.testing.assert_allclose(np.diag(updates["in_DF"]), -0.1, rtol=1e-5)
  assert abs(updates["out_FD"][0, 0]) > 0.5
  with pytest.raises(SpecError, match="no parameter is called out_DF. Did you mean"):
    muon_of("only=('out_DF',)", params, params)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("muon(only=('in_DF', 'gain_D'))", "muon: gain_D has not two axes"),
    ("muon(only=('shared_mix_D1',))", "muon: shared_mix_D1 has not two axes"),
    ("muon(only=('growth',))", "leave it out of only, and AdamW gets it"),
    ("muon(beta=1.0)", "beta is 1.0; write 0 or more and below 1"),
    ("muon(ns_steps=0)", "ns_steps is 0; write a number above 0"),
    ("muon(consistent_rms=0.0)", "consistent_rms is 0.0; write a number above 0"),
    (
      "muon(ns_dtype=bfloat16, preconditioning=aol)",
      "preconditioning=aol is of ns_dtype=float32; leave one of them out",
    ),
    ("muon(ns_dtype=float16)", "write one of float32, bfloat16, bfloat16_fused"),
    ("muon(preconditioning=l2)", "write one of frobenius, spectral, aol, schatten"),
    ("muon(momentum=0.9)", "has no argument 'momentum'"),
  ],
)
def test_a_wrong_muon_is_one_sentence(spec, says):
  with pytest.raises(SpecError, match=re.escape(says)):
    optimizers.build(spec)
