"""Engine `torch` with one fault, given as `--engine engines_to_diff:NAME`."""

from sdxl_engine.engines import EngineEntry
from sdxl_engine.engines.torch_engine import TorchEngine

ONE_STEP = EngineEntry(name="one-step", factory="engines_to_diff:one_step")
DEEP_CACHE = EngineEntry(name="cache", factory="engines_to_diff:cache")


class Faulty(TorchEngine):
    """Adds an offset to one output of one network, the nth time that it runs."""

    def __init__(self, request, name, network, output, nth):
        super().__init__(request)
        self.name, self.fault = name, (network, output, nth)

    def bind(self, network, buffers):
        run, calls = super().bind(network, buffers), []
        faulty, output, nth = self.fault

        def wrong():
            run()
            calls.append(network)
            if network == faulty and len(calls) == nth:
                buffers[output][1] += 1

        return wrong


def one_step(request):
    """Deep step number 3 is wrong in the second row."""
    return Faulty(request, "one-step", "unet", "latent", 3)


def cache(request):
    """A cached feature of the first deep step is wrong."""
    return Faulty(request, "cache", "unet", "up.1.sample", 1)
