"""Machines that the shipped configurations are for, and some that none is for."""

from __future__ import annotations

from sdxl_engine.systems.machine import GIB, Gpu, Machine

MIB = 2**20
H100 = "NVIDIA H100 80GB HBM3"


def machine(name: str = H100, mib: int = 81559, count: int = 1, capability: tuple[int, int] = (9, 0)) -> Machine:
    """With so many GPUs of one kind."""
    gpus = tuple(Gpu(name, mib * MIB, f"GPU-{index:08x}", "10de:2330", capability) for index in range(count))
    return Machine("a processor", 8, 64 * GIB, gpus, "580.95.05")


CPU = Machine("a processor", 8, 64 * GIB)
_PRO = "NVIDIA RTX PRO 6000 Blackwell {} Edition"
KNOWN = {
    "b200_x1": [machine("NVIDIA B200", 183359, 1, (10, 0))],
    "b200_x8": [machine("NVIDIA B200", 183359, 8, (10, 0))],
    "cpu": [CPU],
    "gh200_x1": [
        machine("NVIDIA GH200 120GB", 97871),
        machine("NVIDIA GH200 480GB", 97871),
        machine("NVIDIA GH200 144G HBM3e", 146831),
    ],
    "h100_pcie_x1": [machine("NVIDIA H100 PCIe")],
    "h100_pcie_x8": [machine("NVIDIA H100 PCIe", count=8)],
    "h100_sxm_x1": [machine()],
    "h100_sxm_x8": [machine(count=8)],
    "h200_x1": [machine("NVIDIA H200", 143771)],
    "h200_x8": [machine("NVIDIA H200", 143771, 8)],
    "l40s_x1": [machine("NVIDIA L40S", 46068, 1, (8, 9))],
    "l40s_x8": [machine("NVIDIA L40S", 46068, 8, (8, 9))],
    "rtx_4090_x1": [machine("NVIDIA GeForce RTX 4090", 24564, 1, (8, 9))],
    "rtx_5090_x1": [machine("NVIDIA GeForce RTX 5090", 32607, 1, (12, 0))],
    "rtx_6000_ada_x1": [machine("NVIDIA RTX 6000 Ada Generation", 49140, 1, (8, 9))],
    "rtx_pro_6000_blackwell_x1": [
        machine(_PRO.format(which), 97887, 1, (12, 0)) for which in ("Workstation", "Max-Q Workstation", "Server")
    ],
}
"""By the name of the configuration. Names as in the README of NVIDIA/open-gpu-kernel-modules, memory as nvidia-smi
prints it."""

UNKNOWN = {
    "four of a known GPU": machine(count=4),
    "a known name with other memory": machine("NVIDIA GeForce RTX 4090", 49140, 1, (8, 9)),
    "names that begin alike": machine("NVIDIA GeForce RTX 4090 D", 24564, 1, (8, 9)),
    "another H200": machine("NVIDIA H200 NVL", 143771),
    "a MIG instance": machine(f"{H100} MIG 1g.10gb", 9984),
    "A100": machine("NVIDIA A100-SXM4-80GB", 81920, 1, (8, 0)),
}
