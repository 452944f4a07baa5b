"""Attention kernels for TPUs and GPUs, in Pallas."""
