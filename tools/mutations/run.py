"""Mutation check of the tests: deliberate faults, and whether a quick test fails.

  python tools/mutations/run.py run after.json --jobs=2 --rooms=positions,models
  python tools/mutations/run.py run before.json --tree=../before --again
  python tools/mutations/run.py page before.json after.json

Each table `[[fault]]` in a file of this folder, one file for each room, is one fault:

  name    what goes wrong
  file    the file that holds it, from the root of the repository
  old     text that stands in that file exactly once
  new     what stands there instead
  tests   arguments of pytest: the tests that are likely to fail

`run` puts one fault after another into a copy of the tree, never into the tree itself,
runs its tests up to the first that fails, and adds the outcome to a JSON file. Faults
that are recorded there already are left out, unless `--again`. The outcomes are

  caught           a test failed, which is named
  survived         all tests passed, or none was selected
  does not apply   the old text is not there exactly once: the fault needs a new one

With `--like=before.json`, the test that caught a fault there is run first, by itself.
With `--widen`, where nothing fails, all of the files that `tests` names are run, then
the folders that hold them. At the end every test that caught a fault has to pass on the
copy without a fault; otherwise it proves nothing and the fault is called `unproved`.
`page` writes docs/results/mutations.md from the records of one tree or of two.
"""

import argparse
import concurrent.futures
import contextlib
import pathlib
import queue
import re
import shlex
import sys
import time
from collections.abc import Sequence

from faults import Fault, faults
from processes import copy_of, pytest, start
from records import Record, write_page

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "mutations.md"
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
NOTHING_RAN = 4, 5  # exit codes of pytest: no such test, none selected


def stages(tests: str, widen: bool, known: str) -> list[str]:
  """Returns the selections of tests to try, one after another.

  known   a test that caught the fault in another tree, or ""
  """
  words = shlex.split(tests)
  ends = words.index("-k") if "-k" in words else len(words)
  files = [word.partition("::")[0] for word in words[:ends]]
  folders = dict.fromkeys(str(pathlib.PurePosixPath(file).parent) for file in files)
  more = [shlex.join(files), shlex.join(folders)] if widen else []
  first = [shlex.quote(known)] if "::" in known else []
  return list(dict.fromkeys([*first, tests, *more]))


def outcome(
  fault: Fault, tree: pathlib.Path, tried: Sequence[str]
) -> dict[str, str | float]:
  """Returns what became of a fault in a copy of the tree, which stays as it was.

  tried   selections of tests, one after another
  """
  path, began = tree / fault.file, time.monotonic()
  before = path.read_bytes() if path.is_file() else b""
  state, test = "does not apply", ""
  if fault.put_into(tree):
    state = "survived"
    try:
      for tests in tried:
        code, output = pytest(tree, tests, True)
        if code not in (0, *NOTHING_RAN):
          named = FAILED.search(output)
          state, test = "caught", named[1] if named else f"pytest ended with {code}"
          break
    finally:
      path.write_bytes(before)
  seconds = round(time.monotonic() - began, 1)
  return {"room": fault.room, "file": fault.file, "state": state, "test": test} | {
    "seconds": seconds
  }


def run(arguments: argparse.Namespace) -> int:
  """Tries the faults and records the outcomes; returns 1 if one was not caught."""
  tree, record = arguments.tree.resolve(), Record(arguments.record)
  start()
  like = Record(arguments.like).results if arguments.like else {}
  record.began(tree)
  todo = faults(arguments.rooms, arguments.names)
  if not arguments.again:
    todo = [fault for fault in todo if fault.name not in record.results]
  free: queue.Queue[pathlib.Path] = queue.Queue()

  def one(fault: Fault) -> None:
    copy = free.get()
    known = like.get(fault.name, {}).get("test", "")
    tried = stages(fault.tests, arguments.widen, known)
    result = outcome(fault, copy, tried)
    free.put(copy)
    record.add(fault.name, result)
    print(
      f"{result['state']}: {fault.room}: {fault.name}  {result['test']}", flush=True
    )

  with contextlib.ExitStack() as stack:
    for _ in range(arguments.jobs):
      free.put(stack.enter_context(copy_of(tree)))
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
      list(pool.map(one, todo))
    prove(record, free.get(), [fault.name for fault in todo])
  named = [fault.name for fault in faults(arguments.rooms, arguments.names)]
  missed = [name for name in named if record.results[name]["state"] != "caught"]
  print(f"{len(named) - len(missed)} of {len(named)} faults are caught")
  return 1 if missed else 0


def prove(record: Record, tree: pathlib.Path, names: list[str]) -> None:
  """Runs the tests that caught a fault on a tree without one: they have to pass."""
  caught = {
    n: record.results[n] for n in names if record.results[n]["state"] == "caught"
  }
  tests = dict.fromkeys(x["test"] for x in caught.values() if "::" in x["test"])
  if not tests:
    return
  _, output = pytest(tree, shlex.join(tests), False)
  failing = {*FAILED.findall(output)}
  for name, result in caught.items():
    if result["test"] in failing:
      record.add(name, result | {"state": "unproved"})
      print(f"unproved: {name}: {result['test']} fails without the fault too")


def page(arguments: argparse.Namespace) -> int:
  """Writes the page of results."""
  write_page(arguments.out, [Record(path) for path in arguments.records])
  return 0


def _names(text: str) -> list[str]:
  return text.split(",")


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  commands = parser.add_subparsers(required=True)
  trying = commands.add_parser("run", help="try the faults")
  trying.set_defaults(function=run)
  trying.add_argument("record", type=pathlib.Path, help="JSON file of the outcomes")
  trying.add_argument("--tree", type=pathlib.Path, default=ROOT, help="a clone")
  trying.add_argument("--rooms", type=_names, default=(), help="names of .toml files")
  trying.add_argument("--names", type=lambda x: x.split(";"), default=(), help="a;b")
  trying.add_argument("--jobs", type=int, default=1, help="faults at a time")
  trying.add_argument("--again", action="store_true", help="also what is recorded")
  trying.add_argument("--like", type=pathlib.Path, help="JSON file of another tree")
  trying.add_argument("--widen", action="store_true", help="run neighbours too")
  writing = commands.add_parser("page", help="write the page of results")
  writing.set_defaults(function=page)
  writing.add_argument("records", type=pathlib.Path, nargs="+")
  writing.add_argument("--out", type=pathlib.Path, default=PAGE)
  arguments = parser.parse_args()
  return arguments.function(arguments)


if __name__ == "__main__":
  sys.exit(main())
