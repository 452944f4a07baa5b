"""Probes hidden states of finished runs, layer by layer.

  python -m experiments.probe --run=runs/quickstart --groups=text --label=position
  python -m experiments.probe --run=runs/text/runs/ID --label='distance(most=8)' \\
    --probe='mlp(hidden=64)' --mdl
  python -m experiments.probe --run=runs/brown/runs/ID --label=target

A probe is a small classifier that reads a label, such as the position of a token, from
the frozen states of one layer. It is trained on texts of the validation split, and
scored on those of the test split, with intervals over texts and seeds. Beside it stand
a probe of random labels (Hewitt and Liang, 2019), whose accuracy is less the more
selective a probe is, the same probe on models before training, and the most frequent
class. --mdl adds the length of the labels' code (Voita and Titov, 2020).

Labels: position, distance, length_so_far, next_token, next_set, target (a tagging
task's tags), one that the task makes (depth, carry, state), or module:Class.

Trains no model and changes no run. Writes NAME.md, .csv, .json, .png, .svg and .pdf
into the folder probes/ of the run or of the sweep, whose report then has the figure.
NAME has the label, the probe and each setting that is not its default.
Exit code 2: bad input.
"""

from pathlib import Path

from absl import flags

from experiments.setup.flag_errors import OF_SWEEP
from experiments.setup.flags import ALLOW
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.training.unusable import CheckpointError

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help lists them under the command itself


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("run", None, "Folder of a run, or of a sweep: all of its runs.")
  flags.DEFINE_list("groups", [], "Groups of a sweep, as in --groups=copy; all.")
  flags.DEFINE_list("labels", [], "Runs of a sweep by label, as in --labels=rope; all.")
  flags.DEFINE_string(
    "label", None, "What is probed, as in --label='distance(most=8)'."
  )
  flags.DEFINE_string("probe", "linear", "linear, or 'mlp(hidden=64)'.")
  flags.DEFINE_list("layers", [], "Names or numbers of states, 0: embedding; all.")
  flags.DEFINE_string("stack", "", "encoder or decoder, of a model that has both.")
  flags.DEFINE_integer("examples", 1000, "Texts to train on, and to score.", 2)
  flags.DEFINE_integer("samples", 20_000, "Most tokens of these.", 2)
  flags.DEFINE_integer("steps", 1000, "Updates of each probe, by learning rate.", 1)
  flags.DEFINE_integer("length", 0, "Of the texts; 0: that of training.", 0)
  flags.DEFINE_bool("extrapolate", False, "Allow a length beyond that of training.")
  flags.DEFINE_string("task", "", "Another task, whose texts the models read.")
  flags.DEFINE_string("texts", "validation", "Split to train probes on; or train.")
  flags.DEFINE_integer(
    "control",
    1,
    "Tokens of a type with a random label; 2: with the one before; 0: none.",
    0,
  )
  flags.DEFINE_bool("mdl", False, "Also compute code lengths: ten trainings more.")
  flags.DEFINE_bool("untrained", True, "Also probe models before their training.")
  flags.DEFINE_string("folder", "", "Folder of the results; FOLDER OF THE RUN/probes.")
  flags.DEFINE_list("allow", [], ALLOW)


def main(argv: list[str]) -> int:
  """Probes the runs, writes and prints the results, returns the exit code."""
  if argv[1:]:
    raise ConfigError(f"'{argv[1]}' is not a flag; write --label={argv[1]}")
  command.require(FLAGS, run="runs/quickstart", label="position")
  # JAX is imported after the flags are read.
  from experiments.probe import probe_runs
  from experiments.reporting import chosen_runs
  from experiments.reporting.probe_curves import FOLDER
  from experiments.reporting.probe_result import ProbeSettings
  from experiments.runner import process, sweep_report
  from transformer_jax.spec import trust

  trust(FLAGS.allow)
  process.check_platform()
  names = [field for field in ProbeSettings.__dataclass_fields__ if field in FLAGS]
  given = {name: getattr(FLAGS, name) for name in names}
  settings = ProbeSettings(**given | {"layers": tuple(FLAGS.layers)})
  run = Path(FLAGS.run).expanduser()
  folder = Path(FLAGS.folder).expanduser() if FLAGS.folder else run / FOLDER
  chosen = chosen_runs.folders(run, FLAGS.groups, FLAGS.labels, run.name)
  results = probe_runs.probed(chosen, settings)
  for path in probe_runs.write(results, chosen, folder):
    print(path, flush=True)
  if (run / "sweep.json").exists() and folder == run / FOLDER:
    return 0 if sweep_report.report(run) else 1
  return 0


if __name__ == "__main__":
  define()
  command.run(main, (CheckpointError, ValueError, OSError), other_flags=OF_SWEEP)
