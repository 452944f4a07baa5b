"""Beam search gives the texts and scores of HuggingFace's, on its Marian model.

The numbers lie in `third_party/transformers`; `ORIGIN.md` there says how they were
made.
"""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_interop import CONFIGS, FOLDER, recorded

from transformer_jax import interop
from transformer_jax.evaluation.beam import Beam, Power, beam_search
from transformer_jax.models import Transformer
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords

SEARCHES = {
  "b4_lp0.6": Beam(4, Power(0.6)),
  "b4_lp0.6_early": Beam(4, Power(0.6), "full"),
  "b4_lp1.0": Beam(4, Power(1.0)),
  "b2_lp0.0": Beam(2, Power(0.0)),
  "greedy": Beam(1, Power(0.0), "full"),
}
START, END, STEPS = 2, 0, 19


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
  """Returns a model, its parameters, what it read, and what was recorded."""
  _, weights, _ = recorded("marian")
  with np.load(FOLDER / "beam_marian.npz", allow_pickle=False) as file:
    there = dict(file)
  # The recording changed these two, so that texts end.
  weights["final_logits_bias"] = there["inputs/final_logits_bias"]
  weights["model.shared.weight"][END] = there["inputs/shared_weight_eos_row"]
  folder = tmp_path_factory.mktemp("marian")
  (folder / "config.json").write_text(json.dumps(CONFIGS["marian"]))
  save_file(weights, folder / "model.safetensors")
  loaded = interop.load(folder, core="dense")
  model, at = Transformer(loaded.arch), coords.padded(there["inputs/attention_mask"])
  encode = lambda params, source_BL: model.apply(
    {"params": params}, source_BL, at, method="encode"
  )
  memory = evaluate(encode, loaded.params, there["inputs/input_ids"])
  return model, loaded.params, memory, there


# Lists in test_decoding say when to stop, and that a beam of one is greedy.
@pytest.mark.parametrize(
  "case",
  [n if n == "b4_lp0.6" else pytest.param(n, marks=pytest.mark.slow) for n in SEARCHES],
)
def test_beams_of_hugging_face(case, marian):
  model, params, memory, there = marian
  wanted = {name: there[f"outputs/{case}/{name}"] for name in ("sequences", "length")}
  start_B1 = np.full((3, 1), START)

  def run(params, memory):
    how = SEARCHES[case]
    return beam_search(model, params, start_B1, STEPS, END, how, memory=memory)

  found = evaluate(run, params, memory)
  np.testing.assert_array_equal(found.length_BK, wanted["length"])
  written_BKN = np.arange(STEPS) < wanted["length"][..., None]
  ours_BKN = np.where(written_BKN, found.token_BKN, 0)
  theirs_BKN = np.where(written_BKN, wanted["sequences"][..., 1:], 0)
  np.testing.assert_array_equal(ours_BKN, theirs_BKN)
  scores = there.get(f"outputs/{case}/scores", there[f"outputs/{case}/sum_logprob"])
  np.testing.assert_allclose(found.score_BK, scores, atol=2e-5)
