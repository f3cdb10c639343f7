"""Engine `cuda`: the fast engine on NVIDIA GPUs with PyTorch and our own Triton kernels."""
