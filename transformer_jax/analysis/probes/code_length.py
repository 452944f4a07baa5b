"""Description length of labels, given the states: the online code.

Voita and Titov, 2020, section 2.2.2. https://arxiv.org/abs/2003.12298. Labels are sent
in portions, each coded by a probe that is trained on the portions before it; the first
one is sent with all labels equally likely.
"""

import dataclasses

import jax
import numpy as np

from transformer_jax.analysis.probes.probe_training import ProbeTrainer

# Percents of the samples at which portions end, as published.
PORTIONS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25, 50, 100)


@dataclasses.dataclass(frozen=True)
class CodeLength:
  """Online code length of labels, by layer P and label T.

  bits_PT   of all samples
  uniform   bits of all samples where all labels are equally likely

  >>> CodeLength(np.array([[25.0]]), 100.0).compression_PT.tolist()
  [[4.0]]
  """

  bits_PT: np.ndarray
  uniform: float

  @property
  def compression_PT(self) -> np.ndarray:
    """Returns the uniform code's length over the online one's; 1: nothing is gained."""
    return self.uniform / self.bits_PT


def ends_of(samples: int) -> list[int]:
  """Returns the numbers of samples at which portions end.

  >>> ends_of(1000)
  [1, 2, 4, 8, 16, 32, 62, 125, 250, 500, 1000]
  """
  ends = [round(samples * percent / 100) for percent in PORTIONS]
  return sorted({*ends} - {0})


def sent(key: jax.Array, samples: int) -> np.ndarray:
  """Returns the order in which samples are sent, a permutation that the key draws."""
  return np.asarray(jax.random.permutation(jax.random.fold_in(key, 1), samples))


def online_code(
  trainer: ProbeTrainer,
  key: jax.Array,
  x_PID: np.ndarray,
  label_TI: np.ndarray,
  held_PID: np.ndarray,
  held_TI: np.ndarray,
) -> CodeLength:
  """Returns the online code length of labels.

  x_PID, label_TI      samples in any order
  held_PID, held_TI    held-out samples, which the parameters are chosen by, as early
                       stopping does in the paper

  Samples are sent in the random order of `sent`: in that of texts, the first portions
  would be of a text or two. One program trains the probes of all portions.
  """
  order_I = sent(key, label_TI.shape[1])
  x_PID, label_TI = x_PID[:, order_I], label_TI[:, order_I]
  ends = ends_of(label_TI.shape[1])
  bits = trainer.prediction.bits
  bits_PT = np.full((x_PID.shape[0], label_TI.shape[0]), ends[0] * bits)
  for start, stop in zip(ends, ends[1:], strict=False):
    params = trainer.fit(key, x_PID, label_TI, start, held_PID, held_TI)
    nats_PTI = trainer.nats(params, x_PID, label_TI)
    bits_PT = bits_PT + nats_PTI[:, :, start:stop].sum(axis=2) / np.log(2)
  return CodeLength(bits_PT, bits * label_TI.shape[1])
