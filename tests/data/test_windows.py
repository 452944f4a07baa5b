"""Windows of a training text: starts of any size, epochs, mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.data import windows
from transformer_jax.data.index_shuffle import shuffled
from transformer_jax.data.stores import InMemory, Joined
from transformer_jax.data.windows import HostText, Mixture, Starts

KEY = jax.random.key(3)


class Huge:
  """A store of more tokens than 32 bits count, which is never read."""

  dtype = np.dtype(np.uint8)

  def __init__(self, *sizes):
    self.sizes = sizes


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1000])
def test_an_order_has_each_number_once_and_depends_on_its_key(size):
  every = jax.jit(jax.vmap(shuffled, (None, 0, None)))
  first, second = (every(jax.random.key(n), jnp.arange(size), size) for n in range(2))
  assert sorted(first.tolist()) == sorted(second.tolist()) == [*range(size)]
  assert size < 8 or first.tolist() != second.tolist()


def test_an_order_has_no_trend():
  """Neighbours are as far apart as in a random permutation: a third of the range."""
  order = np.asarray(jax.vmap(shuffled, (None, 0, None))(KEY, jnp.arange(4096), 4096))
  assert abs(np.abs(np.diff(order)).mean() / 4096 - 1 / 3) < 0.02
  assert abs(np.corrcoef(order, np.arange(4096))[0, 1]) < 0.05


def test_starts_of_an_array_are_those_that_published_runs_drew():
  text = jnp.arange(50)
  starts = windows.random_starts(text, KEY, 8, size=5)
  want_B1 = jax.random.randint(KEY, (8, 1), 0, 46)
  assert starts.on_device().tolist() == want_B1[:, 0].tolist()
  assert windows.read(text, starts, 5)[:, 0].tolist() == want_B1[:, 0].tolist()


def test_starts_on_the_host_are_those_on_the_device():
  text = Mixture(jnp.arange(90), (50, 40), (0.3, 0.7))
  rows = jnp.arange(64)
  for starts in (
    windows.random_starts(text, KEY, 64, size=5),
    windows.ordered_starts(text, KEY, rows, length=4),
  ):
    assert starts.on_host().tolist() == starts.on_device().tolist()


def test_random_bits_are_scaled_without_a_rounding():
  high = [0, 1, 2**31, 2**32 - 1, 0x12345678]
  low = [0, 2**32 - 1, 12345, 2**32 - 1, 0x9ABCDEF0]
  bits = np.array([*zip(high, low, strict=True)], np.uint32)
  for span in (3, 2**31 + 11, 2**40 - 1):
    starts = Starts(bits, np.zeros(5, np.int32), (7,), (span,))
    want = [7 + ((a << 32 | b) * span >> 64) for a, b in zip(high, low, strict=True)]
    assert starts.on_host().tolist() == want


def test_starts_reach_the_end_of_a_text_of_more_than_two_to_the_31_tokens():
  text = HostText(Huge(2**33))
  place_B = windows.random_starts(text, KEY, 4000, size=9).on_host()
  assert place_B.min() >= 0 and place_B.max() <= 2**33 - 9
  counts, _ = np.histogram(place_B, bins=8, range=(0, 2**33))
  assert (abs(counts - 500) < 5 * np.sqrt(500)).all()
  rows = jnp.arange(4000) + 10**6
  order_B = windows.ordered_starts(text, KEY, rows, length=2048).on_host()
  assert len({*order_B.tolist()}) == 4000 and order_B.max() > 2**32
  assert (order_B % 2048 == 0).all()


def test_an_epoch_has_each_window_once_and_the_next_another_order():
  text = jnp.arange(101)  # 20 windows of 5
  starts = windows.ordered_starts(text, KEY, jnp.arange(60), length=5)
  epochs = starts.on_device().reshape(3, 20).tolist()
  assert all(sorted(epoch) == [*range(0, 100, 5)] for epoch in epochs)
  assert epochs[0] != epochs[1] != epochs[2]


def test_a_mixture_in_epochs_has_its_shares_and_each_part_its_own_epochs():
  text = Mixture(jnp.arange(1000), (400, 600), (3.0, 1.0))
  starts = windows.ordered_starts(text, KEY, jnp.arange(4000), length=8)
  part_B, place_B = np.asarray(starts.part_B), np.asarray(starts.on_device())
  assert np.bincount(part_B).tolist() == [3000, 1000]
  for first in range(0, 4000, 100):  # in every short stretch too
    assert abs(np.bincount(part_B[first : first + 100])[0] - 75) <= 1
  assert ((place_B < 400) == (part_B == 0)).all()
  assert (place_B[part_B == 1] + 8 < 1000).all()
  ours = place_B[part_B == 0][: (400 - 1) // 8]
  assert len({*ours.tolist()}) == len(ours)  # one epoch of the first part


def test_a_random_mixture_has_its_shares_and_no_window_crosses_parts():
  text = Mixture(jnp.arange(1000), (400, 600), (3.0, 1.0))
  starts = windows.random_starts(text, KEY, 4000, size=9)
  place_B = np.asarray(starts.on_device())
  assert abs((place_B < 400).mean() - 0.75) < 0.03
  assert not ((place_B > 391) & (place_B < 400)).any() and place_B.max() <= 991


def test_weights_that_do_not_divide_are_apportioned():
  slots = np.bincount(windows._slots((1.0, 1.0, 1.0)))
  assert slots.sum() == windows.SLOTS and {*slots.tolist()} == {333, 334}


def test_parts_are_read_from_their_own_store():
  store = Joined([InMemory(np.arange(4)), InMemory(np.arange(10, 16))])
  window_BL = store.read(np.array([0, 8, 2, 4]), 2)
  assert window_BL.tolist() == [[0, 1], [14, 15], [2, 3], [10, 11]]
