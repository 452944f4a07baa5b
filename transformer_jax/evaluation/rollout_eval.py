"""Rollouts: a trained decision model plays, conditioned on the return that is wanted.

Chen et al., 2021, section 3 and algorithm 1. https://arxiv.org/abs/2106.01345
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import global_arrays
from transformer_jax.data.control import environments
from transformer_jax.data.control.control_set import ControlSet
from transformer_jax.data.tasks.control.decision_task import KINDS, step_coords
from transformer_jax.evaluation.decode import highest
from transformer_jax.evaluation.task_evaluation import TaskEvaluation
from transformer_jax.training.json_files import plain

STARTS = 2021  # seed of the first states: the same ones for every model and target
LEVELS = 5  # target returns, where none are named


@dataclasses.dataclass(frozen=True, eq=False)
class Player:
  """A trained decision model in its environment.

  length   steps that it reads, the present one included
  place    puts rows on the devices

  >>> Player(model=None, params=None, length=20).length
  20
  """

  model: Any
  params: Any
  length: int
  place: Callable[[np.ndarray], jax.Array] = jnp.asarray

  def returns(
    self, control: ControlSet, target_N: np.ndarray, seeds: Sequence[int]
  ) -> np.ndarray:
    """Returns the return of an episode of each target and seed, all played at once.

    NaN where a logit of the episode was not a number.
    """
    memory = _Memory(self, control, target_N)
    played = environments.play(control.environment, memory.act, seeds)
    return np.where(memory.lost_N, np.nan, played.return_N)


class _Memory:
  """Steps of N episodes so far, and the return that each still has to earn.

  player     the model that acts
  target_N   returns that it is conditioned on
  """

  def __init__(self, player: Player, control: ControlSet, target_N: np.ndarray):
    self._player, self._control = player, control
    self._left_N = np.array(target_N, np.float64)
    width = 2 + len(control.observed)
    self._step_NKC = np.zeros((len(target_N), player.length, width), np.float32)
    self._step = 0
    self.lost_N = np.zeros(len(target_N), bool)

  def act(self, observation_NS: np.ndarray, reward_N: np.ndarray) -> np.ndarray:
    """Returns the most likely action of each episode, and remembers it."""
    self._left_N -= reward_N
    step_NKC, place = self._step_NKC, self._step
    if place >= step_NKC.shape[1]:
      step_NKC[:, :-1] = step_NKC[:, 1:].copy()
      place = step_NKC.shape[1] - 1
    step_NKC[:, place, 0] = self._left_N / self._control.scale
    step_NKC[:, place, 1:-1] = self._control.standard(observation_NS)
    step_NKC[:, place, -1] = 0  # comes after the observation, which does not attend it
    player, first = self._player, np.int32(self._step - place)
    chosen = _act(
      player.model, player.params, player.place(step_NKC), np.int32(place), first
    )
    action_N = global_arrays.read(chosen)
    self.lost_N |= action_N < 0
    action_N = np.maximum(action_N, 0)
    step_NKC[:, place, -1] = action_N
    self._step += 1
    return action_N


@functools.partial(jax.jit, static_argnums=0)
def _act(
  model: Any, params: Any, step_NKC: jax.Array, place: jax.Array, first: jax.Array
) -> jax.Array:
  """Returns the most likely action after the observation of a step; -1: undefined.

  place   of the step in the window, whose later steps are padding
  first   step of the episode with which the window begins
  """
  K = step_NKC.shape[1]
  at = step_coords(jnp.zeros((1, 1), jnp.int32), K, first + jnp.arange(K)[None])
  logits_NLV = model.apply({"params": params}, step_NKC, at)
  return highest(
    jax.lax.dynamic_index_in_dim(logits_NLV, KINDS * place + 1, 1, keepdims=False)
  )


@dataclasses.dataclass(frozen=True)
class RolloutEval(TaskEvaluation):
  """Evaluation by playing: the return under each of several target returns.

  most      episodes of each target; 0: none
  targets   returns that the model is conditioned on, growing; (): from the mean of
            random actions to the best of the data

  `return` is that of the highest target, `target_error` the mean distance of the
  return from the target.

  >>> RolloutEval(most=4).measures
  {'return': 'higher', 'target_error': 'lower'}
  """

  most: int = 16
  targets: tuple[float, ...] = ()

  kind: ClassVar[str] = "rollouts"
  measures: ClassVar[dict[str, str]] = {"return": "higher", "target_error": "lower"}
  file: ClassVar[str] = "rollouts.json"
  no_score: ClassVar[str] = "logits of an episode are not numbers"

  def agent(self, examples, model, params, length, place):
    return Player(model, params, length, place)

  def target_returns(self, control: ControlSet) -> tuple[float, ...]:
    """Returns the target returns, growing."""
    return self.targets or control.targets(LEVELS)

  def returns(self, control: ControlSet, player: Player) -> np.ndarray:
    """Returns return_TE of each target and episode; first states are those of E."""
    target_T = np.array(self.target_returns(control))
    seeds = starts(self.most)
    return_N = player.returns(
      control, np.repeat(target_T, self.most), seeds * len(target_T)
    )
    return return_N.reshape(len(target_T), self.most)

  def record(self, examples: ControlSet, agents: Sequence[Player]) -> dict[str, Any]:
    targets = self.target_returns(examples)
    returns = [self.returns(examples, player) for player in agents]
    random, data = (examples.returns[name] for name in ("random", "data"))
    floors = {"random actions": random[0], "the data": data[0], "its best": data[2]}
    scores = [_scores(return_TE, targets) for return_TE in returns]
    highest = [return_TE[-1] for return_TE in returns]
    version = environments.gymnasium().__version__
    return {
      "texts": self.most,
      "fingerprint": self._fingerprint(examples),
      "signatures": [f"{examples.environment}, gymnasium {version}"],
      "search": "the most likely action",
      "floors": {name: {"return": value} for name, value in floors.items()},
      "players": examples.returns,
      "scores": scores,
      "margins": [[_margin(return_E)] for return_E in highest],
      "below": [_below(own["return"], random[0]) for own in scores],
      "targets": list(targets),
      "curves": [plain(return_TE.mean(axis=1)) for return_TE in returns],
      "samples": [],
      "all": returns,
    }

  def _fingerprint(self, control: ControlSet) -> str:
    """Returns a hash of the environment, the targets and the first states."""
    facts = control.environment, self.target_returns(control), starts(self.most)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

  def lines(self, examples, made, seeds):
    targets = self.target_returns(examples)
    return [
      {"seed": seed, "target": target, "returns": plain(return_E)}
      for seed, return_TE in zip(seeds, made, strict=True)
      for target, return_E in zip(targets, return_TE, strict=True)
    ]


def starts(count: int) -> list[int]:
  """Returns the seeds of the first states of `count` episodes."""
  return np.random.SeedSequence(STARTS).generate_state(count).tolist()


def _scores(return_TE: np.ndarray, targets: Sequence[float]) -> dict[str, float | None]:
  """Returns the measures of one seed."""
  if np.isnan(return_TE).any():
    return dict.fromkeys(RolloutEval.measures)
  error = np.abs(return_TE.mean(axis=1) - np.array(targets)).mean()
  return {"return": float(return_TE[-1].mean()), "target_error": float(error)}


def _margin(return_E: np.ndarray) -> float | None:
  """Returns the half width of a 95% interval of the mean over episodes."""
  if np.isnan(return_E).any() or len(return_E) < 2:
    return None
  from scipy import stats

  t = stats.t.ppf(0.975, len(return_E) - 1)
  return float(t * return_E.std(ddof=1) / math.sqrt(len(return_E)))


def _below(value: float | None, floor: float) -> bool:
  return value is not None and value <= floor
