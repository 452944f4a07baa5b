"""States between layers, and rotary tables, of recorded models with many parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recorded_models import cases
from recorded_models import write as write_form
from safetensors.numpy import load_file
from test_interop import near, recorded, saved, texts, write

from transformer_jax import interop
from transformer_jax.models import Transformer, capture
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords, positions

FORMS, _ = cases("forms")
CASES = "nanochat", "llama4_text", "deepseek_v32"
THREE_AXES = "qwen2_vl_text", "qwen3_vl_text"


def loaded_of(folder, case):
  return interop.load(saved(folder, case), core="dense"), recorded(case)[2]


def run(loaded, *reads, want=("state", "update")):
  """Returns logits, and the states and updates of each layer."""
  model = Transformer(loaded.arch)
  call = lambda params: capture.run(model, params, *reads, want=want)
  return evaluate(call, loaded.params)


@pytest.mark.parametrize("case", CASES)
def test_states_after_each_layer_are_those_recorded(tmp_path, case):
  loaded, there = loaded_of(tmp_path, case)
  real_L = there["attention_mask"][-1] > 0  # of the last text, which has padding
  _, found = run(loaded, there["input_ids"][-1:, real_L])
  n = loaded.arch.decoders
  names = ["embedding", *(f"layer_{layer}" for layer in range(n - 1)), "output"]
  for number, name in enumerate(names):
    expected = there[f"hidden_states/{number}"][:, real_L]
    near(found["state"][f"decoder/{name}"], expected, f"state {number}")
  for layer in range(n):
    if f"layer{layer}_attn_out" in there:
      update_BLD = found["update"][f"decoder/layer_{layer}/attention"]
      expected = there[f"layer{layer}_attn_out"][:, real_L]
      near(update_BLD, expected, f"attention of layer {layer}")


def test_streams_after_each_layer_are_those_recorded(tmp_path):
  loaded, there = loaded_of(tmp_path, "gemma3n_text")
  real_L = there["attention_mask"][-1] > 0  # of the last text, which has padding
  _, found = run(loaded, there["input_ids"][-1:, real_L])
  first_BLD = found["state"]["decoder/embedding"]
  near(first_BLD, there["hidden_states/0"][:, real_L, :24], "the first stream")
  for layer in range(4):
    side_by_side = (1, real_L.sum(), 72)
    states = found["state"][f"decoder/layer_{layer}"].reshape(side_by_side)
    near(states, there[f"hidden_states/{layer + 1}"][:, real_L], f"layer {layer}")
  update_BLD = found["update"]["decoder/layer_0/attention"]
  near(update_BLD, there["layer0_attn_out"][:, real_L], "attention of layer 0")


@pytest.mark.parametrize("case", THREE_AXES)
def test_positions_of_three_axes_are_those_recorded(tmp_path, case):
  loaded, there = loaded_of(tmp_path, case)
  _, found = run(loaded, *texts(there))
  update_BLD = found["update"]["decoder/layer_0/attention"]
  near(update_BLD, there["layer0_attn_out"], "attention of layer 0")
  near(found["state"]["decoder/output"], there["last_hidden_state"], "the last state")
  logits_BLV, _ = run(loaded, there["input_ids"])
  near(logits_BLV, there["text_positions_logits"], "logits of text alone")


def turned(encoding, x_BLHK, at):
  return evaluate(lambda x: encoding.transform_qk({}, x, x, at, at)[0], x_BLHK)


@pytest.mark.parametrize("case", THREE_AXES)
def test_cosines_and_sines_of_three_axes_are_those_recorded(tmp_path, case):
  loaded, there = loaded_of(tmp_path, case)
  cos_BLK, sin_BLK = there["rope_cos"], there["rope_sin"]
  half, at = cos_BLK.shape[-1] // 2, texts(there)[1]
  x_BLHK = np.ones((*cos_BLK.shape[:2], 1, 2 * half), np.float32)
  x_BLHK[..., half:] = 0  # the first of each pair turns to (cos, sin)
  y_BLK = turned(loaded.arch.position, x_BLHK, at)[:, :, 0]
  near(y_BLK[..., :half], cos_BLK[..., :half], "cosines")
  near(y_BLK[..., half:], sin_BLK[..., :half], "sines")


def test_text_of_three_axes_is_rope_and_a_grid_is_not():
  x_BLHK = np.random.default_rng(0).normal(size=(1, 6, 2, 16)).astype(np.float32)
  rope, mrope = positions.build("rope"), positions.build("mrope")
  assigned = lambda at: mrope.assign_positions(None, at)
  text, grid = coords.consecutive(1, 6, start=3), coords.grid(2, 3)
  expected = turned(rope, x_BLHK, text)
  np.testing.assert_array_equal(turned(mrope, x_BLHK, assigned(text)), expected)
  off = grid.replace(pos_BL=text.pos_BL, data={n: -1 - x for n, x in grid.data.items()})
  np.testing.assert_array_equal(turned(mrope, x_BLHK, assigned(off)), expected)
  ids = assigned(grid).data
  assert not jnp.any(ids["time_BL"]) and ids["row_BL"][0].tolist() == [0, 0, 0, 1, 1, 1]
  assert np.abs(turned(mrope, x_BLHK, assigned(grid)) - expected).max() > 0.1


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("mrope(sections=(4, 4))", "sections is (4, 4); write the numbers of pairs"),
    ("mrope(sections=(4, 2, -2))", "sections is (4, 2, -2); write the numbers"),
    ("mrope(layout='thw')", "layout is 'thw'; write one of sections, interleaved"),
  ],
)
def test_sections_are_three_numbers_of_pairs(spec, says):
  with pytest.raises(ValueError) as error:
    positions.build(spec)
  assert says in str(error.value)


def test_sections_have_as_many_pairs_as_a_head():
  with pytest.raises(ValueError, match="are of 6 pairs, and a head has 8; write"):
    positions.build("mrope(sections=(2, 2, 2))").axis_of_pairs(8)


def same_numbers(x, y):
  np.testing.assert_array_equal(x, y)
  return True


def test_experts_are_saved_with_a_tensor_for_each(tmp_path):
  """As released; today's names, of all experts together, are read too."""
  form = FORMS["deepseek_v3/ForCausalLM"]
  write_form(tmp_path, form["config"], form["tensors"])
  loaded = interop.load(tmp_path, core="dense")
  interop.save(tmp_path / "again", loaded.config, loaded.params)
  saved_again = load_file(tmp_path / "again" / "model.safetensors")
  assert {n: list(x.shape) for n, x in saved_again.items()} == form["tensors"]
  together = interop.tensors(loaded.config, loaded.params)
  together = {name: np.ascontiguousarray(x) for name, x in together.items()}
  assert "model.layers.1.mlp.experts.gate_up_proj" in together
  write(tmp_path / "together", loaded.config, together)
  same = interop.load(tmp_path / "together", core="dense")
  jax.tree.map(same_numbers, same.params, loaded.params)
  lost = {n: x for n, x in saved_again.items() if ".experts.3.up_proj" not in n}
  write(tmp_path / "lost", loaded.config, lost)
  with pytest.raises(ValueError, match="lacks some of theirs; use the weights that"):
    interop.load(tmp_path / "lost")
