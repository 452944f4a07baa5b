"""Translator: a trained encoder-decoder with beam search, in batches."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import global_arrays
from transformer_jax.data.tokenizers import Tokenizer
from transformer_jax.evaluation.beam import Beam, beam_search
from transformer_jax.positions import coords

NOTHING = -1  # where a source has no token: 0 may be a token that counts


@dataclasses.dataclass(frozen=True, eq=False)
class Translator:
  """A trained encoder-decoder with its tokenizer.

  max_length   tokens of a text at most, the end token included
  place        puts a batch of sources on the devices

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> byte = tokenizers.build("byte").train()
  >>> translator = Translator(model=None, params=None, tokenizer=byte, max_length=4)
  >>> translator.source([byte.encode("ja"), byte.encode("nein")]).tolist()
  [[111, 102, 2, -1], [115, 106, 110, 2]]
  """

  model: Any
  params: Any
  tokenizer: Tokenizer
  max_length: int
  place: Callable[[np.ndarray], jax.Array] = jnp.asarray

  def __call__(
    self, texts: list[str], how: Beam, warn: Callable[[str], None] = lambda line: None
  ) -> list[str | None]:
    """Returns the translation of each text of one batch; None where logits are NaN.

    warn   is called with a sentence for each text that is cut to `max_length` tokens,
           and for each without a translation
    """
    sources = [self.tokenizer.encode(text) for text in texts]
    for text, source in zip(texts, sources, strict=True):
      if len(source) >= self.max_length:
        warn(
          f"a line of {len(source)} tokens is cut to {self.max_length - 1}, the most"
          f" that this run reads: {text[:40]}..."
        )
    end = self.tokenizer.end
    best_BN, score_B = _search(
      self.model,
      how,
      self.max_length,
      self.tokenizer.start,
      end,
      params=self.params,
      source_BL=self.place(self.source(sources)),
    )
    translations: list[str | None] = []
    best_BN, score_B = global_arrays.read((best_BN, score_B))
    scored = zip(texts, best_BN.tolist(), score_B, strict=True)
    for text, tokens, score in scored:
      if np.isneginf(score):
        warn(f"no translation, since logits are not numbers: {text[:40]}...")
        translations.append(None)
      else:
        translations.append(self.tokenizer.decode(before(tokens, end)))
    return translations

  def source(self, sources: list[list[int]]) -> np.ndarray:
    """Returns source_BL: the tokens of each source, an end token, and NOTHING."""
    source_BL = np.full((len(sources), self.max_length), NOTHING, np.int32)
    for source_L, tokens in zip(source_BL, sources, strict=True):
      tokens = [*tokens[: self.max_length - 1], self.tokenizer.end]
      source_L[: len(tokens)] = tokens
    return source_BL

  def all(
    self,
    texts: list[str],
    how: Beam,
    batch_size: int,
    warn: Callable[[str], None] = lambda line: None,
  ) -> Iterator[str | None]:
    """Yields the translation of each text, in batches.

    texts        in the source language
    how          settings of the beam search
    batch_size   texts in a batch
    warn         as in `__call__`
    """
    remaining = iter(texts)
    while batch := list(itertools.islice(remaining, batch_size)):
      # The last batch is filled up, so that one program serves all batches.
      full = batch + [""] * (batch_size - len(batch))
      yield from self(full, how, warn)[: len(batch)]


def before(tokens: list[int], end: int) -> Iterator[int]:
  """Yields the tokens before the end token."""
  return itertools.takewhile(lambda token: token != end, tokens)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _search(
  model: Any,
  how: Beam,
  max_length: int,
  start: int,
  end: int,
  params: Any,
  source_BL: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Returns the best translation of each source, token_BN, and its score_B.

  how          settings of the beam search
  max_length   tokens to generate at most
  start, end   tokens that begin and end a text
  source_BL    tokens of the sources; NOTHING: padding
  """
  at = coords.padded(source_BL != NOTHING)
  token_BL = jnp.maximum(source_BL, 0)
  memory = model.apply({"params": params}, token_BL, at, method="encode")
  start_B1 = jnp.full((len(source_BL), 1), start)
  found = beam_search(model, params, start_B1, max_length, end, how, memory=memory)
  return found.token_BKN[:, 0], found.score_BK[:, 0]
