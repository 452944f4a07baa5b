"""Published peaks of accelerators: bfloat16 products and sums a second, dense.

NVIDIA's data sheets print the figure for sparse matrices too, which is twice as high.
"""

from experiments.estimating.chips import CHIPS, Figure

H100 = "https://www.nvidia.com/en-us/data-center/h100/"
H200 = "https://www.nvidia.com/en-us/data-center/h200/"
GH200 = "https://www.nvidia.com/en-us/data-center/grace-hopper-superchip/"
A100 = "https://www.nvidia.com/en-us/data-center/a100/"
L4 = "https://www.nvidia.com/en-us/data-center/l4/"
V4 = "https://docs.cloud.google.com/tpu/docs/v4"

# By the start of the name that JAX gives to a device; the longest one counts.
PEAKS = {
  "NVIDIA H100": Figure(989e12, H100),  # SXM
  "NVIDIA H100 PCIe": Figure(756e12, H100),
  "NVIDIA H100 NVL": Figure(835e12, H100),
  "NVIDIA H200": Figure(989e12, H200),
  "NVIDIA GH200": Figure(989e12, GH200),
  "NVIDIA A100": Figure(312e12, A100),
  "NVIDIA L4": Figure(121e12, L4),
  "TPU v4": Figure(275e12, V4),
  "TPU v5 lite": CHIPS["v5e"].flops,
  "TPU v5": CHIPS["v5p"].flops,
  "TPU v6 lite": CHIPS["v6e"].flops,
}


def peak_of(kind: str) -> float | None:
  """Returns the peak of a device by the name that JAX gives it; None: not listed.

  >>> peak_of("NVIDIA H100 80GB HBM3") == 989e12, peak_of("cpu")
  (True, None)
  """
  known = [name for name in PEAKS if f"{kind} ".startswith(f"{name} ")]
  known += [name for name in PEAKS if kind.startswith(f"{name}-")]
  return PEAKS[max(known, key=len)].value if known else None
