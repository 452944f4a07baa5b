#!/usr/bin/env python3
"""Stands for gcloud: writes down its words and plays a slice that is taken away.

GCLOUD is a file of its state: {"state", "ends", "calls", "fails", "offline"}. `ends`
has the exit codes of the command that it is asked to execute; 255 takes the slice away,
or, with `offline`, leaves it and says nothing of its state so many times. `fails` has
words of commands that fail.
"""

import json
import os
import sys
from pathlib import Path

file = Path(os.environ["GCLOUD"])
now = json.loads(file.read_text())
words = sys.argv[1:]
now["calls"].append(words)
code = 0
ran = any("experiments.sweep" in call[-1] for call in now["calls"])
if {*now["fails"]} & {*words}:
  code = 1
elif "describe" in words and ran and now["offline"]:
  now["offline"] -= 1
  code = 1
  print("ERROR: the server cannot be reached", file=sys.stderr)
elif "create" in words:
  now["state"] = "WAITING_FOR_RESOURCES"
elif "delete" in words:
  now["state"] = ""
elif "describe" in words:
  if not now["state"]:
    code = 1
    print("NOT_FOUND", file=sys.stderr)
  else:
    print(now["state"])
    if now["state"] == "WAITING_FOR_RESOURCES":
      now["state"] = "ACTIVE"
elif "ssh" in words and "experiments.sweep" in words[-1]:
  code = now["ends"].pop(0)
  now["state"] = "SUSPENDED" if code == 255 and not now["offline"] else now["state"]
file.write_text(json.dumps(now))
sys.exit(code)
