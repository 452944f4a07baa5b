"""The task `real_sum`: its texts are read by hand; digits as an objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.spec import SpecError
from transformer_jax.training.objectives import objectives
from transformer_jax.training.objectives.digits import decimals_of


def of_xval(x_L2):
  """Returns the numbers and their sum, from tokens and values."""
  numbers, sign, total = [], 1, 0
  for token, value in x_L2:
    if token == 0:
      numbers.append(round(float(value), 2))
      total += sign * numbers[-1]
    else:
      assert value == 1
      sign = {1: 1, 2: -1, 3: 0}[int(token)]
  return numbers, total


def of_digits(token_L):
  """Returns the numbers and their sum, from tokens: signs 10 11, then + - =."""
  numbers, sign, total, left = [], 1, 0, [*map(int, token_L)]
  while left:
    first, *left = left
    if first in (10, 11):
      text, left = "".join(map(str, left[:4])), left[4:]
      numbers.append((1 if first == 10 else -1) * int(text) / 100)
      total += sign * numbers[-1]
    else:
      sign = {12: 1, 13: -1, 14: 0}[first]
  return numbers, total


@pytest.mark.parametrize("form,read", [("xval", of_xval), ("digits", of_digits)])
def test_the_target_is_the_sum_of_what_is_written(form, read):
  task = tasks.build(f"real_sum(form='{form}')")
  draws = {
    "batch": (task.batch((), jax.random.key(0), 64, 8), 0, 8),
    "score": (task.score((), jax.random.key(0), 64, jnp.int32(8), 16), 4, 8),
  }
  for batch, least, most in draws.values():
    assert batch.input_BL.shape[1] == task.tokens(8) == batch.weight_BL.shape[1]
    sizes = []
    for row, target_LN in zip(batch.input_BL, batch.target_BL, strict=True):
      numbers, total = read(np.asarray(row))
      assert len(numbers) == 3
      assert float(target_LN[-1, 0]) == pytest.approx(total, abs=1e-4)
      sizes += map(abs, numbers)
    assert least < min(sizes) and max(sizes) <= most and max(sizes) > most - 0.5
    assert np.asarray(batch.weight_BL).sum(1).tolist() == [1] * 64
    assert np.asarray(batch.weight_BL)[:, -1].all()


def test_saying_zero_is_the_baseline():
  task = tasks.build("real_sum")
  batch = task.score((), jax.random.key(0), 20_000, jnp.int32(4), 4)
  total_B = np.asarray(batch.target_BL)[:, -1, 0]
  assert task.chance("mae", 4) == pytest.approx(np.abs(total_B).mean(), rel=0.03)
  assert task.chance("mse", 4) == pytest.approx(np.square(total_B).mean(), rel=0.03)
  assert task.chance("loss", 4) is None


def test_digits_are_those_that_python_writes():
  number_N = np.array([0.0, -0.05, 3.14, -12.5, 99.99, 12.346, 170.0])
  sign_N, digits_NK = decimals_of(jnp.float32(number_N), 2, 2)
  for number, sign, digits in zip(number_N, sign_N, digits_NK, strict=True):
    text = f"{min(abs(number), 99.99):05.2f}".replace(".", "")
    assert [*map(int, digits)] == [*map(int, text)] and sign == (number < 0)


def test_what_is_said_is_the_likeliest_digits():
  objective = objectives.build("digits")
  number_N = np.array([-12.34, 0.07, 99.99])
  sign_N, digits_NK = decimals_of(jnp.float32(number_N), 2, 2)
  hot = [jax.nn.one_hot(sign_N, 2), jax.nn.one_hot(digits_NK, 10).reshape(3, -1)]
  outputs_1NP = 9 * jnp.concatenate(hot, axis=1)[None]
  np.testing.assert_allclose(
    objective.predicted(outputs_1NP)[..., 0], number_N[None], rtol=1e-5
  )
  right = objective.number_losses(
    outputs_1NP[:, :, None], jnp.float32(number_N)[None, :, None]
  )
  assert (right < 0.1).all()
  flat = objective.number_losses(jnp.zeros((1, 1, 1, 42)), jnp.ones((1, 1, 1)))
  assert float(flat[0, 0, 0]) == pytest.approx(np.log(2) + 4 * np.log(10), rel=1e-5)


def test_bad_arguments():
  with pytest.raises(DataError, match="no form 'digit'. Did you mean 'digits'"):
    tasks.build("real_sum(form='digit')")
  with pytest.raises(DataError, match="numbers up to 128 have more than two digits"):
    tasks.build("real_sum").tokens(128)
  with pytest.raises(SpecError, match="7 at most together"):
    objectives.build("digits(integers=5, decimals=4)")
