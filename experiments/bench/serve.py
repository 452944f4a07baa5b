"""One process that prepares cases and times them on request: the measured side.

Requests and answers are lines of JSON, over stdin and the original stdout.
Needs the standard library alone: environments of other libraries load it too.
"""

import contextlib
import ctypes
import gc
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Prepares inputs and programs; returns a call that blocks, and its facts.
CaseMaker = Callable[..., tuple[Callable[[], Any], dict[str, Any]]]


def serve(
  cases: Mapping[str, CaseMaker], versions: Callable[[], dict[str, str]]
) -> None:
  """Answers requests until stdin ends."""
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # output of libraries must not mix with the answers
  ready: dict[str, Callable[[], Any]] = {}
  for line in sys.stdin:
    try:
      answer = _answer(json.loads(line), cases, versions, ready)
    except Exception as error:
      traceback.print_exc()
      first = str(error).strip().split("\n")[0][:300]
      answer = {"error": f"{type(error).__name__}: {first}"}
    print(json.dumps(answer), file=answers, flush=True)


def _answer(request, cases, versions, ready) -> dict[str, Any]:
  slot = request.get("slot")
  match request["do"]:
    case "versions":
      return {"python": platform.python_version(), **versions()}
    case "prepare":
      ready[slot], facts = cases[request["case"]](**request["args"])
      return facts
    case "time":
      return {"seconds": seconds(ready[slot])}
    case "first":
      return first(ready[slot])
    case "drop":
      del ready[slot]
      gc.collect()
      return {}
    case other:
      raise ValueError(f"no such request: {other}")


def seconds(run: Callable[[], Any]) -> float:
  """Returns how long one call takes."""
  gc.collect()
  start = time.perf_counter()
  run()
  return time.perf_counter() - start


def first(run: Callable[[], Any]) -> dict[str, Any]:
  """Returns seconds of one call and its peak memory beyond that before it, in bytes.

  Free memory is returned to the system first, or it would hide the call's memory; that
  makes the call a little slower than the later ones, which reuse their memory.
  """
  gc.collect()
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL(None).malloc_trim(0)
  try:
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest size so far
    before = _status("VmRSS")
    took = seconds(run)
    return {"seconds": took, "bytes": max(0, _status("VmHWM") - before)}
  except OSError:  # only Linux has it
    return {"seconds": seconds(run), "bytes": None}


def _status(name: str) -> int:
  """Returns a size that the kernel keeps of this process, in bytes."""
  lines = Path("/proc/self/status").read_text().splitlines()
  return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
