"""Engine `cuda`: the fast engine on NVIDIA GPUs, with PyTorch, Triton and cuBLASLt."""
