"""What the kernels for TPUs and GPUs share."""
