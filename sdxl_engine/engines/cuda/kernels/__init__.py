"""Hand-written Triton kernels of the engine `cuda`."""
