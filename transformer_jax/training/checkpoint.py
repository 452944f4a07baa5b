"""Checkpoints verified when read: a thin class around Orbax.

Orbax writes atomically and in the background, and restores to any mesh. It does not
detect a flipped bit, never falls back to an older step, and reports a failed background
save only at the next one. `Keeper` adds these three. Of several processes each writes
and reads its own part, and all agree on what was saved, lost and damaged.
"""

import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from transformer_jax import hosts
from transformer_jax.aside import set_aside
from transformer_jax.training.checkpoint_errors import brief, is_damage
from transformer_jax.training.checkpoint_note import (
  CheckpointError,
  Damage,
  check_leaves,
  describe,
  named_leaves,
  seal,
  shapes,
  unseal,
  versions,
)
from transformer_jax.training.checksum import differing
from transformer_jax.training.json_files import (
  free_space,
  make_folder,
  plain,
  warn,
)
from transformer_jax.training.orbax_logging import quieten_orbax

POLL = 0.05  # seconds between looks at a save of several processes
GRACE = 5.0  # seconds for a save that was given up to end

# Numbers of the managers of this process: another run's step 10 is another meeting.
# All processes open them in the same order.
_opened = itertools.count(1)


class Keeper:
  """Saves states in the background and restores the newest one that is intact.

  directory   folder of the checkpoints
  keep        number of steps that stay on disk
  say         called with each message to the user, one line

  >>> import tempfile
  >>> import jax.numpy as jnp
  >>> state = {"gain_D": jnp.ones(3)}
  >>> with tempfile.TemporaryDirectory() as folder, Keeper(folder) as keeper:
  ...   keeper.save(10, state, meta={"note": "warm"})
  ...   restored, meta = keeper.restore(state)
  >>> meta
  {'note': 'warm', 'step': 10}
  """

  def __init__(
    self, directory: str | Path, keep: int = 2, say: Callable[[str], None] = warn
  ):
    self._directory = Path(directory).absolute()
    self._keep = keep
    self._say = say if hosts.is_leader() else lambda line: None
    self._saving: int | None = None
    self._lost: str | None = None
    self._error: Exception | None = None  # of the pending save
    quieten_orbax()
    self._manager = self._open()

  def _open(self) -> ocp.CheckpointManager:
    make_folder(self._directory)
    # Set where the pending save is given up, because a process failed. The manager's
    # own: threads of the one before may still wait.
    self._given_up = threading.Event()
    meet = functools.partial(_meet, next(_opened), self._given_up.is_set)
    latest = ocp.checkpoint_managers.LatestN(self._keep)
    options = ocp.CheckpointManagerOptions(
      create=False,
      cleanup_tmp_directories=True,
      preservation_policy=latest,
      multiprocessing_options=_barriers(),
      async_options=ocp.AsyncOptions(barrier_sync_fn=meet),
    )
    items = ("state", "meta")
    return ocp.CheckpointManager(self._directory, item_names=items, options=options)

  def __enter__(self) -> "Keeper":
    return self

  def __exit__(self, kind: type | None, error: object, trace: object) -> None:
    with contextlib.suppress(CheckpointError) if kind else contextlib.nullcontext():
      self.close()

  def steps(self) -> list[int]:
    """Returns the steps on disk, oldest first."""
    return hosts.from_leader("the steps on disk", self._on_disk)

  def _on_disk(self) -> list[int]:
    # Somebody may have removed the folder; the next save makes it again.
    there = self._directory.iterdir() if self._directory.exists() else ()
    names = (path.name for path in there)
    return sorted(int(name) for name in names if name.isdigit())

  def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Copies the state and writes it in the background; a saved step is left alone.

    The state may be donated right after. `meta` is JSON and comes back with `step`.
    """
    self._settle()
    if step in self.steps():
      return
    leaves = named_leaves(state)
    note = seal(describe(leaves) | {"meta": plain(meta) | {"step": step}})
    items = {"state": ocp.args.StandardSave(leaves), "meta": ocp.args.JsonSave(note)}
    self._saving = step
    try:
      hosts.together("a checkpoint", functools.partial(self._write, step, items))
    except Exception as error:
      self._fail(error)

  def _write(self, step: int, items: dict[str, Any]) -> None:
    self._manager.save(step, args=ocp.args.Composite(**items), force=True)

  def poll(self) -> None:
    """Notices a save that failed in the background; call it at every dispatch."""
    if self._saving is None:
      return
    if not self._writing():
      self._settle()

  def _writing(self) -> bool:
    """Returns whether any process writes; one that failed ends the waiting of all."""
    failed = False
    if self._given_up.is_set():
      return False
    if not (writing := self._manager.is_saving_in_progress()):
      try:
        self._manager.wait_until_finished()
      except Exception as error:
        failed, self._error = True, error
    parts = hosts.group().exchange("whether a checkpoint is written", [writing, failed])
    if any(part[1] for part in parts):
      self._given_up.set()
    return any(part[0] for part in parts) and not self._given_up.is_set()

  def wait(self) -> None:
    """Waits for the pending save and for the removal of steps that it replaces."""
    self._settle()

  def _settle(self, last: bool = False) -> None:
    """Waits for the pending save and checks that its folder is on disk."""
    if self._saving is None:
      return
    while hosts.count() > 1 and self._writing():
      time.sleep(POLL)
    try:
      hosts.together("a written checkpoint", self._check_saved)
      self._saving, self._lost = None, None
    except Exception as error:
      self._fail(error, last)

  def _check_saved(self) -> None:
    error, self._error = self._error, None
    if error:
      raise error
    if self._given_up.is_set():  # another one's error counts
      return
    self._manager.wait_until_finished()
    if hosts.is_leader() and self._saving not in self._on_disk():
      raise FileNotFoundError("the folder did not appear")

  def _fail(self, error: Exception, last: bool = False) -> None:
    step, self._saving = self._saving, None
    self._lost = (
      f"step {step} could not be saved in {self._directory}"
      f" ({brief(error)}; {free_space(self._directory)})"
    )
    if not last:
      self._say(f"{self._lost}; training goes on and tries again at the next save")
    self._reopen()

  def _reopen(self) -> None:
    """Replaces the manager, which removes the remains of a failed save."""
    closing = threading.Thread(target=_close, args=[self._manager], daemon=True)
    closing.start()
    # Orbax may wait minutes for a folder that another process could not make.
    closing.join(GRACE if self._given_up.is_set() else None)
    self._manager = self._open()

  def close(self) -> None:
    """Waits for the last save; raises CheckpointError if it failed."""
    self._settle(last=True)
    self._manager.close()
    if self._lost:
      raise CheckpointError(
        f"{self._lost}; free some space and run the same command again:"
        f" it continues from step {max(self.steps(), default=0)}"
      )

  def restore(self, abstract: Any) -> tuple[Any, dict[str, Any]] | None:
    """Returns the newest intact (state, meta), with the shardings of `abstract`.

    None if there is no intact step. A damaged step is renamed and stays on disk. Raises
    CheckpointError for a state of other shapes.

    abstract   tree of arrays or of `jax.ShapeDtypeStruct` with shardings
    """
    self._settle()
    steps = self.steps()
    for step in reversed(steps):
      found, damage = self._intact(step, abstract)
      if damage or found is None:
        self._set_aside(step, damage)
        continue
      state, note = found
      self._compare_versions(step, note["versions"])
      return state, note["meta"]
    if steps:
      self._say(f"{self._directory} holds no intact checkpoint: starting from step 0")
    return None

  def _intact(self, step: int, abstract: Any) -> tuple[Any, str]:
    """Returns (state, note) and "", or None and the damage that a process found."""
    found, damage, trouble = None, "", None
    try:
      found = self._read(step, abstract)
    except Exception as error:
      damage = brief(error) if is_damage(error) else ""
      trouble = None if damage else error
    # Damage first: the processes that wait for the one that found it get a timeout.
    answers = hosts.group().exchange(
      "a checkpoint", [damage, brief(trouble) if trouble else ""]
    )
    if damage := next((here for here, _ in answers if here), ""):
      return None, damage
    if trouble:
      raise hosts.known(trouble)
    if words := next((there for _, there in answers if there), ""):
      raise hosts.HostError(words)
    return found, ""

  def read(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
    """Returns one (state, meta) by its step; a damaged one raises CheckpointError."""
    self._settle()
    try:
      state, note = self._read(step, abstract)
    except Exception as error:
      if not is_damage(error):
        raise
      raise CheckpointError(
        f"checkpoint {self._directory}/{step} is damaged ({brief(error)}); use another"
        " step"
      ) from error
    return state, note["meta"]

  def _read(self, step: int, abstract: Any) -> tuple[Any, dict[str, Any]]:
    """Returns (state, note); checks the small note before it reads the large state."""
    only_note = ocp.args.Composite(meta=ocp.args.JsonRestore())
    note = unseal(self._manager.restore(step, args=only_note).meta)
    wanted = named_leaves(abstract)
    check_leaves(f"{self._directory}/{step}", note["leaves"], shapes(wanted))
    target = {name: _placed(leaf) for name, leaf in wanted.items()}
    only_state = ocp.args.Composite(state=ocp.args.StandardRestore(target))
    leaves = self._manager.restore(step, args=only_state).state
    if bad := differing(leaves, note["fingerprints"]):
      raise Damage(f"bits of {', '.join(bad[:3])} differ from what was saved")
    in_order = [leaves[name] for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(abstract), in_order), note

  def _set_aside(self, step: int, reason: str) -> None:
    """Renames a damaged step, so that nothing is lost and the step can be saved."""
    with contextlib.suppress(Exception):
      self._manager.close()
    if hosts.is_leader():
      free = set_aside(self._directory / str(step))
      self._say(
        f"checkpoint {self._directory}/{step} is damaged ({reason}); kept as {free},"
        " using the one before"
      )
    hosts.group().exchange(f"step {step} is set aside", None)
    self._manager = self._open()

  def _compare_versions(self, step: int, then: dict[str, str]) -> None:
    now = versions()
    keys = sorted(key for key in then | now if then.get(key) != now.get(key))
    if keys:
      parts = [f"{key} {then.get(key)}, now {now.get(key)}" for key in keys]
      self._say(
        f"checkpoint {self._directory}/{step} was written with {'; '.join(parts)}:"
        " the numbers may differ in their last bits from an uninterrupted run"
      )


def _meet(
  opened: int, given_up: Callable[[], bool], *, key: str, timeout_ms: int
) -> None:
  """Waits for all processes, in the background; a step may be saved again."""
  hosts.group().meet(f"{opened} {key}", given_up)


def _close(manager: ocp.CheckpointManager) -> None:
  with contextlib.suppress(Exception):
    manager.close()


def _barriers() -> ocp.options.MultiprocessingOptions:
  """Returns how processes wait for one another: with a timeout, not on the devices."""
  every = set(range(jax.process_count())) if jax.process_count() > 1 else None
  return ocp.options.MultiprocessingOptions(active_processes=every)


def _placed(leaf: Any) -> jax.ShapeDtypeStruct:
  sharding = getattr(leaf, "sharding", None)
  # Without one, Orbax would ask for the devices of the process that saved.
  here = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
