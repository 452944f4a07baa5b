"""Options of the compiler for programs that train."""

from jax.sharding import Mesh

# TPUs with SparseCores, small processors beside the large one: these carry out
# collectives while the large one computes. Left to itself the compiler waits for them.
SPARSE_CORES = {"TPU v5", "TPU v6 lite"}  # v5p and v6e, as their drivers call them
KINDS = ("all_gather", "all_reduce", "reduce_scatter")
OFFLOAD = {
  **{f"xla_tpu_enable_sparse_core_collective_offload_{kind}": True for kind in KINDS},
  **{f"xla_tpu_enable_async_collective_fusion_fuse_{kind}": False for kind in KINDS},
}


def of_training(mesh: Mesh) -> dict[str, bool] | None:
  """Returns the options for a mesh's devices, as `jax.jit` takes them; None: none.

  >>> import jax
  >>> of_training(jax.make_mesh((1,), ("data",), devices=jax.devices("cpu")[:1]))
  """
  kind = mesh.devices.flat[0].device_kind
  return OFFLOAD if mesh.size > 1 and kind in SPARSE_CORES else None
