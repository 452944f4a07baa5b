"""Norms of gradients by layer and by distance in time, at the start and after training.

  python -m experiments.gradients --workdir=runs/norms --by=layer
  python -m experiments.gradients --workdir=runs/recurrence --by=distance --groups=text

Each finished run of a sweep is read; its figures and their numbers go to gradients/ in
the sweep's folder. `layer`: the norm of the gradient of each layer's parameters, by the
training loss. `distance`: the norm of the gradient of the loss at a text's last target,
by the embedded token so many places before it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.setup.flag_errors import OF_SWEEP
from experiments.setup.flags import ALLOW
from experiments.setup.validate import ConfigError
from transformer_jax import command
from transformer_jax.training.unusable import CheckpointError

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help lists them under the command itself
BY = {"layer": "layer", "distance": "places before the last target"}
TIMES = {"start": "at the start", "trained": "after training"}


def define() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "Folder of a sweep: the one with sweep.json.")
  flags.DEFINE_enum("by", "layer", list(BY), "What gradients are measured by.")
  flags.DEFINE_list("groups", [], "Groups of the sweep; without it all of them.")
  flags.DEFINE_integer("examples", 32, "Scored examples that are differentiated.")
  flags.DEFINE_list("allow", [], ALLOW)


def main(argv: list[str]) -> None:
  """Writes the figures of each group, and prints where they are."""
  if argv[1:]:
    raise ConfigError(f"'{argv[1]}' is not a flag; write --workdir={argv[1]}")
  command.require(FLAGS, workdir="runs/norms")
  if FLAGS.examples < 2:
    raise ConfigError(f"--examples={FLAGS.examples}: write 2 or more")
  from experiments.runner.process import check_platform
  from transformer_jax.spec import trust

  trust(FLAGS.allow)
  check_platform()
  for path in draw(Path(FLAGS.workdir), FLAGS.by, FLAGS.groups, FLAGS.examples):
    print(path)


def draw(
  workdir: Path, by: str, groups: Sequence[str] = (), examples: int = 32
) -> Iterator[Path]:
  """Yields the files of a figure for each group, stack and time, as they are written.

  By layer an encoder and a decoder have a figure each.

  workdir    of the sweep
  by         layer or distance
  groups     of the sweep; (): all
  examples   of the scored split

  Raises ConfigError for a group that is not there, or without a finished run.
  """
  from experiments.reporting import chosen_runs, comparisons, style

  findings = comparisons.find(workdir)
  planned = chosen_runs.planned(findings.sweep, groups)
  looks = style.styles(findings)
  for group in dict.fromkeys(run.group for run in planned):
    done = chosen_runs.finished(findings.sweep, [group])
    curves: dict[tuple[str, str], dict[str, Any]] = {}
    for run in done:
      for key, curve in measured(workdir / "runs" / run.id, by, examples).items():
        curves.setdefault(key, {})[run.label] = curve
    several = len({stack for stack, _ in curves}) > 1
    for (stack, time), some in curves.items():
      name = f"{group} {stack}" if several else group
      yield from _write(workdir, _chart(some, by, name, time), looks)


def measured(
  folder: Path, by: str, examples: int
) -> dict[tuple[str, str], tuple[Any, Any]]:
  """Returns {(stack, time): (x of each point, norms [seeds, points])} of a run.

  The stack is "encoder" or "decoder", or "" by distance; the time "start" or "trained".

  folder     of the run
  by         layer or distance
  examples   of the scored split
  """
  import dataclasses

  import jax
  import jax.numpy as jnp
  import numpy as np

  from experiments.analysis import load_run
  from transformer_jax.analysis import gradient_flow

  run = load_run(folder)
  trainer, batch = run.experiment.trainer, run.batch(examples)
  seed_S = jnp.array(run.seeds, jnp.uint32)
  start = jax.jit(jax.vmap(trainer.init))(seed_S)
  trained = dataclasses.replace(start, params=jax.tree.map(jnp.asarray, run.stacked))

  def norms(state):
    return gradient_flow.BY[by](trainer, state, batch)

  compiled = jax.jit(jax.vmap(norms))
  by_time = {"start": compiled(start), "trained": compiled(trained)}
  found = {}
  for stack, names in _points(by_time["start"]).items():
    for time, by_name in by_time.items():
      norm_SX = np.stack([by_name[name] for name in names.values()], axis=1)
      some_X = ~np.isnan(norm_SX).all(axis=0)
      found[stack, time] = np.array([*names])[some_X], norm_SX[:, some_X]
  return found


def _points(names: Iterable[str]) -> dict[str, dict[int, str]]:
  """Returns {stack: {number: name}} of layers, or of distances.

  >>> _points(["decoder/layer_1", "decoder/layer_0", "encoder/layer_0"])["decoder"]
  {0: 'decoder/layer_0', 1: 'decoder/layer_1'}
  """
  found: dict[str, dict[int, str]] = {}
  for name in names:
    stack, _, last = name.rpartition("/")
    found.setdefault(stack, {})[int(last.removeprefix("layer_"))] = name
  return {stack: dict(sorted(some.items())) for stack, some in sorted(found.items())}


def _chart(curves: dict[str, Any], by: str, group: str, time: str) -> Any:
  """Returns the chart of a group's runs at one time."""
  from experiments.reporting import picture
  from experiments.reporting.line_curves import LineChart

  whole = {"layer": "the parameters of each layer", "distance": "an embedded token"}
  return LineChart(
    curves,
    x=BY[by],
    y="norm of the gradient",
    title=f"{group}: gradients by {by}, {TIMES[time]}",
    file=picture.file_name(f"gradients_by_{by}", group, time),
    caption=f"Norm of the gradient of {whole[by]}, {TIMES[time]}.",
    log=True,
  )


def _write(workdir: Path, chart: Any, looks: Any) -> Iterator[Path]:
  """Yields the files of a chart as they are written."""
  from experiments.reporting.line_curves import draw_curves
  from transformer_jax.training.json_files import replace_file

  folder = workdir / "gradients"
  picture = draw_curves(chart, looks)
  for ending, content in picture.files.items():
    path = folder / f"{picture.name}.{ending}"
    replace_file(path, content)
    yield path


if __name__ == "__main__":
  define()
  command.run(main, (CheckpointError, ValueError, OSError), other_flags=OF_SWEEP)
