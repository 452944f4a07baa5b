"""Flags that say on which machines the runs of a sweep are worked on."""

from absl import flags as absl_flags

LOCAL = "local"


def define(values: absl_flags.FlagValues) -> None:
  """Defines the flags."""
  absl_flags.DEFINE_string(
    "launcher",
    LOCAL,
    "Machines of a sweep: local, or as in --launcher='ray(address=\"10.0.0.1:6379\")',"
    ' \'slurm(partition="gpu")\', \'tpu_vm(name="mine", type="v5litepod-8")\', or a'
    " class of your own as my_file:MyLauncher.",
    flag_values=values,
  )
  absl_flags.DEFINE_float(
    "lease",
    0.0,
    "Seconds without a sign of life after which another machine takes over a run;"
    " default 60. On one machine the death of a process is noticed at once.",
    lower_bound=0.0,
    flag_values=values,
  )
