#!/usr/bin/env python3
"""Stands for gcloud: writes down its words and plays a slice that is taken away.

GCLOUD is a file of its state: {"state", "waits", "ends", "calls"}. `ends` has the exit
codes of the command that it is asked to execute; 255 takes the slice away.
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
if "create" in words:
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
  now["state"] = "SUSPENDED" if code == 255 else now["state"]
file.write_text(json.dumps(now))
sys.exit(code)
