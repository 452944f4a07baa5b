"""Reported: the logits of a T5 v1.1 folder are wrong by sqrt(d_model), in silence.

transformers 5 writes `tie_word_embeddings: true` into every T5, and what that word said
of the scale of the output into `scale_decoder_outputs`. Right: the logits that
HuggingFace's own code gives for the same ids, read by encoder and decoder.
"""

import json
import pathlib
import shutil

import numpy as np

from transformer_jax import interop
from transformer_jax.models import Transformer
from transformer_jax.numpy_interpreter import evaluate

FOLDER = pathlib.Path(__file__).parents[2] / "third_party" / "transformers" / "t5_v11"


def logits(folder):
  loaded = interop.load(folder, core="dense")
  ids = np.load(FOLDER / "ids.npy")
  apply = Transformer(loaded.arch).apply
  return evaluate(apply, {"params": loaded.params}, ids, None, ids)


def test_t5_v11_as_transformers_5_writes_it():
  expected = np.load(FOLDER / "hf_logits.npy")
  error = np.max(np.abs(logits(FOLDER) - expected)) / np.max(np.abs(expected))
  assert error < 1e-5


def test_without_the_word_the_states_are_scaled(tmp_path):
  shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
  config = json.loads((FOLDER / "config.json").read_text())
  del config["scale_decoder_outputs"]
  (tmp_path / "config.json").write_text(json.dumps(config))
  expected = np.load(FOLDER / "hf_logits.npy") * 32**-0.5
  np.testing.assert_allclose(logits(tmp_path), expected, atol=1e-5 * expected.max())
