"""Recurrent cells and models: PyTorch's numbers, decoding, gaps, and learning.

The numbers lie in `third_party/torch/`; `ORIGIN.md` there says how they were made.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recurrent_oracles as oracle
from test_recorded_torch import recorded

from experiments.configs import base
from experiments.runner.build import build
from experiments.runner.cost import flops_per_token, sizes
from experiments.setup.validate import resolve, validate
from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, empty_cache, families
from transformer_jax.models.recurrent.rnn_cells import GRU, LSTM, unroll
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.positions import coords, positions

# PyTorch's name of a weight, by ours, and what becomes of its rows.
CASES = {"lstm": LSTM(forget=0.0), "gru": GRU(), "bilstm_proj": LSTM(14, forget=0.0)}


def ours(cell, there, kind, layer, back):
  """Returns one direction's weights; PyTorch has gate after gate in one axis."""
  get = lambda name: there[f"{kind}/{name}_l{layer}" + "_reverse" * back]
  gates = lambda x_WD: jnp.moveaxis(x_WD.reshape(cell.gates, -1, x_WD.shape[1]), 2, 0)
  shift_NW, state_shift_NW = (
    get(name).reshape(cell.gates, -1) for name in ("bias_ih", "bias_hh")
  )
  w = {"input_DNW": gates(get("weight_ih")), "state_DNW": gates(get("weight_hh"))}
  if isinstance(cell, GRU):
    w["new_shift_W"] = jnp.asarray(state_shift_NW[2])
    state_shift_NW[2] = 0
  elif cell.units:
    w["project_WD"] = get("weight_hr").T
  return w | {"shift_NW": jnp.asarray(shift_NW + state_shift_NW)}


def run(cell, both, weights, x_BLD, at, states):
  """Returns the outputs of the last layer and the last states of all directions."""
  last = []
  for n in range(0, len(weights), 1 + both):
    out = []
    for back in range(1 + both):
      state = tuple(x[n + back] for x in states)
      read = cell, weights[n + back], x_BLD, at, _everywhere(state, x_BLD), state
      each, final, _ = unroll(*read, reverse=bool(back))
      out, last = [*out, each[0]], [*last, final]
    x_BLD = jnp.concatenate(out, axis=-1)
  return x_BLD, [jnp.stack(x) for x in zip(*last, strict=True)]


def _everywhere(state, x_BLD):
  wide = lambda x: jnp.broadcast_to(x[:, None], (*x_BLD.shape[:2], x.shape[-1]))
  return jax.tree.map(wide, state)


# An LSTM without a projection is in two of FORMS below.
@pytest.mark.parametrize(
  "case", [pytest.param("lstm", marks=pytest.mark.slow), "gru", "bilstm_proj"]
)
def test_cells_give_torch_numbers_and_gradients(case):
  there, cell = recorded(f"torch/{case}"), CASES[case]
  both = case != "lstm"
  x_BLD, lengths_B = there["inputs/x"], there["inputs/lengths"]
  zero = [np.zeros_like(there[f"inputs/{n}0"]) for n in ("h", "c")]
  given = [there[f"inputs/{n}0"] for n in ("h", "c")]
  layers = [(n, back) for n in range(2) for back in range(1 + both)]
  weights = [ours(cell, there, "weights", *place) for place in layers]
  kinds = len(cell.widths(1))
  compare = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-6)

  at = coords.consecutive(1, x_BLD.shape[1])

  def go(weights, x_BLD, at, states):
    return run(cell, both, weights, x_BLD, at, states[:kinds])

  @jax.jit
  def differentiated(weights, x_BLD):
    forward = lambda *read: go(*read, at, given)
    (out, last), pull = jax.vjp(forward, weights, x_BLD)
    nothing = jax.tree.map(jnp.zeros_like, last)
    return out, last, *pull((jnp.asarray(there["inputs/grad_out"]), nothing))

  out, last, d_weights, d_x_BLD = differentiated(weights, x_BLD)
  compare(out, there["outputs/out"])
  compare(last[0], there["outputs/h_n"])
  if kinds == 2:
    compare(last[1], there["outputs/c_n"])
  compare(d_x_BLD, there["outputs/grad_in/x"])
  check_norms(cell, there, d_weights, layers)

  out, _ = evaluate(go, weights, x_BLD, at, zero)
  compare(out, there["outputs/out_zero_state"])
  real_BL = np.arange(x_BLD.shape[1]) < lengths_B[:, None]
  out, last = evaluate(go, weights, x_BLD, coords.padded(jnp.asarray(real_BL)), given)
  compare(out * real_BL[..., None], there["outputs/out_packed"])
  compare(last[0], there["outputs/h_n_packed"])


def check_norms(cell, there, d_weights, layers):
  """Compares the norms of all gradients, by PyTorch's names."""
  names = {
    "input_DNW": "weight_ih",
    "state_DNW": "weight_hh",
    "project_WD": "weight_hr",
  }
  names |= {"shift_NW": "bias_ih", "state_shift_NW": "bias_hh"}
  for own, (n, back) in zip(d_weights, layers, strict=True):
    state_shift_NW = np.array(own["shift_NW"])
    if "new_shift_W" in own:
      state_shift_NW[2] = own["new_shift_W"]
    own |= {"state_shift_NW": state_shift_NW}
    for name, x in own.items():
      if name in names:
        want = there[f"outputs/grad_norm/{names[name]}_l{n}" + "_reverse" * back]
        np.testing.assert_allclose(np.linalg.norm(x), want, rtol=2e-5, err_msg=name)


B, L, M = 2, 7, 6
DIMS = Dims(V=11, D=8, H=2, F=8, L=L)
FORMS = {  # family, attention
  "bottleneck": ("recurrent(reads='both')", "multihead"),
  "luong": ("recurrent('gru', 'luong', reads='backward')", "multiplicative"),
  "bahdanau": ("recurrent('lstm(units=6)', 'bahdanau', reads='both')", "additive"),
  "any attention": ("recurrent('elman', 'luong')", "gqa(1)"),
}


@functools.cache
def started(name):
  """Returns a model of two layers on both sides and random parameters."""
  family, attention = FORMS[name]
  parts = positions.build("none"), cores.build("dense"), attentions.build(attention)
  model = families.build(family)(Architecture(DIMS, *parts, encoders=2, decoders=2))
  token_BL = jnp.zeros((1, 2), jnp.int32)
  init = lambda key: model.init(key, token_BL, None, token_BL)["params"]
  random = np.random.default_rng(0)
  draw = lambda x: jnp.asarray(0.5 * random.normal(size=x.shape), x.dtype)
  return model, jax.tree.map(draw, jax.eval_shape(init, jax.random.key(0)))


def logits(model, *args):
  """Returns the logits of one pass, interpreted in NumPy: nothing compiles."""
  params, *reads = args
  return evaluate(lambda params: model.apply({"params": params}, *reads), params)


def texts(seed, *shape):
  return jax.random.randint(jax.random.key(seed), shape, 0, DIMS.V)


@pytest.mark.parametrize("name", FORMS)
def test_texts_side_by_side_are_as_alone_and_as_in_the_papers(name):
  model, params = started(name)
  token_BL, source_BM = texts(1, 2, 3), texts(2, 2, 3)
  alone = logits(model, params, token_BL, None, source_BM, None)

  # The second text comes first, and places without a token are strewn around both.
  segment_1L = jnp.array([[0, 2, 2, 2, 0, 1, 1, 1, 0]])
  source_1M = jnp.array([[1, 1, 1, 2, 2, 2, 0, 0]])
  text_1L = jnp.full((1, 9), 5).at[0, 5:8].set(token_BL[0]).at[0, 1:4].set(token_BL[1])
  read_1M = jnp.full((1, 8), 7).at[0, :6].set(source_BM.reshape(-1))
  at, source_at = coords.packed(segment_1L), coords.packed(source_1M)
  packed = logits(model, params, text_1L, at, read_1M, source_at)
  np.testing.assert_allclose(packed[0, 5:8], alone[0], atol=2e-5)
  np.testing.assert_allclose(packed[0, 1:4], alone[1], atol=2e-5)
  if name in ("bottleneck", "luong", "bahdanau"):
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for row in range(2):
      own = np.asarray(token_BL[row]), np.asarray(source_BM[row])
      want = oracle.logits(name, params, *own)
      np.testing.assert_allclose(alone[row], want, atol=2e-5)


@pytest.mark.parametrize(
  "name",
  [n if n == "bahdanau" else pytest.param(n, marks=pytest.mark.slow) for n in FORMS],
)
def test_decoding_on_the_last_state_equals_one_pass(name):
  model, params = started(name)
  real_BL = jnp.arange(L) >= jnp.array([[0], [3]])
  at, token_BL, source_BM = coords.padded(real_BL), texts(3, B, L), texts(4, B, M)
  source_at = coords.padded(jnp.arange(M) < jnp.array([[4], [M]]))
  want = logits(model, params, token_BL, at, source_BM, source_at)
  encode = functools.partial(model.apply, method="encode")
  memory = evaluate(encode, {"params": params}, source_BM, source_at)
  read = jax.jit(functools.partial(model.apply, method="decode"))
  cache, got = empty_cache(model.arch, B, 0), []
  for n in range(L):
    here = jax.tree.map(lambda x, n=n: x[:, n : n + 1], at)
    token_B1 = token_BL[:, n : n + 1]
    out, cache = read({"params": params}, token_B1, here, memory, cache)
    got.append(out)
  got = jnp.concatenate(got, axis=1)
  np.testing.assert_allclose(got[real_BL], want[real_BL], atol=2e-5)


@pytest.mark.parametrize(("name", "opened"), [("bottleneck", False), ("luong", True)])
def test_a_bottleneck_hides_the_source_and_attention_opens_it(name, opened):
  """The gradient of a bottleneck goes through one state of fixed size."""
  model, params = started(name)
  apply = functools.partial(model.apply, {"params": params})
  (x_BMD, states), at = evaluate(lambda x: apply(x, method="encode"), texts(4, B, M))
  token_BL, memory = texts(3, B, L), ((x_BMD, states), at)
  read = trace(lambda m: apply(token_BL, None, m, None, method="decode")[0], memory)
  moved = read(memory) - read(((np.zeros_like(x_BMD), states), at))
  assert (np.abs(moved).max() > 1e-3) == opened


SMALL = {
  "model.width": 16, "model.heads": 1, "model.layers": 1, "model.position": "none",
  "model.kind": "encoder_decoder", "train.length": 3, "train.batch_size": 16,
  "task": "pairs(copy(symbols=3, scored=3))", "train.steps": 150, "seeds": (0,),
  "train.steps_per_dispatch": 150, "train.checkpoint_every": 150,
  "train.optimizer": "adamw(lr=2e-2, weight_decay=0.0)", "evaluate.lengths": (1,),
}  # fmt: skip


def small(**model):
  model = {f"model.{name}": value for name, value in model.items()}
  config = resolve(base.get_config(), SMALL | model)
  validate(config)
  return build(config)


def translator():
  family = 'recurrent(cell="gru", link="bahdanau", reads="both")'
  return small(family=family, attention="additive", core="dense")


@pytest.mark.slow  # cells and models have the numbers and gradients of others above
def test_a_config_makes_a_translator_that_learns_to_copy():
  experiment = translator()
  trainer = experiment.trainer
  params, metrics = jax.jit(lambda: learn(trainer))()
  assert metrics["loss"][-1] < 0.1 * metrics["loss"][0]
  stacked = jax.tree.map(lambda x: x[None], params)
  scores = experiment.evaluator.run(stacked, (), (3,))
  assert next(s["value"] for s in scores if s["measure"] == "exact_match") > 0.8


def test_a_config_makes_a_translator_of_known_size():
  experiment = translator()
  params = experiment.trainer.shapes.params
  # Counted by hand: input, state and context of 3 gates are most of it.
  D, V = 16, experiment.task.vocabulary
  assert sizes(params)[0] == sum(
    (V * D, 2 * (3 * 16 * 8 + 3 * 8 * 8 + 4 * 8), 9 * D * D + 4 * D)
    + (4 * D * D + 2 * D, 3 * 2 * D * D)
  )


def learn(trainer):
  state, metrics = trainer.steps((), trainer.init(0), trainer.planned)
  return state.params, metrics


def test_operations_of_all_steps_are_counted():
  counts = {}
  for length in (3, 6):
    experiment = small(family="recurrent")
    trainer = dataclasses.replace(experiment.trainer, length=length)
    experiment = dataclasses.replace(experiment, trainer=trainer)
    counts[length] = flops_per_token(experiment, ())
  D, V = 16, experiment.task.vocabulary
  # A token costs 2 * 8 D^2 in an LSTM and thrice that with gradients, and logits.
  assert counts[6] > 6 * 8 * D * D
  assert counts[6] < 2 * 6 * (8 * D * D + V * D + 100 * D)
  assert abs(counts[6] / counts[3] - 1) < 0.2


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"position": "rope"}, "write --config.model.position=none"),
    ({"family": "recurent"}, "Did you mean 'recurrent'"),
    ({"family": "recurrent('lstn')"}, "Did you mean 'lstm'"),
    ({"family": "recurrent(link='bahdanu')"}, "Did you mean 'bahdanau'"),
    ({"family": "recurrent(reads='bth')"}, "Did you mean 'both'"),
    ({"norm": "layernorm"}, "a recurrent model has no norm"),
    ({"family": "recurrent(reads='both')", "width": 15}, "which is odd"),
  ],
)
def test_what_recurrent_models_do_not_have_is_refused(changes, says):
  with pytest.raises(ValueError, match=says.replace("(", "\\(")):
    small(**({"family": "recurrent"} | changes))
