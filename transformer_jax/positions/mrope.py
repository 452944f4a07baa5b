"""Multimodal rotary encoding. Wang et al., 2024. https://arxiv.org/abs/2409.12191"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import Rope

AXES = "time", "row", "column"
LAYOUTS = "sections", "interleaved"


@positions.register("mrope")
@dataclasses.dataclass(frozen=True)
class MRope(Rope):
  """Rotates each pair of features by the time, the row or the column of a token.

      s_ij = (R(i) q_i) . (R(j) k_j) / sqrt(K), R(n) turns pair m by n_a base^(-2 m / K)

  n_a is the token's place on the axis a of the pair. Qwen2-VL: sections of pairs, time
  first. Qwen3-VL: the axes alternate, so that each has fast and slow pairs, and the
  last pairs are of time: https://arxiv.org/abs/2510.23095.

  A token without ids, or with a negative row or column, is text: its place on all axes
  is its position, as in RoPE. A token with a row and a column and no time is of time 0.

  sections   numbers of pairs of time, row and column; (): a quarter of the pairs and
             three eighths twice, as in Qwen2-VL
  layout     of the axes: "sections" or "interleaved"

  >>> import transformer_jax as tj
  >>> tj.positions.build("mrope(sections=(1, 1, 2))").axis_of_pairs(4).tolist()
  [0, 1, 2, 2]
  >>> mrope = tj.positions.build("mrope(sections=(4, 2, 2), layout='interleaved')")
  >>> mrope.axis_of_pairs(8).tolist()
  [0, 1, 2, 0, 1, 2, 0, 0]
  """

  sections: tuple[int, ...] = ()
  layout: str = "sections"
  ids = tuple(f"{axis}_BL" for axis in AXES)

  def __post_init__(self):
    super().__post_init__()
    if self.layout not in LAYOUTS:
      raise ValueError(
        f"mrope: layout is {self.layout!r}; write one of {', '.join(LAYOUTS)}"
      )
    counts = self.sections if isinstance(self.sections, (tuple, list)) else None
    whole = counts is not None and all(type(n) is int and n >= 0 for n in counts)
    if not whole or len(counts) not in (0, len(AXES)):
      raise ValueError(
        f"mrope: sections is {self.sections!r}; write the numbers of pairs of time, row"
        " and column, as sections=(16, 24, 24)"
      )
    object.__setattr__(self, "sections", tuple(counts))

  def axis_of_pairs(self, R):
    """Returns the axis of each of R pairs: 0 time, 1 row, 2 column."""
    each = 3 * R // 8
    sections = self.sections or (R - 2 * each, each, each)
    if sum(sections) != R:
      raise ValueError(
        f"mrope: sections {sections} are of {sum(sections)} pairs, and a head has {R};"
        " write numbers with that sum, or change head_width or fraction"
      )
    if self.layout == "sections":
      return np.repeat(np.arange(len(AXES)), sections)
    axis_R, turn_R = np.arange(R) % len(AXES), np.arange(R) // len(AXES)
    return np.where(turn_R < np.array(sections)[axis_R], axis_R, 0)

  def assign_positions(self, context, at):
    known = {"row_BL", "column_BL"} <= at.data.keys()
    places = [at.data.get(name, jnp.zeros_like(at.pos_BL)) for name in self.ids]
    text_BL = (places[1] < 0) | (places[2] < 0) if known else True
    places = [jnp.where(text_BL, at.pos_BL, place_BL) for place_BL in places]
    return at.replace(data=at.data | dict(zip(self.ids, places, strict=True)))

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    def turned(x_BLHK, at):
      R = self.pairs(x_BLHK.shape[-1])
      place_BL3 = jnp.stack([at.data[name] for name in self.ids], axis=-1)
      place_BLR = place_BL3[..., self.axis_of_pairs(R)].astype(jnp.float32)
      angle_BLR = place_BLR * jnp.asarray(self.frequencies(params, R), jnp.float32)
      return self.turn(x_BLHK, angle_BLR[:, :, None], self.gain(params))

    return turned(q_BLHK, q_at), turned(k_BMHK, k_at)
