"""A module like `pynvml` that tells of GPUs which are not there; put in `sys.modules` in its place."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

MIB = 2**20
CODES = {
    "NVML_ERROR_NOT_SUPPORTED": 3,
    "NVML_ERROR_NO_PERMISSION": 4,
    "NVML_ERROR_NOT_FOUND": 6,
    "NVML_ERROR_DRIVER_NOT_LOADED": 9,
    "NVML_ERROR_LIBRARY_NOT_FOUND": 12,
    "NVML_ERROR_GPU_IS_LOST": 15,
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": 18,
}


class NVMLError(Exception):
    """As pynvml's: the code as an attribute."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.value = CODES[name]


@dataclass
class FakeGpu:
    """One device. `memory_mib` None: it has none of its own; `instances` None: MIG mode is off; `error`: no handle."""

    name: str
    memory_mib: int | None
    capability: tuple[int, int] = (9, 0)
    device: int = 0x2330
    uuid: str = ""
    instances: list[FakeGpu | None] | None = None
    error: str = ""


@dataclass
class FakeNvml:
    """Options of the module."""

    gpus: list[FakeGpu] = field(default_factory=list)
    init_error: str = ""
    driver: str = "580.95.05"

    def module(self) -> ModuleType:
        """The module itself."""
        for index, gpu in enumerate(self.gpus):
            gpu.uuid = gpu.uuid or f"GPU-{index:08x}-0000"
            for part, instance in enumerate(gpu.instances or []):
                if instance is not None:
                    instance.uuid = instance.uuid or f"MIG-{index:04x}{part:04x}-0000"
        module = ModuleType("pynvml")
        module.__dict__.update(CODES)
        module.NVMLError = NVMLError  # type: ignore[attr-defined]
        for name in dir(self):
            if name.startswith("nvml"):
                setattr(module, name, getattr(self, name))
        return module

    def nvmlInit(self):
        if self.init_error:
            raise NVMLError(self.init_error)

    def nvmlShutdown(self):
        pass

    def nvmlSystemGetDriverVersion(self):
        return self.driver

    def nvmlDeviceGetCount(self):
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index):
        if self.gpus[index].error:
            raise NVMLError(self.gpus[index].error)
        return self.gpus[index]

    def nvmlDeviceGetName(self, gpu):
        return gpu.name

    def nvmlDeviceGetUUID(self, gpu):
        return gpu.uuid

    def nvmlDeviceGetMemoryInfo(self, gpu):
        if gpu.memory_mib is None:
            raise NVMLError("NVML_ERROR_NOT_SUPPORTED")
        return SimpleNamespace(total=gpu.memory_mib * MIB)

    def nvmlDeviceGetPciInfo(self, gpu):
        return SimpleNamespace(pciDeviceId=gpu.device << 16 | 0x10DE)

    def nvmlDeviceGetCudaComputeCapability(self, gpu):
        return gpu.capability

    def nvmlDeviceGetMigMode(self, gpu):
        if gpu.capability < (8, 0):
            raise NVMLError("NVML_ERROR_NOT_SUPPORTED")
        return [int(gpu.instances is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu):
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu, index):
        if index >= len(gpu.instances) or gpu.instances[index] is None:
            raise NVMLError("NVML_ERROR_NOT_FOUND")
        return gpu.instances[index]
