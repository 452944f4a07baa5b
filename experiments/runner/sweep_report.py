"""Last step of a sweep: its report, written once by commands that share a folder."""

import sys
from pathlib import Path

import xxhash

from experiments.runner.locks import claim
from transformer_jax.training.json_files import replace_file
from transformer_jax.untrusted import shown


def report(workdir: Path, shared: bool = False) -> bool:
  """Writes and prints the report; returns False where that fails, with the reason.

  shared   other processes worked here: a report that one of them wrote since the last
           result is kept
  """
  from experiments.reporting import comparisons, page

  path = workdir / "report.html"
  try:
    with claim(workdir, wait=True):
      stamp, note = _stamp(workdir), workdir / ".reported"
      findings = comparisons.find(workdir)
      fresh = path.is_file() and note.is_file() and note.read_bytes() == stamp
      if not (shared and fresh):
        path = page.write_findings(findings)
        replace_file(note, stamp)
    page.print_findings(findings)
  except Exception as error:
    reason = shown(f"{type(error).__name__}: {error}")
    print(
      f"error: no report ({reason}); the runs are kept, try"
      f" python -m experiments.report --workdir={workdir}",
      file=sys.stderr,
    )
    return False
  print(f"report: {path}")
  return True


def _stamp(workdir: Path) -> bytes:
  """Returns a checksum of the files that a report depends on."""
  files = [workdir / "sweep.json", *sorted(workdir.glob("runs/*/status.json"))]
  digest = xxhash.xxh3_128()
  for file in files:
    digest.update(file.read_bytes() if file.is_file() else b"")
  return digest.hexdigest().encode()
