"""Search for the smallest slice of a chip that holds a run."""

from collections.abc import Callable

from experiments.estimating.chips import Topology, family

# Returns whether a slice holds the run; None: its devices do not fit the run's mesh.
Holds = Callable[[Topology], bool | None]


def smallest(asked: Topology, fits: Holds) -> Topology | None:
  """Returns the smallest slice of the chip that holds a run; None: none does.

  asked   a slice that was compiled for already

  A run that fits is assumed to fit on larger slices, so that few are compiled for.
  Slices whose devices do not fit the run's mesh are left out.
  """
  usable = family(asked.chip)
  first, last = 0, len(usable)  # the answer's place; last: there is none
  middle = usable.index(asked)
  while first < last:
    answer = fits(usable[middle])
    if answer is None:
      del usable[middle]
      last -= 1
    elif answer:
      last = middle
    else:
      first = middle + 1
    middle = (first + last) // 2
  return usable[first] if first < len(usable) else None
