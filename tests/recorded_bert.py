"""The recorded BERT as a folder of HuggingFace, with a vocabulary."""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

FOLDER = pathlib.Path(__file__).parent.parent / "third_party" / "transformers"


def write(folder):
  """Writes config, weights and vocabulary; returns the recorded arrays."""
  config = json.loads((FOLDER / "configs.json").read_text())["bert_mlm"]
  with np.load(FOLDER / "whole_bert_mlm.npz") as file:
    recorded = dict(file)
  weights = {n[8:]: x for n, x in recorded.items() if n.startswith("weights/")}
  (folder / "config.json").write_text(json.dumps(config))
  save_file(weights, folder / "model.safetensors")
  pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "well", "badly", "the"]
  pieces += [f"##{chr(n)}" for n in range(97, 123)]
  pieces += [f"[unused{n}]" for n in range(97 - len(pieces))]
  (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
  return recorded
