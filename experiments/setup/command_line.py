"""A parsed command line of run and sweep, and the shell command that repeats it."""

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.setup.config_file import short
from experiments.setup.host_flags import Hosts
from experiments.setup.launcher_flags import LOCAL
from experiments.setup.plan import Plan
from experiments.setup.profiled_steps import ProfiledSteps
from experiments.setup.tuning import Tune, parsed
from experiments.setup.validate import resolve


@dataclasses.dataclass(frozen=True)
class Request:
  """A parsed command line.

  path        the config file
  base        its config
  overrides   {flat key: value} from flags, which win
  plan        the config file's plan, by `plan_name`; None: it has none
  workdir     folder of the runs and the report
  dry_run     train nothing
  retry       also start runs whose process crashed repeatedly
  compile     in a dry run: read the data and compile
  plan_name   function of the config file that returns the plan
  groups      groups of the plan to run; (): all
  workers     processes that share the runs; 0: one for each core
  cores       CPU cores of each run; 0: one, or one for each device of its mesh
  allow       classes that train.init_from's config may name besides registered ones
  searched    words of --tune
  until       "resolved": add seeds where comparisons are not; "": train the plan's
  max_seeds   most seeds of a run then; None: looks.MOST
  hosts       other processes that train the same runs with this one
  profile     steps of a run that are traced; None: none are
  launcher    spec of the machines that work on the runs
  lease       seconds after which another machine takes over a run; 0: the default

  >>> from ml_collections import ConfigDict
  >>> rest = {"plan": None, "workdir": Path("runs"), "dry_run": False, "retry": False}
  >>> request = Request(Path("my.py"), ConfigDict(), {"train.steps": 50}, **rest)
  >>> request.command("run")
  'python -m experiments.run --config=my.py --config.train.steps=50'
  """

  path: Path
  base: ConfigDict
  overrides: Mapping[str, Any]
  plan: Plan | None
  workdir: Path
  dry_run: bool
  retry: bool
  compile: bool = False
  plan_name: str = "sweep"
  groups: tuple[str, ...] = ()
  workers: int = 1
  cores: int = 0
  allow: tuple[str, ...] = ()
  searched: tuple[str, ...] = ()
  until: str = ""
  max_seeds: int | None = None
  hosts: Hosts = Hosts()
  profile: ProfiledSteps | None = None
  launcher: str = LOCAL
  lease: float = 0.0

  @property
  def tune(self) -> Tune | None:
    """Returns the search of the command line, None without any; raises ConfigError."""
    return parsed(self.searched)

  def command(self, tool: str, workdir: bool = False) -> str:
    """Returns the shell command of the same request.

    tool      command of this package, as in "sweep"
    workdir   include --workdir, and --workers, --profile, --launcher, --lease and the
              flags of several hosts if they were chosen
    """
    flags = {} if self.plan_name == "sweep" else {"plan": self.plan_name}
    flags |= {"groups": ",".join(self.groups)} if self.groups else {}
    flags |= {"cores": str(self.cores)} if self.cores else {}
    flags |= {"workers": str(self.workers)} if self.workers and workdir else {}
    flags |= {"profile": str(self.profile)} if self.profile and workdir else {}
    if workdir:
      flags |= {"launcher": self.launcher} if self.launcher != LOCAL else {}
      flags |= {"lease": f"{self.lease:g}"} if self.lease else {}
      flags |= self.hosts.flags()
    flags |= {"until": self.until} if self.until else {}
    flags |= {"max_seeds": str(self.max_seeds)} if self.max_seeds else {}
    flags |= {"allow": ",".join(self.allow)} if self.allow else {}
    folder = self.workdir if workdir else None
    words = [("tune", word) for word in self.searched]
    return command(
      tool, self.path, self.overrides, workdir=folder, flags=[*flags.items(), *words]
    )

  @property
  def config(self) -> ConfigDict:
    """Returns the config file's config with the overrides."""
    return resolve(self.base, self.overrides)


def command(
  tool: str,
  path: Path,
  overrides: Mapping[str, Any],
  workdir: Path | None = None,
  flags: Iterable[tuple[str, str]] = (),
) -> str:
  """Returns the shell command of a config.

  tool        command of this package, as in "sweep"
  path        the config file
  overrides   {flat key: value}
  workdir     value of --workdir; None: the default
  flags       (name, value) of further flags
  """
  words = ["python", "-m", f"experiments.{tool}", f"--config={short(path)}"]
  words += [f"--workdir={workdir}"] if workdir else []
  words += [f"--{name}={value}" for name, value in flags]
  words += [f"--config.{key}={value}" for key, value in overrides.items()]
  return shlex.join(words)
