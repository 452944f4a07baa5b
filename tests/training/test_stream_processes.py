"""Rows of a step are the same on 1, 2 and 4 real processes; each reads its own."""

import json
import os
import socket
import subprocess
import sys

import pytest

PROGRAM = """
import contextlib, json, sys
import jax
import numpy as np
address, processes, index = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if processes > 1:
  jax.distributed.initialize(address, processes, index)
from transformer_jax.data.stores import InMemory
from transformer_jax.data.windows import HostText
from transformer_jax.training import sharding, stream
from test_stream import SPECS, TEXT, trainer

places = []

class Noted(InMemory):
  def read(self, start_B, size):
    places.extend(start_B.tolist())
    return super().read(start_B, size)

arrays = {"train_N": HostText(Noted(TEXT)), "pieces": np.int32(30)}
mesh = sharding.make_mesh(data=4)
source = stream.TextStream(trainer(SPECS[sys.argv[4]]), arrays, (3,), mesh, 2, 1)
source._read(2)
read, rows = len(places), []
with source.from_step(4, contextlib.nullcontext) as ahead:
  ((window_SNBL, *_),) = next(ahead)
for shard in window_SNBL.addressable_shards:
  rows.append([shard.index[2].start, np.asarray(shard.data)[0].tolist()])
print(json.dumps({"rows": sorted(rows), "read": read}))
"""


def read(processes, spec):
  """Returns what each process has of the windows of steps 4 and 5."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  flags = os.environ["XLA_FLAGS"].replace("count=8", f"count={4 // processes}")
  started = [
    subprocess.Popen(
      [sys.executable, "-c", PROGRAM, address, str(processes), str(index), spec],
      env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)},
      stdout=subprocess.PIPE,
      text=True,
    )
    for index in range(processes)
  ]
  try:
    return [json.loads(each.communicate(timeout=120)[0]) for each in started]
  finally:
    for each in started:
      each.kill()


@pytest.mark.slow  # 40 s
@pytest.mark.parametrize("spec", ["text", "epochs"])
def test_rows_do_not_depend_on_the_number_of_processes(spec):
  (alone,) = read(1, spec)
  assert len(alone["rows"]) == 4
  for processes in (2, 4):
    found = read(processes, spec)
    assert sorted(row for each in found for row in each["rows"]) == alone["rows"]
    assert [each["read"] for each in found] == [alone["read"] // processes] * processes
