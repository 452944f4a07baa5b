"""Scores finished runs again: other lengths, another split or task, more examples.

  python -m experiments.evaluate --workdir=runs/quickstart --split=validation
  python -m experiments.evaluate --workdir=runs/quickstart --groups=text \\
    --lengths=1,16 --examples=512
  python -m experiments.evaluate --workdir=runs/quickstart --groups=copy \\
    --task='reverse(scored=8)'

Trains nothing and changes nothing that was trained: each evaluation has a folder in
runs/ID/evaluations/ and a group of its own in the report. The validation split is to
choose by, the test split to report. Exit code 0: all scored; 1: some are not; 2: bad
input.
"""

import collections
from collections.abc import Mapping
from pathlib import Path

import jax
from absl import flags

from experiments.analysis import TrainedRun, load_run
from experiments.evaluate import scoring
from experiments.evaluate.scoring import Scoring
from experiments.reporting import chosen_runs
from experiments.reporting.load import ReportError, read
from experiments.reporting.loaded_run import LoadedRun, Sweep
from experiments.runner import process, provenance, sweep_report
from experiments.runner.compile_cache import programs_in
from experiments.runner.locks import claim
from experiments.runner.saved_run import of_run
from experiments.setup.flag_errors import OF_SWEEP
from experiments.setup.flags import ALLOW
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.evaluation import example_scores
from transformer_jax.evaluation.splits import split_of
from transformer_jax.spec import trust
from transformer_jax.training.checkpoint import CheckpointError
from transformer_jax.training.json_files import FileError, write_json
from transformer_jax.training.progress import Progress
from transformer_jax.untrusted import shown

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help lists them under the command itself


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "Folder of the sweep, with sweep.json.")
  flags.DEFINE_list(
    "lengths", [], "Multiples of the training length, as in --lengths=1,16."
  )
  flags.DEFINE_string("split", "", "validation, to choose by, or test, to report.")
  flags.DEFINE_string(
    "task", "", "Another task, or other options, as in --task='passkey(depth=0.5)'."
  )
  flags.DEFINE_integer(
    "examples", 0, "Scored at each length; 0: as many as the run.", lower_bound=0
  )
  flags.DEFINE_list("groups", [], "Groups of the sweep, as in --groups=copy; all.")
  flags.DEFINE_bool("dry_run", False, "Say what would be scored; read no data.")
  flags.DEFINE_list("allow", [], ALLOW)


def main(argv: list[str]) -> int:
  """Scores the runs, writes the report, returns the exit code."""
  if argv[1:]:
    raise ConfigError(f"'{argv[1]}' is not a flag; write --workdir={argv[1]}")
  command.require(FLAGS, workdir="runs/quickstart")
  trust(FLAGS.allow)
  wanted = settings()
  workdir = Path(FLAGS.workdir).expanduser()
  runs = chosen(read(workdir), FLAGS.groups)
  cores = {run.fact("cores") for run in runs.values()}
  process.fix_cores(max(cores) if len(cores) == 1 and all(cores) else 0, [])
  process.check_platform()
  check(workdir, runs, wanted)
  if FLAGS.dry_run:
    return 0
  states = collections.Counter(score_all(workdir, runs, wanted))
  print(", ".join(f"{count} {state}" for state, count in states.items()), flush=True)
  written = sweep_report.report(workdir)
  return 0 if written and not states.keys() - {"scored", "scored before"} else 1


def settings() -> Scoring:
  """Returns what the flags say to score; raises ConfigError."""
  words = ",".join(FLAGS.lengths)
  if not all(word.isdigit() and int(word) for word in FLAGS.lengths):
    raise ConfigError(f"--lengths={words}: write multiples, as in --lengths=1,16")
  wanted = Scoring(
    lengths=tuple(sorted({*map(int, FLAGS.lengths)})),
    split=FLAGS.split,
    task=FLAGS.task,
    examples=FLAGS.examples,
  )
  if not wanted.label:
    raise ConfigError(
      "nothing to score: write --split=validation, --lengths, --task or --examples"
    )
  return wanted


def chosen(sweep: Sweep, groups: list[str]) -> dict[str, LoadedRun]:
  """Returns the finished runs of groups, by group and label; raises ConfigError.

  groups   [] for all
  """
  finished = chosen_runs.finished(sweep, groups)
  for run in chosen_runs.planned(sweep, groups):
    if not run.result:
      print(f"{run.group} {run.label}: {run.state}, not scored", flush=True)
  return {f"{run.group} {run.label}": run for run in finished}


def check(workdir: Path, runs: Mapping[str, LoadedRun], wanted: Scoring) -> None:
  """Prints what each run would be scored on; raises ConfigError with all problems."""
  problems = []
  for name, run in runs.items():
    folder = workdir / "runs" / run.id
    try:
      experiment = wanted.of(of_run(folder)[1])
    except ValueError as error:
      problems.append(f"{name}: {error}")
      continue
    if FLAGS.dry_run:
      evaluator, task = experiment.evaluator, wanted.task or run.config["task"]
      lengths = ", ".join(map(str, experiment.lengths))
      print(
        f"{name}: {evaluator.examples} examples of {task}, split"
        f" {split_of(evaluator)}, at the lengths {lengths}, into {wanted.file(folder)}",
        flush=True,
      )
  if problems:
    raise ConfigError(*problems)


def score_all(
  workdir: Path, runs: Mapping[str, LoadedRun], wanted: Scoring
) -> list[str]:
  """Scores the runs, one after another; returns the outcome of each."""
  facts, _ = provenance.facts()
  cores = f"cores_{process.cores()}" if jax.default_backend() == "cpu" else ""
  states = []
  with (
    programs_in(workdir.absolute() / "compiled" / cores),
    Progress(len(runs), "scored again") as bar,
  ):
    for done, (name, run) in enumerate(runs.items(), 1):
      try:
        states.append(_score(workdir / "runs" / run.id, wanted, facts))
      except (CheckpointError, FileError, OSError, ValueError) as error:
        print(shown(f"{name}: not scored: {error}"), flush=True)
        states.append("not scored")
      bar.update(done)
  return states


def _score(folder: Path, wanted: Scoring, facts: Mapping[str, object]) -> str:
  """Scores one run and writes the file; returns the outcome in words."""
  with claim(folder) as mine:
    if not mine:
      return "busy in another process"
    run: TrainedRun = load_run(folder)
    if scoring.is_scored(run, wanted):
      return "scored before"
    file = wanted.file(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    result, examples = scoring.score(run, wanted, file.parent)
    example_scores.write(file.parent, examples)
    write_json(file, {**result, "scored_with": dict(facts)})  # last: it counts
  return "scored"


if __name__ == "__main__":
  define()
  command.run(main, (ConfigError, ReportError, OSError), other_flags=OF_SWEEP)
