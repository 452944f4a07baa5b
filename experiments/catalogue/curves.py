"""Numbers of the catalogue's pictures of encodings: scores by distance.

A text repeats one token, and queries and keys are that token, so two keys differ only
in position. All numbers come from the encoding's hooks.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention import PLAIN
from transformer_jax.attention.cores.context import Context
from transformer_jax.axes import Dims
from transformer_jax.positions import (
  PositionalEncoding,
  TrainContext,
  bind,
  coords,
  positions,
)

TRAINED, L = 64, 128  # tokens of a training text, and of the text that is shown
LAYER = 0  # of layers with different encodings
DIMS = Dims(V=2, D=64, H=4, F=2, L=TRAINED, K=64)
# Number of tokens in the mean, with their negatives; one token if the encoding adds a
# product of a token with a vector of the distance, which would cancel.
TOKENS = 4


def curves(encoding: PositionalEncoding) -> dict[str, np.ndarray]:
  """Returns the arrays of a picture.

  lines_HN    change of the score by distance, for the last query that has a number
  train_HN    the same in training, if positions differ there
  map_LM      change of the score of query i and key j in the first head
  drawn       1 if initial parameters change no score: random ones are shown
  """
  if "original" in {field.name for field in dataclasses.fields(encoding)}:
    fields: dict[str, Any] = {"original": TRAINED}
    encoding = dataclasses.replace(encoding, **fields)
  if encoding.overrides("assign_positions"):
    encoding = over_rope(encoding)
  params = encoding.init(jax.random.key(0), DIMS)
  changes_HLM = score_changes(encoding, params)
  drawn = bool(params) and np.nanmax(np.abs(changes_HLM)) < 1e-3
  if drawn:
    params = random(params)
    changes_HLM = score_changes(encoding, params)
  lines_HN = by_distance(changes_HLM)
  plotted = {"lines_HN": lines_HN, "map_LM": changes_HLM[0], "drawn": np.array(drawn)}
  if encoding.overrides("assign_positions"):
    train_HN = by_distance(score_changes(encoding, params, training=True))
    if not np.allclose(train_HN, lines_HN, atol=1e-3, equal_nan=True):
      plotted["train_HN"] = train_HN
  return plotted


def score_changes(
  encoding: PositionalEncoding, params: dict, training: bool = False
) -> np.ndarray:
  """Returns the mean change of each score, [H, L, M]; NaN where a key is masked."""
  text_BD = jax.random.rademacher(_key(), (TOKENS, DIMS.D), jnp.float32)
  both_BD = jnp.concatenate([text_BD, -text_BD])
  matched = encoding.overrides("score") or encoding.overrides("full_scores")
  text_BD = text_BD[:1] if matched else both_BD
  x_BLD = jnp.repeat(text_BD[:, None], L, axis=1)
  position = bind(encoding.layer(LAYER), params, DIMS)
  at = coords.consecutive(len(x_BLD), L)
  at = at.replace(data={name: ids(name, at.pos_BL) for name in encoding.ids})
  train_context = TrainContext(_key(), 0.0, len(x_BLD)) if training else None
  at = encoding.assign_positions(train_context, at)
  x_BLD = position.embed(x_BLD, at)
  x_BLHK = jnp.repeat(x_BLD[:, :, None], DIMS.H, axis=2)
  at = position.accumulate(position.read(x_BLD, x_BLHK, at))
  q_BLHK, k_BMHK = position.transform_qk(x_BLHK, x_BLHK, at, at)
  context = Context(at, at, position, DIMS.K**-0.5, PLAIN)
  mask_BLM = context.mask()
  s_BHLM = context.full_scores(q_BLHK, k_BMHK, mask_BLM)
  mask_BHLM = mask_BLM if mask_BLM.ndim == 4 else mask_BLM[:, None]
  change_BHLM = jnp.where(mask_BHLM, s_BHLM - DIMS.K**0.5, jnp.nan)
  return np.asarray(jnp.mean(change_BHLM, axis=0))


def over_rope(encoding: PositionalEncoding) -> PositionalEncoding:
  """Returns an encoding that assigns positions, wrapped around one that reads them."""
  if getattr(encoding, "encoding", None) == PositionalEncoding():
    fields: dict[str, Any] = {"encoding": positions.build("rope")}
    return dataclasses.replace(encoding, **fields)
  return encoding


def ids(name: str, pos_BL: jax.Array) -> jax.Array:
  """Returns token ids of a task: a grid 8 wide, or numbers of 7 digits."""
  return pos_BL // 8 if name.startswith("row") else pos_BL % 8


def by_distance(changes_HLM: np.ndarray) -> np.ndarray:
  """Returns the changes of one query's scores by distance; equal heads are merged."""
  own_L = np.isfinite(np.diagonal(changes_HLM[0]))
  i = int(np.flatnonzero(own_L)[-1]) if own_L.any() else L - 1
  lines_HN = changes_HLM[:, i, i::-1]
  same = np.allclose(lines_HN, lines_HN[:1], atol=1e-3, equal_nan=True)
  return lines_HN[:1] if same else lines_HN


def random(params: dict) -> dict:
  """Returns parameters drawn from a normal distribution, each with a separate key."""
  keys = jax.random.split(_key(), len(params))
  pairs = zip(keys, sorted(params), strict=True)
  return {name: jax.random.normal(key, params[name].shape) for key, name in pairs}


def _key() -> jax.Array:
  return jax.random.key(1)
