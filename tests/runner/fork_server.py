"""Commands in processes of their own, without seconds of imports for each of them.

`python fork_server.py` imports the libraries once and forks a child for each request, a
line of JSON; `Commands` is the other end. No child finds JAX started. Runs in one
folder share all their compiled programs, not only those that took a second.
"""

import dataclasses
import gc
import importlib
import io
import json
import os
import runpy
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = str(Path(__file__).parents[2])
# Neither a command, whose flags its child defines, nor what starts JAX.
LIBRARIES = (
  "experiments.runner.train", "experiments.reporting.length_curves",
  "experiments.inference", "experiments.runner.pretrained",
  "transformer_jax.interop", "transformer_jax.data.readers.tfds",
  # What commands import late: for figures, pages, logs and programs.
  "experiments.runner.sweep_loop", "experiments.reporting.page",
  "jaxlib.mlir.dialects.mhlo", "jinja2.tests", "matplotlib.backends.backend_agg",
  "matplotlib.backends.backend_svg", "matplotlib.figure", "tensorboardX.proto.api_pb2",
  "tensorboardX.proto.plugin_hparams_pb2",
)  # fmt: skip


@dataclasses.dataclass
class Done:
  """How a command ended: its exit code and the texts that it printed."""

  returncode: int
  stdout: str
  stderr: str


class Commands:
  """Starts modules and pieces of code as commands; `folder` holds their outputs."""

  def __init__(self, folder):
    keep_all = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    self._server = subprocess.Popen(
      [sys.executable, __file__],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env=os.environ | keep_all | {"PYTHONPATH": ROOT},
    )
    self._folder, self._count = folder, 0
    self._readers = ThreadPoolExecutor(8)

  def start(self, module="", *words, code="", cwd=".", out=None, environment=()):
    """Starts a command; returns what `wait` takes.

    code          Python to run instead of a module
    out           a file for both outputs; default: two files that `wait` reads
    environment   variables to set; None removes one
    """
    self._count += 1
    # Pipes: a command whose files take no more bytes must still be able to print.
    pipes = [self._folder / f"{self._count}.{end}" for end in ("out", "err")]
    pipes = [] if out else pipes
    for pipe in pipes:
      os.mkfifo(pipe)
    texts = [self._readers.submit(pipe.read_text, "utf-8") for pipe in pipes]
    env = {k: v for k, v in (os.environ | dict(environment)).items() if v is not None}
    request = {"module": module, "code": code, "words": words, "env": env}
    request |= {"cwd": str(cwd), "files": [str(file) for file in pipes or (out, out)]}
    return self._ask(request), texts

  def wait(self, started):
    """Waits for the end of a command."""
    child, texts = started
    code = self._ask({"wait": child})
    return Done(code, *([text.result() for text in texts] or ["", ""]))

  def run(self, *words, **how):
    """Starts a command and waits for its end."""
    return self.wait(self.start(*words, **how))

  def close(self):
    """Lets the server end."""
    self._server.communicate(timeout=60)

  def _ask(self, request):
    self._server.stdin.write(json.dumps(request) + "\n")
    self._server.stdin.flush()
    answer = self._server.stdout.readline()
    assert answer, "the server of commands has ended; its error is above"
    return int(answer)


def serve():
  """Imports the libraries, then forks a child for each line."""
  for name in LIBRARIES:
    importlib.import_module(name)
  gc.collect()
  gc.freeze()  # a child that ends would walk, and so copy, all that was imported
  requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
  while line := requests.readline():
    request = json.loads(line)
    if "wait" in request:
      _, status = os.waitpid(request["wait"], 0)
      print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
      continue
    with warnings.catch_warnings(action="ignore"):  # JAX warns, in case it had threads
      child = os.fork()
    if not child:
      return become(**request)
    print(child, file=answers, flush=True)
  return None


def become(module, code, words, env, cwd, files):
  """Makes this process the command."""
  os.environ.clear()
  os.environ.update(env)
  os.chdir(cwd)
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
  encoding = env.get("PYTHONIOENCODING", "utf-8")
  for number, file in enumerate(files, 1):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    stream = io.TextIOWrapper(
      open(number, "wb", closefd=False), encoding, write_through=number == 2
    )
    name = ("stdout", "stderr")[number - 1]
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)
  sys.path[:1] = [os.getcwd(), *env.get("PYTHONPATH", "").split(os.pathsep)]
  sys.argv = ["-c", *words]
  if code:
    exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
  else:
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
  """A server, for as long as tests need one."""
  server = Commands(tmp_path_factory.mktemp("commands"))
  try:
    yield server
  finally:
    server.close()


if __name__ == "__main__":
  serve()
