"""Arrays recorded and edited from outside of a model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import transformer_jax as tj
from transformer_jax.models import capture
from transformer_jax.models.param_tree import flat, nested, stacked
from transformer_jax.models.recurrent.model import Recurrents

DIMS = tj.Dims(V=7, D=8, H=2, F=8, L=8)
TOKEN_BL = jnp.array([[1, 2, 3], [4, 5, 6]])
LAYERS = ["decoder/layer_0/attention", "decoder/layer_1/attention"]


@functools.cache
def model_of(**parts):
  return tj.Transformer(tj.Architecture(DIMS, "alibi", decoders=2, **parts))


@functools.cache
def drawn():
  random = np.random.default_rng(0)
  model = model_of(attention="gqa(1)")
  shapes = jax.eval_shape(model.init, jax.random.key(0), TOKEN_BL)["params"]
  return jax.tree.map(lambda x: random.normal(size=x.shape).astype(x.dtype), shapes)


@functools.cache
def captured():
  model = model_of(attention="gqa(1)")
  run = functools.partial(capture.run, model, want=capture.PLACES)
  return jax.jit(run)(drawn(), TOKEN_BL)


def test_recording_changes_no_logit():
  logits_BLV, _ = captured()
  model = model_of(attention="gqa(1)", core="dense")
  wanted_BLV = jax.jit(model.apply)({"params": drawn()}, TOKEN_BL)
  np.testing.assert_array_equal(logits_BLV, wanted_BLV)


def test_every_place_is_recorded_and_they_agree():
  _, at = captured()
  assert {*at} == {*capture.PLACES}
  for path in LAYERS:
    q_BLHK, k_BMGK = at["query"][path], at["key"][path]
    scores_BHLM, mask_BLM = at["scores"][path], at["mask"][path]
    assert q_BLHK.shape == (2, 3, 2, 4) and k_BMGK.shape == (2, 3, 1, 4)
    np.testing.assert_array_equal(mask_BLM, np.tri(3)[None] > 0)
    w_BHLM = jax.nn.softmax(jnp.where(mask_BLM[:, None], scores_BHLM, -1e30), axis=-1)
    np.testing.assert_allclose(at["weights"][path], w_BHLM, rtol=1e-5, atol=1e-6)
    v_BMHE = jnp.repeat(at["value"][path], 2, axis=2)
    out_BLHE = jnp.einsum("bhlm,bmhe->blhe", at["weights"][path], v_BMHE)
    np.testing.assert_allclose(at["output"][path], out_BLHE, rtol=1e-4, atol=1e-5)
    assert at["query_at"][path].pos_BL.shape[1] == 3
  states, updates = at["state"], at["update"]
  x_BLD = states["decoder/embedding"]
  for n in range(2):  # pre-norm: a layer adds its updates
    x_BLD = x_BLD + updates[f"decoder/layer_{n}/attention"]
    x_BLD = x_BLD + updates[f"decoder/layer_{n}/feedforward"]
    np.testing.assert_allclose(
      states[f"decoder/layer_{n}"], x_BLD, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("remat", ["none", "full"])
def test_layers_in_a_loop_are_recorded_one_by_one(remat):
  loop = model_of(attention="gqa(1)", scan=True, remat=remat)
  params = nested(stacked(flat(drawn())))
  _, found = jax.jit(functools.partial(capture.run, loop, want=capture.PLACES))(
    params, TOKEN_BL
  )
  _, wanted = captured()
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_tiled_core_keeps_its_place_where_no_weights_are_wanted():
  model = model_of(attention="gqa(1)", core="blockwise")
  run = functools.partial(capture.run, model, params=drawn())
  text = jax.make_jaxpr(lambda x: run(token_BL=x, want=["output"]))(TOKEN_BL)
  assert "2,2,3,3" not in str(text)  # no array of scores
  _, found = jax.jit(lambda x: run(token_BL=x, want=["output"]))(TOKEN_BL)
  for path in LAYERS:
    np.testing.assert_allclose(
      found["output"][path], captured()[1]["output"][path], rtol=1e-4, atol=1e-5
    )


def test_an_edit_is_read_from_there_on():
  model, params = model_of(attention="gqa(1)"), drawn()
  gate_H = jnp.array([1.0, 0.0])

  def ablated(path, out_BLHE):
    return out_BLHE * gate_H[:, None] if path == LAYERS[1] else out_BLHE

  logits_BLV, found = capture.run(
    model, params, TOKEN_BL, want=["output", "update"], edit={"output": ablated}
  )
  assert not found["output"][LAYERS[1]][:, :, 1].any()
  before_BLHE = captured()[1]["output"][LAYERS[0]]
  np.testing.assert_allclose(found["output"][LAYERS[0]], before_BLHE, rtol=1e-5)
  # The same by parameters: the second head's output projection is zero.
  weights = flat(params)
  [name] = [x for x in weights if x.startswith(f"{LAYERS[1]}/out")]
  out_HED = weights[name] * gate_H[:, None, None]
  zeroed = nested(weights | {name: out_HED})
  wanted_BLV = model.apply({"params": zeroed}, TOKEN_BL)
  np.testing.assert_allclose(logits_BLV, wanted_BLV, rtol=1e-4, atol=1e-5)


def test_gradients_are_differences():
  model, params = model_of(attention="gqa(1)", core="dense"), drawn()

  def loss(logits_BLV):
    return jnp.sum(jnp.sin(logits_BLV))

  want = ["state", "weights"]
  found = capture.gradients(loss, model, params, TOKEN_BL, want=want)
  wanted = {"state": "decoder/layer_0", "weights": LAYERS[1]}
  for place, path in wanted.items():
    step = np.random.default_rng(1).normal(size=found[place][path].shape)

    def moved(size, place=place, path=path, step=step):
      edit = {place: lambda here, x: x + size * step if here == path else x}
      return loss(capture.run(model, params, TOKEN_BL, want=(), edit=edit)[0])

    difference = (moved(1e-2) - moved(-1e-2)) / 2e-2
    np.testing.assert_allclose(
      jnp.sum(found[place][path] * step), difference, rtol=2e-2, atol=2e-2
    )


def test_a_recurrent_model_records_its_steps_and_reads_an_edit():
  arch = tj.Architecture(DIMS, "none", attention="additive", encoders=1, decoders=1)
  model = Recurrents("gru", "bahdanau")(arch)
  reads = TOKEN_BL, None, jnp.array([[1, 2, 3, 4]] * 2)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *reads)["params"]
  random = np.random.default_rng(0)
  params = jax.tree.map(lambda x: jnp.array(random.normal(size=x.shape)), shapes)
  result, found = capture.run(model, params, *reads, want=["weights", "state"])
  w_BHLM = found["weights"]["decoder/cross"]
  assert w_BHLM.shape[2:] == (3, 4) and len(found["state"]) == 6
  even = {"weights": lambda path, w_BHLM: jnp.full_like(w_BHLM, 0.25)}
  changed, after = capture.run(model, params, *reads, edit=even)
  assert (after["weights"]["decoder/cross"] == 0.25).all()
  assert abs(changed - result).max() > 1e-3


@pytest.mark.parametrize(
  "arguments,sentence",
  [
    ({"want": ["weigths"]}, "want: 'weigths'. Did you mean 'weights'"),
    ({"edit": {"mask": None}}, "edit: 'mask'."),
  ],
)
def test_a_place_that_is_not_there_is_named(arguments, sentence):
  with pytest.raises(ValueError, match=sentence):
    capture.run(model_of(), None, TOKEN_BL, **arguments)
