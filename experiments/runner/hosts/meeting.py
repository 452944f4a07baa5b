"""Where processes meet: the leader listens, the others connect and say who they are.

The port is the one after that of `jax.distributed`, on the same host. Who connects is
not identified, as with JAX's own port: both belong in a network of one's own.
"""

import socket
import time
from collections.abc import Mapping
from typing import Any

from experiments.runner.hosts.channel import Line
from experiments.runner.hosts.follower import Follower
from experiments.runner.hosts.leader import Leader
from experiments.setup.validate import ConfigError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
LAST_PORT = 65535
HELLO = 5.0  # seconds for one that has connected to say who it is


def lead(
  address: str, processes: int, patience: float, settings: Mapping[str, Any]
) -> Leader:
  """Returns the leader once all others are connected; raises ConfigError.

  address     of the leader for `jax.distributed`, HOST:PORT
  processes   their number
  patience    seconds to wait for the last one
  settings    of the channel
  """
  until = time.monotonic() + patience
  lines: dict[int, Line] = {}
  names = {0: _name(0)}
  with _server(address) as server:
    while len(names) < processes:
      server.settimeout(max(0.01, until - time.monotonic()))
      try:
        connection, _ = server.accept()
      except TimeoutError:
        raise _end_meeting(lines, _missing(names, processes, patience)) from None
      # Anything may connect, and say nothing: a port scan, a health check.
      connection.settimeout(max(0.01, min(HELLO, until - time.monotonic())))
      line = Line(connection)
      hello = line.receive() or {}
      connection.settimeout(None)
      number, name = hello.get("hello"), hello.get("name")
      if not isinstance(number, int) or not isinstance(name, str):
        line.drop()  # not one of ours
      elif problem := _problem(number, name, hello.get("processes"), names, processes):
        lines[-1] = line
        raise _end_meeting(lines, problem)
      else:
        lines[number], names[number] = line, name
  return Leader(lines, [names[i] for i in range(processes)], **settings)


def follow(
  address: str,
  processes: int,
  process: int,
  patience: float,
  settings: Mapping[str, Any],
) -> Follower:
  """Returns a process that is connected to the leader; raises ConfigError.

  process   number of this one

  Further arguments are those of `lead`.
  """
  host, port = _host(address), _port(address)
  connection = _connection(host, port, process, patience)
  connection.settimeout(patience + 2 * HELLO)  # the leader itself waits for `patience`
  line = Line(connection)
  line.send({"hello": process, "processes": processes, "name": _name(process)})
  answer = line.receive() or {
    "refused": f"{_name(process)}: process 0 at {host}:{port} has ended, or gave no"
    f" answer in {patience + 2 * HELLO:g} seconds"
  }
  connection.settimeout(None)
  if "refused" in answer:
    line.drop()
    raise ConfigError(answer["refused"])
  return Follower(line, process, answer["names"], **settings)


def _name(process: int) -> str:
  return f"process {process} on {socket.gethostname()}"


def _host(address: str) -> str:
  return address.rpartition(":")[0].strip("[]")


def _port(address: str) -> int:
  port = int(address.rpartition(":")[2])
  return port + 1 if port < LAST_PORT else port - 1


def _server(address: str) -> socket.socket:
  """Returns a listening socket, on the loopback device alone where that is enough."""
  host, port = _host(address), _port(address)
  local = host in LOOPBACK
  both = not local and socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
  try:
    return socket.create_server(
      (host if local else "", port), family=family, dualstack_ipv6=both, backlog=1024
    )
  except OSError as error:
    raise ConfigError(
      f"--coordinator={address}: process 0 cannot listen at port {port}"
      f" ({error.strerror}); that port and the one before it must be free"
    ) from error


def _connection(host: str, port: int, process: int, patience: float) -> socket.socket:
  """Returns a connection to the leader, which may not have started yet."""
  until = time.monotonic() + patience
  while True:
    try:
      connection = socket.create_connection((host, port), timeout=10.0)
      connection.settimeout(None)
      return connection
    except OSError as error:
      if time.monotonic() > until:
        raise ConfigError(
          f"{_name(process)}: no process 0 at {host}:{port} in {patience:g} seconds"
          f" ({error.strerror or error}); start it, or correct --coordinator"
        ) from error
      time.sleep(0.1)


def _missing(names: Mapping[int, str], processes: int, patience: float) -> str:
  absent = ", ".join(str(i) for i in range(processes) if i not in names)
  return (
    f"of {processes} processes these did not start in {patience:g} seconds: {absent};"
    " start each with the same command and its --process"
  )


def _problem(
  number: int, name: str, count: object, names: Mapping[int, str], processes: int
) -> str:
  """Returns why a process cannot take part, "" if it can."""
  if count != processes:
    return f"--processes={processes} of {names[0]} is --processes={count} of {name}"
  if number in names or not 0 <= number < processes:
    there = names.get(number, f"only 0 to {processes - 1}")
    return f"--process={number} of {name}: there is {there}; number each differently"
  return ""


def _end_meeting(lines: Mapping[int, Line], problem: str) -> ConfigError:
  """Tells those who have come that the meeting failed; returns the error."""
  for line in lines.values():
    line.send({"refused": problem})
  time.sleep(0.2)  # to let them read it
  for line in lines.values():
    line.drop()
  return ConfigError(problem)
