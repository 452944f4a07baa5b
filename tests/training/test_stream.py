"""Training on a text that stays on the host equals training on the same array."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from transformer_jax.axes import Dims
from transformer_jax.data import windows
from transformer_jax.data.base import tasks
from transformer_jax.data.stores import InMemory, Joined
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.data.windows import HostText, Mixture
from transformer_jax.models import Architecture, Transformer
from transformer_jax.training import dispatch, loop, sharding, stream
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.step import Trainer

SEEDS, COUNT, LENGTH = (3, 4), 2, 6
TEXT = np.random.default_rng(0).integers(5, 30, 400).astype(np.uint8)
TEXT[::23] = tokenizers.build("byte").end
BYTES = "tokenizer='byte'"
SPECS = {
  "text": "text",
  "epochs": "text(order='epochs')",
  "packed": f"tokens({BYTES}, packed=True)",
  "nsp": f"masked({BYTES}, nsp=True)",
  "spans": "spans(tokenizer='byte(sentinels=9)')",
}


def trainer(spec):
  task = tasks.build(spec)
  encoders = {"encoder": 1, "encoder_decoder": 1}.get(task.kind, 0)
  decoders = 0 if task.kind == "encoder" else 1
  dims = Dims(V=task.vocabulary, D=8, H=2, F=8, L=task.tokens(LENGTH))
  arch = Architecture(dims, position="rope", encoders=encoders, decoders=decoders)
  rate = optax.constant_schedule(1e-2)
  return Trainer(
    Transformer(arch),
    task,
    optax.adam(rate),
    rate,
    batch_size=4,
    length=LENGTH,
    planned=8,
  )


def arrays_with(text):
  return {"train_N": text, "pieces": np.int32(30)}


def trained(spec, text, mesh=None, start=0, state=None, dispatches=2):
  mesh = mesh or sharding.make_mesh()
  arrays = sharding.whole(mesh, arrays_with(text))
  program = dispatch.compile_steps(trainer(spec), SEEDS, arrays, mesh, COUNT)
  state, losses = state or program.init(), []
  with program.windows_from(start) as ahead:
    for _ in range(dispatches):
      state, metrics = program(arrays, state, next(ahead))
      losses.append(np.asarray(metrics["loss"]))
  return state, np.concatenate(losses, axis=1)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_streamed_text_trains_to_the_same_bits(spec):
  resident, losses_SN = trained(spec, TEXT)
  streamed, streamed_SN = trained(spec, HostText(InMemory(TEXT)))
  np.testing.assert_array_equal(losses_SN, streamed_SN)
  jax.tree.map(np.testing.assert_array_equal, resident.params, streamed.params)
  assert (losses_SN[0] != losses_SN[1]).all()  # each seed has a stream of its own


def test_a_mixture_trains_to_the_same_bits():
  parts = InMemory(TEXT[:150]), InMemory(TEXT[150:])
  weights = (0.25, 0.75)
  _, resident_SN = trained("text", Mixture(TEXT, (150, 250), weights))
  _, streamed_SN = trained("text", HostText(Joined(parts), weights))
  np.testing.assert_array_equal(resident_SN, streamed_SN)


@pytest.mark.parametrize(
  "spec", [SPECS["text"], SPECS["epochs"]], ids=["any", "epochs"]
)
def test_a_stream_from_a_later_step_goes_on_with_the_same_windows(spec):
  text = HostText(InMemory(TEXT))
  _, whole_SN = trained(spec, text, dispatches=3)
  state, _ = trained(spec, text, dispatches=1)
  _, rest_SN = trained(spec, text, start=COUNT, state=state, dispatches=2)
  np.testing.assert_array_equal(whole_SN[:, COUNT:], rest_SN)


def test_steps_in_epochs_read_each_window_once():
  """66 windows of 6 tokens, in rows of 4: 33 steps are two epochs."""
  text = HostText(InMemory(TEXT))
  arrays, mesh = arrays_with(text), sharding.make_mesh()
  source = stream.TextStream(trainer(SPECS["epochs"]), arrays, SEEDS, mesh, 3, 1)
  places = [source._plan(dispatch)[0][0].reshape(-1) for dispatch in range(11)]
  epochs = np.concatenate(places).reshape(2, 66).tolist()
  assert all(sorted(epoch) == [*range(0, 396, 6)] for epoch in epochs)
  assert epochs[0] != epochs[1]


def test_what_is_planned_at_once_changes_no_window(monkeypatch):
  def places(planned):
    monkeypatch.setattr(stream, "PLANNED", planned)
    arrays = arrays_with(HostText(InMemory(TEXT)))
    mesh = sharding.make_mesh()
    source = stream.TextStream(trainer("text"), arrays, SEEDS, mesh, COUNT, 1)
    return [source._plan(dispatch)[0].tolist() for dispatch in (0, 2, 1, 4, 5)]

  assert places(2) == places(16)


def test_windows_do_not_depend_on_the_devices_that_read_them():
  text = HostText(InMemory(TEXT))

  def rows(data):
    mesh = sharding.make_mesh(data=data)
    arrays = arrays_with(text)
    program = dispatch.compile_steps(trainer("text"), SEEDS, arrays, mesh, COUNT)
    with program.windows_from(4) as ahead:
      return jax.device_get(next(ahead)), next(ahead)

  (first, later), (split, split_later) = rows(1), rows(4)
  jax.tree.map(np.testing.assert_array_equal, first, split)
  jax.tree.map(np.testing.assert_array_equal, later, split_later)
  (window, *_), *_ = split_later
  assert {shard.data.shape for shard in window.addressable_shards} == {(1, 2, 1, 7)}


def test_each_device_gets_the_rows_that_it_trains_on():
  """Only windows of its own rows are read for a device."""
  places = []

  class Noted(InMemory):
    def read(self, start_B, size):
      places.extend(start_B)
      return super().read(start_B, size)

  program = dispatch.compile_steps(
    trainer("text"),
    (3,),
    arrays_with(HostText(Noted(TEXT))),
    sharding.make_mesh(data=2),
    1,
  )
  source = program.stream
  of_read = source._of_read(source._plan(0)[0], source._shapes[0])
  assert sorted(x.shape for x in of_read.values()) == [(1, 1, 2, 7)] * 2
  assert len(places) == 4


def test_a_reader_that_fails_ends_training_with_its_own_error(tmp_path):
  class Broken(InMemory):
    def read(self, start_B, size):
      raise ValueError("a file of the corpus is damaged")

  program = dispatch.compile_steps(
    trainer("text"),
    (3,),
    arrays_with(HostText(Broken(TEXT))),
    sharding.make_mesh(),
    COUNT,
  )
  fit = functools.partial(
    loop.fit, program, {}, loop.Budget(4, COUNT, 4), report=print, resumed=print, stop=0
  )
  with Keeper(tmp_path) as keeper, pytest.raises(ValueError, match="is damaged"):
    fit(keeper=keeper)


def test_a_document_is_separate_in_a_packed_row():
  task = tasks.build(SPECS["packed"])
  end = tokenizers.build("byte").end
  text = np.array([7, 8, end, 9, 10, 11, end, 12], np.int32)
  at0 = windows.Starts(np.zeros(1, np.int32), np.zeros(1, np.int32), (0,), (1,))
  batch = task._windows({"train_N": text}, at0, 7)
  assert batch.at.segment_BL.tolist() == [[1, 1, 1, 2, 2, 2, 2]]
  assert batch.at.pos_BL.tolist() == [[0, 1, 2, 0, 1, 2, 3]]
  assert batch.weight_BL.tolist() == [[1, 1, 0, 1, 1, 1, 0]]
  assert dataclasses.replace(task, packed=False).batch(
    {"train_N": text}, jax.random.key(0), 1, 7
  ).weight_BL.tolist() == [[1.0] * 7]
