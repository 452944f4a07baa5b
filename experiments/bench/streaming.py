"""Memory and speed of streamed training text, for corpora of several sizes.

  python -m experiments.bench.streaming
  python -m experiments.bench.streaming --sizes=64 --folder=runs/streaming

For each size text is made, prepared as a corpus, and trained on from the host. Prints
the peak memory of both processes, the tokens/s that one core of the host reads and
those that a training step consumes. Made text is made once; --folder keeps it.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags

from transformer_jax import command
from transformer_jax.data.tasks.language.text import Text

MIB = 1 << 20
FILES = 32  # of a made text: all splits get some
WORDS = 50_000  # different ones in it
HEADER = ("text MiB", "prepare s", "prepare MiB", "train MiB", "waits", "read", "used")
FLAGS = flags.FLAGS


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("sizes", ["64", "512", "4096"], "Sizes of made text, in MiB.")
  flags.DEFINE_string(
    "folder", None, "Where made text and corpora stay; default: away."
  )


@dataclasses.dataclass(frozen=True)
class Finished:
  """A process that has ended.

  seconds    of wall time
  peak_mib   largest resident memory

  >>> Finished(seconds=2.5, peak_mib=310.0).seconds
  2.5
  """

  seconds: float
  peak_mib: float


def main(argv: list[str]) -> None:
  del argv
  with _folder(FLAGS.folder) as folder:
    print("".join(f"{name:>13}" for name in HEADER))
    for size in map(int, FLAGS.sizes):
      print("".join(f"{value:>13}" for value in measured(folder / str(size), size)))


@contextlib.contextmanager
def _folder(name: str | None) -> Iterator[Path]:
  if name:
    yield Path(name).absolute()
    return
  with tempfile.TemporaryDirectory() as temporary:
    yield Path(temporary)


def measured(folder: Path, size: int) -> tuple[str, ...]:
  """Returns a row of the table for a text of `size` MiB."""
  make_text(folder / "text", size)
  corpus = folder / "corpus"
  prepare = Finished(0, 0)
  if not corpus.exists():
    words = ["transformer_jax.data.prepare", str(folder / "text"), f"--corpus={corpus}"]
    prepare = finished(words)
  trained = finished(training(corpus, folder / "run"))
  (path,) = (folder / "run").glob("runs/*/result.json")
  result = json.loads(path.read_text())
  seconds = result["goodput"]["seconds"]
  waits = seconds["data"] / (seconds["data"] + seconds["steps"])
  return (
    f"{size}",
    f"{prepare.seconds:.0f}",
    f"{prepare.peak_mib:.0f}",
    f"{trained.peak_mib:.0f}",
    f"{waits:.1%}",
    f"{read_speed(corpus):,.0f}",
    f"{result['tokens_per_s']:,.0f}",
  )


def make_text(folder: Path, size: int) -> None:
  """Writes random words as FILES files, `size` MiB in all, unless they are there."""
  if folder.exists():
    return
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
  words = [bytes(rng.choice(letters, n)) for n in rng.integers(2, 10, WORDS)]
  for number in range(FILES):
    with open(folder / f"{number}.txt", "wb") as file:
      while file.tell() < size * MIB // FILES:
        some = rng.integers(0, WORDS, 50_000).tolist()
        file.write(b" ".join(words[n] for n in some) + b"\n")


def finished(words: list[str]) -> Finished:
  """Runs a command of this project to its end; raises RuntimeError if it fails."""
  start = time.perf_counter()
  process = subprocess.Popen(
    [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
  )
  assert process.stderr is not None
  error = process.stderr.read()
  _, status, usage = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise RuntimeError(error.decode(errors="replace")[-500:])
  return Finished(time.perf_counter() - start, usage.ru_maxrss / 1024)


def training(corpus: Path, workdir: Path) -> list[str]:
  """Returns the command of a short training on a streamed corpus."""
  keys = {"task": f"text('{corpus}')", "train.text": "streamed", "seeds": "(0,)"}
  keys |= {"train.steps": "400", "evaluate.examples": "128"}
  keys |= {"evaluate.lengths": "(1,)"}
  overrides = [f"--config.{key}={value}" for key, value in keys.items()]
  return ["experiments.run", f"--workdir={workdir}", *overrides]


def read_speed(corpus: Path, length: int = 1024, rows: int = 20_000) -> float:
  """Returns the tokens that one core reads in a second, in windows at random places."""
  store = Text(str(corpus)).load()[0]["train_N"].store
  last = store.sizes[0] - length - 1
  place_B = np.random.default_rng(0).integers(0, last, rows)
  start = time.process_time()
  store.read(place_B, length + 1)
  return rows * length / (time.process_time() - start)


if __name__ == "__main__":
  define()
  command.run(main, (ValueError, OSError, RuntimeError))
