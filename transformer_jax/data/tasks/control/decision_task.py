"""Decision Transformer: control as the prediction of actions. Chen et al., 2021.

https://arxiv.org/abs/2106.01345
"""

import dataclasses
import functools
import pathlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.base import (
  MANY,
  Batch,
  Task,
  TaskData,
  check_fitted,
  check_sizes,
  check_split,
  shape,
  tasks,
)
from transformer_jax.data.control import environments, policies
from transformer_jax.data.control.control_set import ControlSet
from transformer_jax.data.control.environments import Episodes
from transformer_jax.data.files import SPLITS, DataError
from transformer_jax.data.tasks.algorithmic.permutation import each_once
from transformer_jax.positions.coords import Coords

NOISES = (0.25, 0.5, 0.75)  # of the scripted policies, where the task names none
KINDS = 3  # tokens of a step: its return-to-go, its observation, its action
HELD_OUT = 5  # training episodes for each one of another split


@tasks.register("decision")
@dataclasses.dataclass(frozen=True)
class Decision(Task):
  """Prediction of the next action; the length is the number of steps, K.

  Each step of an episode is three tokens, which share one position: the return-to-go
  (the sum of the rewards from here on), the observation and the action, which is
  predicted from the observation. Conditioned on a high return, the model acts as the
  data do where they earn one. Episodes are played by scripted policies in copies of the
  environment, from `seed` alone. The model needs
  `model.embedding=trajectory(state=..., actions=...)` with the sizes of the task.

  Coordinates hold `step_BL`, the step of each token in its episode.

  environment   Gymnasium id, with observations that are vectors and discrete actions
  policies      specs of the policies that play, each as often; (): that of this
                environment with three amounts of noise, and random actions
  episodes      of each policy, in training; a fifth as many in the scored split
  seed          of first states and of random actions
  observed      indices of the observation that the model reads; (): all. Without
                speeds, as in (0, 2) of CartPole-v1, earlier steps must tell them
  split         the scored split: 'test' or 'validation'

  >>> task = tasks.build("decision('CartPole-v1', episodes=5, observed=(0, 2))")
  >>> task.vocabulary, task.state, task.tokens(20)
  (2, 2, 60)
  >>> [policy.noise for policy in task.players]
  [0.25, 0.5, 0.75, 1.0]
  """

  environment: str = "CartPole-v1"
  policies: tuple[str, ...] = ()
  episodes: int = 50
  seed: int = 0
  observed: tuple[int, ...] = ()
  split: str = "test"

  kind: ClassVar[str] = "decoder"
  measures: ClassVar[tuple[str, ...]] = ("accuracy",)
  generation: ClassVar[Any] = "rollouts"

  def __post_init__(self):
    check_split("decision", self.split)
    check_sizes("decision", episodes=self.episodes)
    named = self._named  # whose files may register the environment
    size, _ = environments.sizes(self.environment)
    for index in self.observed:
      if not 0 <= index < size:
        raise DataError(
          f"decision: observed has {index}, and observations of '{self.environment}'"
          f" have the numbers 0 to {size - 1}"
        )
    for policy in named:
      if policy.environments and self.environment not in policy.environments:
        raise DataError(
          f"decision: the policy {policies.name_of(policy)} plays"
          f" {', '.join(policy.environments)}, not '{self.environment}'"
        )
    self.players  # noqa: B018, raises where there are none

  @functools.cached_property
  def _named(self) -> tuple[Any, ...]:
    """The policies that the task names."""
    return tuple(policies.build(spec) for spec in self.policies)

  @functools.cached_property
  def players(self) -> tuple[Any, ...]:
    """The policies that play: those that are named, else those of the environment."""
    if self._named:
      return self._named
    kinds: list[Any] = [*policies.values()]
    own = [kind for kind in kinds if self.environment in kind.environments]
    if not own:
      raise DataError(
        f"decision: no policy is written for '{self.environment}'; name some, as in"
        " policies=('my_file:MyPolicy(noise=0.5)', 'random')"
      )
    return (*(own[0](noise=noise) for noise in NOISES), policies.build("random"))

  @property
  def vocabulary(self) -> int:
    return environments.sizes(self.environment)[1]

  @property
  def classes(self) -> int:
    return self.vocabulary

  @property
  def state(self) -> int:
    """Numbers of an observation that the model reads."""
    return len(self._observed)

  @property
  def _observed(self) -> tuple[int, ...]:
    return self.observed or tuple(range(environments.sizes(self.environment)[0]))

  def tokens(self, length: int) -> int:
    return KINDS * length

  def example(self, length: int) -> jax.Array:
    """Returns steps [1, K, 2 + S] of zeros: return-to-go, observation, action."""
    return jnp.zeros((1, length, 2 + self.state))

  def load(self) -> TaskData:
    """Returns the steps of the train and the scored split, facts, and a ControlSet.

    Each split has step_TC (return-to-go, observation and action, as the model reads
    them), action_T, and place_T, first_T and end_T: the step in its episode, and where
    in the array its episode begins and ends.
    """
    found = {split: self._play(split) for split in ("train", self.split)}
    whole = {split: environments.joined(parts) for split, parts in found.items()}
    control = self._control_set(found["train"], whole["train"])
    arrays = {
      name: self._arrays(whole[split], control)
      for name, split in (("train", "train"), ("scored", self.split))
    }
    facts = {
      "episodes": {split: len(each.size_N) for split, each in whole.items()},
      "steps": {split: len(each.action_T) for split, each in whole.items()},
      "returns": control.returns,
    }
    return TaskData(arrays, facts, control)

  def _play(self, split: str) -> tuple[Episodes, ...]:
    """Returns the episodes of each policy, played from seeds of the split."""
    least = -(-self.episodes // HELD_OUT)
    count = self.episodes if split == "train" else least
    return _played(self.environment, self.players, count, self.seed, split)

  def _control_set(self, parts: tuple[Episodes, ...], whole: Episodes) -> ControlSet:
    """Returns statistics of the training episodes."""
    observed_TS = whole.observation_TS[:, list(self._observed)]
    names = [f"{policies.name_of(x)}({x.noise:g})" for x in self.players]
    idle = policies.build("random")
    key = self.environment, (idle,), self.episodes, self.seed
    random = _played(*key, "validation" if self.split == "test" else "test")[0]
    players = dict(zip(names, parts, strict=True)) | {"data": whole, "random": random}
    returns = {name: _summary(each.return_N) for name, each in players.items()}
    return ControlSet(
      self.environment,
      self._observed,
      observed_TS.mean(axis=0),
      np.maximum(observed_TS.std(axis=0), 1e-6),
      float(np.abs(whole.return_N).max()) or 1.0,
      returns,
    )

  def _arrays(self, episodes: Episodes, control: ControlSet) -> dict[str, np.ndarray]:
    end_T = np.repeat(episodes.end_N, episodes.size_N)
    first_T = np.repeat(episodes.end_N - episodes.size_N, episodes.size_N)
    return_T = episodes.return_to_go_T / np.float32(control.scale)
    action_T = episodes.action_T
    columns = return_T, control.standard(episodes.observation_TS), action_T
    places_T = np.arange(len(action_T)) - first_T
    places = {"place_T": places_T, "first_T": first_T, "end_T": end_T}
    return {
      "step_TC": np.column_stack(columns).astype(np.float32),
      "action_T": action_T,
      **{name: x_T.astype(np.int32) for name, x_T in places.items()},
    }

  def abstract(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    names = ("action_T", "place_T", "first_T", "end_T")
    split = {name: shape(MANY) for name in names}
    split["step_TC"] = shape(MANY, 2 + self.state, dtype=jnp.float32)
    return {"train": split, "scored": split}

  def keep(self, folder: pathlib.Path, fitted: ControlSet) -> None:
    """Saves how observations and returns are scaled. Raises DataError if it differs."""
    check_fitted(self, fitted, ControlSet)
    fitted.save(folder)

  def generation_set(self, fitted: ControlSet) -> ControlSet:
    """Returns the problem, which a trained model plays."""
    check_fitted(self, fitted, ControlSet)
    return fitted

  def available(self, arrays: Any) -> int:
    """Returns the number of steps of the scored split."""
    return len(arrays["scored"]["action_T"])

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns windows of steps that begin anywhere, padded on the right.

    Arguments are those of `Task.batch`. An action counts if its episode has it.
    """
    data = arrays["train"]
    T = data["action_T"].shape[0]
    start_B1 = jax.random.randint(key, (batch_size, 1), 0, T)
    at_BK = start_B1 + jnp.arange(length)
    inside_BK = at_BK < jnp.asarray(data["end_T"])[start_B1]
    # Nothing attends to padding on the right; losses and metrics of tokens see none.
    return _batch(data, at_BK, inside_BK, inside_BK, jnp.zeros((1, 1), jnp.int32))

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns windows of the last `length` steps before an action, which counts.

    Arguments are those of `Task.score`. The action is the same at every length. Windows
    are aligned right; they are shorter where the episode is.
    """
    data = arrays["scored"]
    last_B1 = each_once(key, data["action_T"].shape[0], batch_size)[:, None]
    at_BK = last_B1 - bucket + 1 + jnp.arange(bucket)
    first_B1 = jnp.maximum(jnp.asarray(data["first_T"])[last_B1], last_B1 - length + 1)
    inside_BK = at_BK >= first_B1
    absent_B1 = first_B1 - (last_B1 - bucket + 1)
    return _batch(data, at_BK, inside_BK, at_BK == last_B1, absent_B1)


def interleaved(x_BK: jax.Array) -> jax.Array:
  """Returns x_BL, in which the three tokens of a step have the value of the step."""
  return jnp.repeat(x_BK, KINDS, axis=1)


def step_coords(
  absent_B1: jax.Array,
  steps: int,
  place_BK: jax.Array,
  inside_BK: jax.Array | None = None,
) -> Coords:
  """Returns coordinates of the tokens of steps; those of one step share a position.

  absent_B1   steps on the left that are padding
  steps       K, padding included
  place_BK    the step in its episode, the id `step_BL`
  inside_BK   False: the step is padding too; None: no other is
  """
  order_BL = jnp.arange(KINDS * steps) - KINDS * absent_B1
  pos_BL = jnp.maximum(order_BL, 0).astype(jnp.int32) // KINDS
  inside_BL = True if inside_BK is None else interleaved(inside_BK)
  order_BL = jnp.where((order_BL >= 0) & inside_BL, order_BL, -1).astype(jnp.int32)
  real_BL = (order_BL >= 0).astype(jnp.int32)
  return Coords(order_BL, pos_BL, order_BL, real_BL, {"step_BL": interleaved(place_BK)})


def _batch(
  data: Any,
  at_BK: jax.Array,
  inside_BK: jax.Array,
  counts_BK: jax.Array,
  absent_B1: jax.Array,
) -> Batch:
  """Returns the batch of some steps.

  data        arrays of a split
  at_BK       indices of the steps
  inside_BK   whether the window has the step; others are padding, of zeros
  counts_BK   whether its action is a target
  absent_B1   steps of padding on the left
  """
  at_BK = jnp.where(inside_BK, at_BK, 0)

  def read(name):
    x = jnp.asarray(data[name])[at_BK]
    inside = inside_BK[..., None] if x.ndim == 3 else inside_BK
    return jnp.where(inside, x, 0)

  observation_L = jnp.arange(KINDS * at_BK.shape[1]) % KINDS == 1
  target_BL = jnp.where(observation_L, interleaved(read("action_T")), 0)
  weight_BL = jnp.where(observation_L, interleaved(counts_BK & inside_BK), 0.0)
  at = step_coords(absent_B1, at_BK.shape[1], read("place_T"), inside_BK)
  return Batch(read("step_TC"), target_BL, weight_BL.astype(jnp.float32), at)


def _summary(return_N: np.ndarray) -> list[float]:
  """Returns mean, standard deviation and best."""
  return [float(return_N.mean()), float(return_N.std()), float(return_N.max())]


@functools.lru_cache(maxsize=8)  # runs of a sweep share their data
def _played(
  environment: str, players: tuple[Any, ...], count: int, seed: int, split: str
) -> tuple[Episodes, ...]:
  """Returns `count` episodes of each policy."""
  _, actions = environments.sizes(environment)

  def episodes(n: int, policy: Any) -> Episodes:
    sequence = np.random.SeedSequence([seed, SPLITS.index(split), n])
    rng = np.random.default_rng(sequence.spawn(1)[0])

    def act(observation_NS: np.ndarray, reward_N: np.ndarray) -> np.ndarray:
      return policy.act(rng, observation_NS, actions)

    return environments.play(environment, act, sequence.generate_state(count).tolist())

  return tuple(episodes(n, policy) for n, policy in enumerate(players))
