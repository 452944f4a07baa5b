"""Recurrent models: encoder, decoder, or both. Sutskever et al., 2014.

https://arxiv.org/abs/1409.3215. They share the interface of a Transformer, so training,
decoding and evaluation are the same. Their cache is the last state.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from transformer_jax.attention import BoundVariant
from transformer_jax.devices import split_rows
from transformer_jax.models.caches import empty_cache
from transformer_jax.models.compatibility import form
from transformer_jax.models.families import Family, families
from transformer_jax.models.parameters import Dropout, own, weights
from transformer_jax.models.recurrent.bridges import links
from transformer_jax.models.recurrent.rnn_cells import (
  CellState,
  cells,
  empty,
  ends,
  unroll,
)
from transformer_jax.models.stack import last_tokens
from transformer_jax.models.transformer import Architecture, Transformer
from transformer_jax.positions import Coords, PositionalEncoding, bind
from transformer_jax.spec import SpecError, nearest

# Output of an encoder: vectors, the states of all layers after each token, and the
# coordinates of the tokens.
RecurrentMemory = tuple[tuple[jax.Array, list[CellState]], Coords]
# Directions of an encoder; True: from right to left.
READS = {"forward": (False,), "backward": (True,), "both": (False, True)}
# Fields of an architecture that only a Transformer supports.
FOREIGN = (
  *("norm", "activation", "norm_placement", "attention_dropout", "prefix"),
  *(
    "embedding",
    "head",
    "feedforward_bias",
    "feedforward_kind",
    "convolution",
    "scan",
    "remat",
    "decoder_dims",
  ),
)


@dataclasses.dataclass(frozen=True)
class Recurrence(Architecture):
  """Architecture of a recurrent model.

  It reads sizes, attention, dropout and dtype of an architecture: V, D, and the sizes
  of heads where it attends.

  cell          recurrent cell of every layer
  link          conditioning of a decoder on its encoder
  reads         direction of an encoder: forward, backward (the reversed source of
                Sutskever et al.) or both, half of the units each (Bahdanau et al.)
  written_out   unrolls the steps, so that operations can be counted

  >>> from transformer_jax.axes import Dims
  >>> dims = Dims(V=5, D=4, H=2, F=8, L=8)
  >>> arch = Recurrence(dims, position="none", decoders=1, encoders=1, reads="both")
  >>> arch.directions("encoder"), arch.directions("decoder")
  ((False, True), (False,))
  """

  cell: Any = None
  link: Any = None
  reads: str = "forward"
  written_out: bool = False

  def directions(self, use: str) -> tuple[bool, ...]:
    """Returns the directions of a layer; True: from right to left."""
    return READS[self.reads] if use == "encoder" else READS["forward"]


@families.register("recurrent")
@dataclasses.dataclass(frozen=True)
class Recurrents(Family):
  """Recurrent models: see `rnn_cells.py` and `bridges.py`.

  cell   elman, lstm, gru
  link   conditioning of a decoder on its encoder: bottleneck, luong, bahdanau
  reads  direction of an encoder: forward, backward, both

  >>> from transformer_jax.axes import Dims
  >>> family = Recurrents(cell="gru", link="bahdanau", reads="both")
  >>> dims = Dims(V=5, D=4, H=2, F=0, L=8)
  >>> arch = Architecture(dims, "none", attention="additive", encoders=1, decoders=1)
  >>> type(family(arch)).__name__
  'Recurrent'
  """

  cell: Any = "lstm"
  link: Any = "bottleneck"
  reads: str = "forward"
  lacks: ClassVar[tuple[str, ...]] = ("feedforward",)

  def __post_init__(self):
    object.__setattr__(self, "cell", cells.build(self.cell))
    object.__setattr__(self, "link", links.build(self.link))
    if self.reads not in READS:
      near = nearest(self.reads, READS)
      raise SpecError(
        f"recurrent: reads={self.reads!r}:{near} Write one of {', '.join(READS)}"
      )

  def __call__(self, arch: Architecture) -> "Recurrent":
    """Returns the model; raises ValueError where parts do not fit together."""
    if type(arch.position) is not PositionalEncoding:
      raise ValueError(
        f"model.position={arch.position.name}: a recurrent model reads one token after"
        " another and has no positions; write --config.model.position=none"
      )
    fields = {f.name: f for f in dataclasses.fields(arch)}
    given = [name for name in FOREIGN if getattr(arch, name) != fields[name].default]
    if given:
      raise ValueError(
        f"a recurrent model has no {', '.join(given)}; leave it at its default"
      )
    if arch.encoders and arch.decoders and arch.encoders != arch.decoders:
      raise ValueError(
        f"a recurrent decoder's {arch.decoders} layers start from the states of as many"
        f" of the encoder, which has {arch.encoders}"
      )
    if arch.dims.D % len(READS[self.reads]):
      raise ValueError(f"reads='both' halves the width, which is odd: {arch.dims.D}")
    same = {name: getattr(arch, name) for name in fields}
    return Recurrent(Recurrence(**same, **vars(self)))


@empty_cache.register
def _(arch: Recurrence, B: int, M: int, frozen: bool = False) -> list[CellState]:
  """Returns the initial states of a decoder's layers; M and `frozen` have no effect.

  arch     architecture of the model
  B        batch size
  M        number of tokens; states have a fixed size
  frozen   as in `empty_cache`
  """
  return [empty(arch.cell, B, arch.dims.D, arch.dtype) for _ in range(arch.decoders)]


class Direction(nn.Module):
  """One direction of a recurrent layer.

  arch      architecture of the model
  parts     number of directions, among which the width D is divided
  reverse   from right to left

  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.positions import coords
  >>> dims = Dims(V=5, D=4, H=2, F=0, L=8)
  >>> arch = Recurrence(dims, "none", decoders=1, cell=cells.build("gru"))
  >>> backward = Direction(arch, parts=2, reverse=True)
  >>> args = jnp.zeros((1, 3, 4)), coords.consecutive(1, 3), None, None
  >>> run = backward.init_with_output
  >>> (states, last, _), _ = jax.eval_shape(run, jax.random.key(0), *args)
  >>> states[0].shape, last[0].shape  # of half the width
  ((1, 3, 2), (1, 2))
  """

  arch: Recurrence
  parts: int
  reverse: bool

  @nn.compact
  def __call__(self, x_BLD, at, start, state, attend=None):
    cell, D = self.arch.cell.part(self.parts), self.arch.dims.D // self.parts
    shapes = cell.weights(x_BLD.shape[-1], D)
    if attend:
      shapes["context_DNW"] = shapes["input_DNW"]
    w = weights(self, shapes)
    state = state or empty(cell, len(x_BLD), D, x_BLD.dtype)
    written_out = self.arch.written_out
    return unroll(cell, w, x_BLD, at, start, state, self.reverse, attend, written_out)


class CrossAttention(nn.Module):
  """Cross-attention to a source; a call returns attend(x_BLD, at) -> context_BLD."""

  arch: Recurrence

  @nn.compact
  def __call__(self, source_BMD: jax.Array, k_at: Coords) -> Callable:
    dims, variant = self.arch.dims, form(self.arch.attention, "cross").layer(0)
    projections = variant.projections().fit(dims)
    w = weights(self, projections.weights(dims)) | own(self, projections.init, dims)
    sizes = projections.sizes(dims)
    params = weights(self, variant.weights(sizes)) | own(self, variant.init, sizes)
    position, k_at = bind(PositionalEncoding(), {}, dims), k_at.replace(data={})
    k_BMGK, v_BMGE = projections.read(w, projections.memory(w, source_BMD))
    v_BMGE = variant.values(params, v_BMGE)

    def attend(x_BLD, at):
      q_at, projected_BLHK = (
        at.replace(data={}).bidirectional(),
        projections.query(w, x_BLD),
      )
      scale = variant.scale(params, projected_BLHK.shape[-1])
      q_BLHK, k = variant.condition(params, projected_BLHK, k_BMGK)
      q_BLHK, k = projections.transform_qk(position, q_BLHK, k, q_at, k_at)
      q_BLHK, k = variant.rotated(params, q_BLHK, k)
      bound = BoundVariant(variant, params)
      q_BLHK = bound.temper(q_BLHK, bound.read(x_BLD, projected_BLHK, q_at))
      o_BLHE = self.arch.core(q_BLHK, k, v_BMGE, q_at, k_at, position, scale, bound)
      o_BLHE = projections.found(w, variant.mixed(params, o_BLHE), x_BLD)
      o_BLHE = variant.output(params, x_BLD, o_BLHE)
      return projections.out(w, o_BLHE, x_BLD)

    return attend


class RecurrentStack(nn.Module):
  """Stack of recurrent layers.

  arch     architecture of the model
  use      encoder or decoder
  layers   number of layers

  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.positions import coords
  >>> dims = Dims(V=5, D=4, H=2, F=0, L=8)
  >>> parts = {"cell": cells.build("lstm"), "link": links.build("luong")}
  >>> arch = Recurrence(dims, "none", decoders=2, **parts)
  >>> stack = RecurrentStack(arch, "decoder", layers=2)
  >>> args = jnp.zeros((1, 3, 4)), coords.consecutive(1, 3)
  >>> list(jax.eval_shape(stack.init, jax.random.key(0), *args)["params"])
  ['layer_0', 'layer_1']
  """

  arch: Recurrence
  use: str
  layers: int

  @nn.compact
  def __call__(
    self,
    token_BLD,
    at,
    memory=None,
    cache=None,
    progress=1.0,
    token_BL=None,
    last=None,
  ):
    """Returns (x_BLD, at, states): outputs, coordinates and the last states.

    token_BLD   embedded tokens
    at          their coordinates
    memory      output of an encoder, or None
    cache       last states of the tokens before, or None
    progress    ignored, as is token_BL; of the Transformer's interface
    last        how many of the last tokens' outputs are returned; None: all

    In a model with a decoder, an encoder returns (x_BLD, states after each token) in
    place of x_BLD. Dropout is applied between layers, never from step to step: Zaremba
    et al., 2014, https://arxiv.org/abs/1409.2329.
    """
    link, attend, found_BLD = self.arch.link, None, None
    states: list[CellState] = []
    finals: list[CellState] = []
    drop = Dropout(self.arch.dropout, self.arch.part)
    starts = _starts(self.arch, memory, at) if memory else [None] * self.layers
    if memory and link.attends:
      attend = CrossAttention(self.arch, name="cross")(memory[0][0], memory[1])
    x_BLD = token_BLD = self.embed(drop, token_BLD)
    for n in range(self.layers):
      feed = attend if n == 0 and link.feeds else None
      state = cache[n] if cache else None
      each, final, found = self.layer(n, x_BLD, at, starts[n], state, feed)
      found_BLD, x_BLD = found if feed else found_BLD, drop(each[0])
      states, finals = [*states, each], [*finals, final]
    if attend:
      found_BLD = found_BLD if link.feeds else attend(x_BLD, at)
      x_BLD = self.combine(token_BLD, x_BLD, found_BLD)
    heard = self.use == "encoder" and self.arch.decoders
    outputs = (x_BLD, states) if heard else last_tokens(x_BLD, last)
    return outputs, last_tokens(at, last), finals

  def embed(self, drop, token_BLD):
    """Returns x_BLD, the input of the first layer, as in a Transformer's stack."""
    return split_rows(drop(token_BLD))

  def layer(self, n, x_BLD, at, start, state, attend):
    """Returns (states, last state, contexts) of a layer; directions are concatenated.

    n        number of the layer
    x_BLD    its inputs
    at       their coordinates
    start    initial states of the texts, or None: zero
    state    last state of the tokens before, or None
    attend   cross-attention that feeds each step, or None
    """
    directions = self.arch.directions(self.use)
    outputs = []
    for reverse in directions:
      name = f"layer_{n}" + "_backward" * reverse
      direction = Direction(self.arch, len(directions), reverse, name=name)
      outputs.append(direction(x_BLD, at, start, state, attend))
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=-1), *outputs)

  def combine(self, token_BLD, h_BLD, found_BLD):
    dims, variant = self.arch.dims, form(self.arch.attention, "cross").layer(0)
    attention = variant.projections().fit(dims).weights(dims)
    shapes = self.arch.link.weights(dims.D, attention)
    w = weights(self, shapes)
    return self.arch.link.output(w, token_BLD, h_BLD, found_BLD)


class Recurrent(Transformer):
  """Recurrent model from tokens to logits: a Transformer with recurrent stacks.

  >>> from transformer_jax.axes import Dims
  >>> arch = Architecture(Dims(V=5, D=4, H=2, F=0, L=8), "none", decoders=1)
  >>> model, token_BL = Recurrents("elman")(arch), jnp.zeros((1, 3), int)
  >>> shapes = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  >>> {name: x.shape for name, x in shapes["decoder"]["layer_0"].items()}
  {'input_DNW': (4, 1, 4), 'shift_NW': (1, 4), 'state_DNW': (4, 1, 4)}
  """

  arch: Recurrence
  stack: ClassVar[type[nn.Module]] = RecurrentStack


def _starts(arch: Recurrence, memory: RecurrentMemory, at: Coords) -> list[CellState]:
  """Returns the initial states of each token's text, [B, L, ...] for all layers.

  The encoder's state after the last token of the same segment, in reading order; zero
  for a source without tokens.
  """
  (_, states), k_at = memory
  same_BLM = at.segment_BL[:, :, None] == k_at.segment_BL[:, None, :]
  final = {False: ends(k_at), True: k_at.order_BL == 0}
  picked = [same_BLM & final[back][:, None] for back in arch.directions("encoder")]

  def pick(x_BMD):
    halves = zip(picked, jnp.split(x_BMD, len(picked), axis=-1), strict=True)
    parts = [jnp.matmul(p_BLM.astype(x.dtype), x) for p_BLM, x in halves]
    return jnp.concatenate(parts, axis=-1)

  return jax.tree.map(pick, states)
