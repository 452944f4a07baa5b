"""Stands for runner/worker_process.py: speaks its protocol and trains nothing.

DOES holds {encoding: what its run does}, TOLD is a file for what the parent said.
"""

import json
import os
import signal
import sys
from pathlib import Path


def send(**event):
  print(json.dumps(event), flush=True)


def note(text):
  with open(os.environ["TOLD"], "a") as told:
    print(text, file=told)


def work(name, waited):
  does = json.loads(os.environ["DOES"]).get(name.split()[-1], "finished")
  died = Path(os.environ["TOLD"]).with_name("died")
  if does == "die" or (does == "die once" and not died.exists()):
    died.touch()
    send(bar="begin", label=name, total=8, step=0)
    os.kill(os.getpid(), signal.SIGKILL)
  if does == "stop the parent":
    os.kill(os.getppid(), signal.SIGTERM)
    note(f"stop {json.loads(sys.stdin.readline())['stop']}")
    return "interrupted"
  if does == "busy" and not waited:
    return "busy"
  send(line="note: the data are short", error=False)
  send(bar="begin", label=name, total=8, step=0)
  send(bar="show", step=8, facts="loss 1.250")
  send(bar="end")
  return does if does == "failed" else "finished"


def main():
  blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
  note(f"blocked {sorted(map(int, blocked))}")
  while line := sys.stdin.readline():
    item = json.loads(line)
    if "run" in item:
      note(f"run {item['run']}")
      send(outcome=work(item["run"], item["waited"]))


if __name__ == "__main__":
  main()
