"""A Ray cluster of two nodes on this machine, with a core each, for a test.

Prints its address; on the line "kill" the second node dies with all its processes.
"""

import os
import signal
import sys
from pathlib import Path

# A machine that is busy with other tests starts a node's agents slowly.
os.environ |= {
  "RAY_agent_register_timeout_ms": "200000",
  "RAY_raylet_start_wait_time_s": "200",
  "RAY_USAGE_STATS_ENABLED": "0",
}


def below(pid):
  """Returns a process and all that descend from it."""
  parents = {}
  for path in Path("/proc").glob("[0-9]*/stat"):
    try:
      fields = path.read_text().rpartition(")")[2].split()
    except OSError:
      continue
    parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
  found = [pid]
  for each in found:
    found += parents.get(each, [])
  return found


def main():
  from ray.cluster_utils import Cluster

  # Memory of its own for objects, of which there are none.
  node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
  cluster = Cluster(
    initialize_head=True, head_node_args={**node, "include_dashboard": False}
  )
  second = cluster.add_node(**node)
  cluster.wait_for_nodes()
  print(f"address {cluster.address}", flush=True)
  for line in sys.stdin:
    if line.strip() == "kill":
      raylets = [each.process.pid for each in second.all_processes["raylet"]]
      for pid in [pid for raylet in raylets for pid in below(raylet)]:
        os.kill(pid, signal.SIGKILL)
      print("killed", flush=True)
  cluster.shutdown()


if __name__ == "__main__":
  main()
