"""The task `decision`: its data, its windows, and the scripted policies that play."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import of_model

import transformer_jax as tj
from transformer_jax.data.base import tasks
from transformer_jax.data.control import Policy, environments, policies
from transformer_jax.data.control.environments import play
from transformer_jax.data.files import DataError
from transformer_jax.data.tasks.control import decision_task
from transformer_jax.positions import positions
from transformer_jax.spec import SpecError
from transformer_jax.training.objectives import objectives

SMALL = "decision('CartPole-v1', episodes=3, observed=(0, 2))"


@pytest.fixture(scope="module")
def data():
  return tasks.build(SMALL), tasks.build(SMALL).load()


def returns(environment, policy, count=8):
  """Returns the returns of a policy's episodes."""
  rng, (_, actions) = np.random.default_rng(0), environments.sizes(environment)
  act = lambda observation_NS, reward_N: policy.act(rng, observation_NS, actions)
  return play(environment, act, range(count)).return_N


@pytest.mark.parametrize("name", [name for name in policies if name != "random"])
def test_every_policy_plays_better_than_at_random_and_worse_with_noise(name):
  for environment in policies[name].environments:
    best, noisy, random = (
      returns(environment, policy).mean()
      for policy in (
        policies[name](),
        policies[name](noise=0.5),
        policies.build("random"),
      )
    )
    assert best > noisy > random or (best > noisy and environment == "MountainCar-v0")


def test_episodes_are_those_of_copies_played_one_by_one():
  """A slow loop over one environment, by its own interface."""
  gymnasium, policy = environments.gymnasium(), policies.build("pd(gains=(0, 0, 1, 0))")
  rows = []
  for seed in (3, 4):
    one = gymnasium.make("CartPole-v1")
    observation, _ = one.reset(seed=seed)
    done, steps = False, []
    while not done:
      action = int(policy.actions(observation[None])[0])
      after, reward, ended, cut, _ = one.step(action)
      steps.append((observation, action, reward))
      observation, done = after, ended or cut
    rows.append(steps)
  found = play("CartPole-v1", lambda seen, _: policy.actions(seen), (3, 4))
  assert found.size_N.tolist() == [len(steps) for steps in rows]
  flat = [step for steps in rows for step in steps]
  np.testing.assert_array_equal(found.observation_TS, [x for x, _, _ in flat])
  np.testing.assert_array_equal(found.action_T, [x for _, x, _ in flat])
  left = [sum(r for _, _, r in steps[n:]) for steps in rows for n in range(len(steps))]
  np.testing.assert_array_equal(found.return_to_go_T, left)


def test_data_come_from_the_seed_alone_and_splits_differ(data):
  task, (arrays, facts) = data
  again, _ = dataclasses.replace(task).load()
  jax.tree.map(np.testing.assert_array_equal, arrays, again)
  other, _ = dataclasses.replace(task, seed=1).load()
  validation, _ = dataclasses.replace(task, split="validation").load()
  first = arrays["train"]["step_TC"][0]
  for different in (other["train"], arrays["scored"], validation["scored"]):
    assert not np.array_equal(first, different["step_TC"][0])
  assert facts["episodes"] == {"train": 12, "test": 4}
  mean_C = arrays["train"]["step_TC"].mean(0)
  np.testing.assert_allclose(mean_C[1:3], 0, atol=1e-4)
  np.testing.assert_allclose(arrays["train"]["step_TC"].std(0)[1:3], 1, atol=1e-4)


def test_a_window_is_consecutive_steps_of_one_episode(data):
  task, (arrays, _) = data
  train, K = arrays["train"], 5
  batch = jax.jit(lambda key: task.batch(arrays, key, 64, K))(jax.random.key(0))
  step_BL = np.asarray(batch.at.data["step_BL"])
  weight_BK = np.asarray(batch.weight_BL).reshape(64, K, 3)
  assert not weight_BK[..., [0, 2]].any() and (weight_BK[:, 0, 1] == 1).all()
  assert (weight_BK == 0).any(axis=(1, 2)).any()
  rows_T = [*map(bytes, train["step_TC"])]
  for row, steps, weight_K in zip(
    batch.input_BL, step_BL, weight_BK[..., 1], strict=True
  ):
    first = rows_T.index(bytes(np.asarray(row[0])))
    real = int(weight_K.sum())
    assert real == min(K, train["end_T"][first] - first)
    np.testing.assert_array_equal(row[:real], train["step_TC"][first : first + real])
    assert not np.asarray(row[real:]).any()
    assert steps[::3][:real].tolist() == [*range(steps[0], steps[0] + real)]
  assert batch.at.pos_BL[0].tolist() == [n // 3 for n in range(3 * K)]
  real_BK = np.asarray(batch.at.real_BL).reshape(64, K, 3)
  np.testing.assert_array_equal(real_BK, np.repeat(weight_BK[..., 1:2] > 0, 3, 2))


@pytest.mark.parametrize("position", ["rope", "t5", "learned(15)"])
def test_padding_that_counts_as_tokens_would_give_the_same_bits(data, position):
  task, (arrays, _) = data
  batch = task.batch(arrays, jax.random.key(0), 64, 5)
  assert not batch.at.real_BL.all()
  decoder = model(task, position, K=5)
  params = decoder.init(jax.random.key(0), *batch.reads)
  objective = objectives.build("cross_entropy")

  @jax.jit
  def slope(params, at):
    def loss(params):
      logits_BLV = decoder.apply(params, batch.input_BL, at)
      loss_BL, _ = objective.losses(logits_BLV, batch.target_BL, batch.weight_BL)
      return jnp.sum(loss_BL * batch.weight_BL)

    return jax.value_and_grad(loss)(params)

  steps_BK = batch.at.data["step_BL"][:, ::3]
  every = decision_task.step_coords(jnp.zeros((1, 1), jnp.int32), 5, steps_BK)
  found, want = slope(params, batch.at), slope(params, every)
  jax.tree.map(np.testing.assert_array_equal, found, want)


def test_the_same_actions_are_scored_at_every_length(data):
  task, (arrays, _) = data
  score = jax.jit(lambda n: task.score(arrays, jax.random.key(1), 20, n, 8))
  short, long = score(2), score(8)
  target = [np.asarray(x.target_BL)[np.asarray(x.weight_BL) > 0] for x in (short, long)]
  np.testing.assert_array_equal(*target)
  assert len(target[0]) == 20 and np.asarray(short.weight_BL)[:, -2].all()
  assert (np.asarray(short.at.real_BL).sum(1) <= 6).all()
  real_BK = np.asarray(long.at.real_BL)[:, ::3]
  place_B = np.asarray(long.at.data["step_BL"])[:, -1]
  assert real_BK.sum(1).tolist() == [min(8, place + 1) for place in place_B]
  order_BL = np.asarray(long.at.order_BL)
  assert all(row[row >= 0].tolist() == [*range((row >= 0).sum())] for row in order_BL)


def model(task, position, K=4):
  embedding = f"trajectory(state={task.state}, actions={task.vocabulary})"
  dims = tj.Dims(V=task.vocabulary, D=16, H=2, F=16, L=3 * K)
  return tj.Transformer(
    tj.Architecture(
      dims, position, decoders=1, embedding=embedding, tied=False, classes=2
    )
  )


def test_an_action_is_predicted_without_being_read(data):
  task, (arrays, _) = data
  batch = task.batch(arrays, jax.random.key(0), 4, 4)
  decoder = model(task, "rope")
  params = of_model(decoder, *batch.reads)
  apply = jax.jit(lambda x: decoder.apply({"params": params}, x, batch.at))
  other = batch.input_BL.at[:, 2, -1].set(1 - batch.input_BL[:, 2, -1])
  one, changed = (np.asarray(apply(x)) for x in (batch.input_BL, other))
  np.testing.assert_array_equal(one[:, :8], changed[:, :8])  # up to the observation
  assert np.abs(one[:, 8:] - changed[:, 8:]).max() > 1e-4


def test_every_encoding_reads_the_tokens_of_steps(data):
  task, (arrays, _) = data
  batch = jax.eval_shape(lambda key: task.batch(arrays, key, 2, 4), jax.random.key(0))
  for name in positions:
    encoding = positions.build(name)
    if {*encoding.ids} <= {"step_BL"}:
      decoder = model(task, encoding)
      params = jax.eval_shape(decoder.init, jax.random.key(0), *batch.reads)
      logits = jax.eval_shape(decoder.apply, params, *batch.reads)
      assert logits.shape == (2, 12, 2), name


def test_an_action_that_is_not_there_is_nan(data):
  task, _ = data
  decoder, steps = model(task, "none"), jnp.zeros((1, 4, 4))
  params = decoder.init(
    jax.random.key(0), steps, tj.positions.coords.consecutive(1, 12)
  )
  at = tj.positions.coords.consecutive(1, 12)
  assert np.isnan(decoder.apply(params, steps.at[0, 0, -1].set(2), at)).any()
  assert np.isfinite(decoder.apply(params, steps.at[0, 0, -1].set(1), at)).all()


OWN = """
import dataclasses
import numpy as np
from transformer_jax.data.control import Policy

@dataclasses.dataclass(frozen=True)
class Lean(Policy):
  def actions(self, observation_NS):
    return (observation_NS[:, 2] > 0).astype(int)
"""


def test_a_policy_of_your_own_plays(tmp_path, monkeypatch):
  (tmp_path / "lean.py").write_text(OWN)
  monkeypatch.syspath_prepend(tmp_path)
  task = tasks.build(
    "decision('CartPole-v1', policies=('lean:Lean(noise=0.5)', 'random'), episodes=2)"
  )
  _, facts = task.load()
  assert [*facts["returns"]] == ["Lean(0.5)", "random(1)", "data", "random"]
  assert issubclass(type(task.players[0]), Policy)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    (
      "decision('CartPole-v11')",
      "no environment 'CartPole-v11'. Did you mean 'CartPole",
    ),
    ("decision('Pendulum-v1')", "only discrete ones from 0 can be predicted"),
    ("decision('FrozenLake-v1')", "only vectors can be read"),
    ("decision('CartPole-v1', observed=(4,))", "have the numbers 0 to 3"),
    ("decision('CartPole-v1', policies=('momentum',))", "plays MountainCar-v0, not"),
    ("decision('CartPole-v1', policies=('pdd',))", "Did you mean 'pd'?"),
    (
      "decision('CartPole-v1', policies=('pd(noise=2)',))",
      "write a number from 0 to 1",
    ),
    ("decision('CartPole-v1', episodes=0)", "episodes is 0"),
    ("decision('CartPole-v1', split='train')", "Choose validation or test"),
  ],
)
def test_bad_input_is_refused_in_one_sentence(spec, says):
  with pytest.raises((DataError, SpecError)) as error:
    tasks.build(spec)
  assert says in str(error.value) and "\n" not in str(error.value)


def test_without_a_policy_or_without_gymnasium_it_says_what_to_write(monkeypatch):
  environments.gymnasium().register(
    "Other-v0", "gymnasium.envs.classic_control:CartPoleEnv"
  )
  with pytest.raises(DataError, match="no policy is written for 'Other-v0'; name some"):
    tasks.build("decision('Other-v0')")
  environments.gymnasium().registry.pop("Other-v0")
  environments.sizes.cache_clear()
  monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
  with pytest.raises(DataError, match="pip install 'gymnasium>=1.1'"):
    tasks.build("decision('CartPole-v1')")
