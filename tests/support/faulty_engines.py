"""Engines with one fault each, for the conformance suite: `--sdxl-engine=tests.support.faulty_engines:NAME`.

Each is engine `torch`, on a CPU in fp32, but for what its class overrides. What torch computes is kept for the process,
so that running the suite on all of them takes little longer than on one.
"""

import functools
import re
from dataclasses import replace
from typing import NamedTuple

import torch

from pytest_sdxl.conformance.running import digest
from sdxl_engine.engines import torch_engine
from sdxl_engine.engines.base import Capabilities, EngineMemory, check_buffers
from sdxl_engine.engines.registry import EngineEntry
from sdxl_engine.models.spec import CACHED_FEATURES


class Found(NamedTuple):
    """The one check that has to find a fault, and what it has to say."""

    check: str
    said: str


FAULTS: dict[str, Found] = {}
"""By name."""


def register(engine):
    """Give an engine's class an entry, named as the class in lower case."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", engine.__name__).lower()
    globals()[name] = EngineEntry(name=name, factory=f"{__name__}:{engine.__name__}")
    engine.name = name
    return engine


def fails(check, said):
    """Register a fault."""

    def registered(engine):
        register(engine)
        FAULTS[engine.name] = Found(check, said)
        return engine

    return registered


def torch_of(request):
    # Each request brings a callable of its own that gives calibration captions, which this engine has no use for.
    return _torch_of(replace(request, calibration=None))


@functools.cache
def _torch_of(request):
    return torch_engine.create(request)


_COMPUTED = {}


def computed(engine, network, inputs):
    """What engine `torch` makes of some inputs."""
    key = (id(engine), network, digest(inputs))
    if key not in _COMPUTED:
        interface = engine.networks[network]
        rows = len(next(inputs[name] for name, spec in interface.inputs.items() if spec.batched))
        outputs = {name: torch.empty(spec.at(rows)) for name, spec in interface.outputs.items()}
        engine.bind(network, inputs | outputs)()
        _COMPUTED[key] = outputs
    return {name: tensor.clone() for name, tensor in _COMPUTED[key].items()}


@register
class Intact:
    """No fault."""

    def __init__(self, request):
        self.torch = torch_of(request)
        self.spec, self.networks, self.device = self.torch.spec, self.torch.networks, self.torch.device
        self.capabilities = Capabilities(precision="fp32", most_images=request.batch_size)
        self.closed = False

    def bind(self, network, buffers):
        check_buffers(self, network, buffers)
        return self.bound(network, buffers)

    def bound(self, network, buffers):
        """A callable, with what an engine keeps for a binding."""
        return lambda: self.call(network, buffers)

    def call(self, network, buffers):
        inputs = {name: buffers[name] for name in self.torch.networks[network].inputs}
        for name, result in self.compute(network, inputs).items():
            buffers[name].copy_(result)

    def compute(self, network, inputs):
        return computed(self.torch, network, inputs)

    def memory(self):
        return EngineMemory(host=0 if self.closed else self.torch.memory().host)

    def close(self):
        self.closed = True


@fails("test_the_interface_is_the_models", "clip1, input_ids: int64, allowed is int32")
class TakesLongIds(Intact):
    def __init__(self, request):
        super().__init__(request)
        ids = {"input_ids": replace(self.networks["clip1"].inputs["input_ids"], dtype="int64")}
        self.networks = self.networks | {
            which: replace(self.networks[which], inputs=ids) for which in ("clip1", "clip2")
        }

    def compute(self, network, inputs):
        return super().compute(
            network, inputs | {name: ids.int() for name, ids in inputs.items() if name == "input_ids"}
        )


@fails("test_it_is_what_was_asked_for", "it declares bf16, asked for was fp32")
class DeclaresAnotherPrecision(Intact):
    def __init__(self, request):
        super().__init__(request)
        self.capabilities = replace(self.capabilities, precision="bf16")


@fails("test_buffers_that_do_not_fit_are_refused", "a buffer sample that is strided was taken, expected an EngineError")
class TakesAnyLayout(Intact):
    def bind(self, network, buffers):
        check_buffers(self, network, {name: buffer.contiguous() for name, buffer in buffers.items()})
        return self.bound(network, buffers)


@fails("test_a_batch_above_its_limit_is_refused", "clip1: 9 images were taken, declared are 8 at most")
class TakesAnyBatch(Intact):
    def bind(self, network, buffers):
        check_buffers(self.torch, network, buffers)
        return self.bound(network, buffers)


@fails("test_values", "unet, 1 image, step 10, output latent: relative error to the reference 0.0001, at most")
class OffAtOneTimestep(Intact):
    """As an entry of a table of time embeddings that is wrong."""

    def compute(self, network, inputs):
        outputs = super().compute(network, inputs)
        if network == "unet" and inputs["timestep"] == 451:
            outputs["latent"] *= 1.0001
        return outputs


@fails("test_extreme_timesteps", "unet, 1 image, timestep 999, output latent: relative error to the reference")
class KnowsTheScheduleOnly(Intact):
    """Timesteps outside the schedule are moved to its ends."""

    def compute(self, network, inputs):
        if "timestep" in inputs:
            inputs = inputs | {"timestep": inputs["timestep"].clamp(1, 951)}
        return super().compute(network, inputs)


@fails("test_odd_prompts", "clip2, 1 image, empty prompt, output text_embeddings: relative error to the reference")
class NeedsOneWord(Intact):
    """The end of the text is looked for from the second token on; an empty prompt ends at the first."""

    def compute(self, network, inputs):
        outputs = super().compute(network, inputs)
        if network == "clip2":
            empty = (inputs["input_ids"][:, 2:] == 0).all(1)
            outputs["text_embeddings"][empty] *= 1.01
        return outputs


@fails("test_shallow_after_deep", "shallow_unet after unet, 1 image, step 11, output latent: relative error")
class HandsOverInHalf(Intact):
    """Features that stay inside the engine are kept in float16."""

    def __init__(self, request):
        super().__init__(request)
        self.inside = []

    def bound(self, network, buffers):
        features = [buffers[name] for name in CACHED_FEATURES if name in buffers]
        if network == "unet":
            self.inside += features
        shared = network == "shallow_unet" and any(features[0] is kept for kept in self.inside)

        def run():
            given = {name: buffers[name].half().float() for name in CACHED_FEATURES} if shared else {}
            for name, result in self.compute(network, self.inputs(network, buffers) | given).items():
                buffers[name].copy_(result)

        return run

    def inputs(self, network, buffers):
        return {name: buffers[name] for name in self.networks[network].inputs}


@fails("test_every_batch_size", "vae, 5 images, output images: relative error to the batch of 8 images 0.001, at most")
class OffInBatchesOfFive(Intact):
    """As where what is left over of a tile is treated apart."""

    def compute(self, network, inputs):
        outputs = super().compute(network, inputs)
        if network == "vae" and len(outputs["images"]) == 5:
            outputs["images"][-1] *= 1.001
        return outputs


@fails("test_batch_invariance", "unet, image 0 as the last of 8, output latent: relative error to it as the first")
class OneScaleForTheBatch(Intact):
    """Rounds to steps of the largest value of the whole batch, which one strange row makes coarse."""

    def compute(self, network, inputs):
        outputs = super().compute(network, inputs)
        if network == "unet":
            sample = inputs["sample"]
            largest = sample[sample.isfinite()].abs().max()
            if largest > 16:
                step = largest * 2**-20
                outputs = {name: (tensor / step).round() * step for name, tensor in outputs.items()}
        return outputs


@fails("test_determinism", "values differ between two runs, expected the same bits")
class FlipsABit(Intact):
    """The last bit of every pixel, every other time."""

    calls = 0

    def compute(self, network, inputs):
        outputs = super().compute(network, inputs)
        self.calls += 1
        if network == "vae" and self.calls % 2:
            outputs["images"] = outputs["images"].nextafter(torch.tensor(torch.inf))
        return outputs


@fails("test_nothing_stays_of_the_last_batch", "unet, 1 image, step 10, after another batch, output latent: relative")
class KeepsTheFirstPrompt(Intact):
    """As an engine that computes the keys and values of the cross-attention once for each binding."""

    def bound(self, network, buffers):
        kept = {}

        def run():
            inputs = {name: buffers[name] for name in self.networks[network].inputs}
            if network == "unet":
                kept.setdefault("encoder_hidden_states", inputs["encoder_hidden_states"].clone())
            for name, result in self.compute(network, inputs | kept).items():
                buffers[name].copy_(result)

        return run


@fails(
    "test_cached_features_do_not_leak", "shallow_unet, after another batch, output latent: relative error to it alone"
)
class CachesByTimestep(Intact):
    """Features of a timestep that was the last one's too are taken for those that are there."""

    def __init__(self, request):
        super().__init__(request)
        self.inside = []

    def bound(self, network, buffers):
        if network == "unet":
            entry = {"buffer": buffers[CACHED_FEATURES[0]], "timestep": None, "features": {}}
            self.inside.append(entry)
        else:
            entry = next((kept for kept in self.inside if buffers.get(CACHED_FEATURES[0]) is kept["buffer"]), None)

        def run():
            self.call(network, buffers)
            if network == "unet" and entry["timestep"] != buffers["timestep"].item():
                entry["timestep"] = buffers["timestep"].item()
                entry["features"] = {name: buffers[name].clone() for name in CACHED_FEATURES}

        def run_shallow():
            inputs = {name: buffers[name] for name in self.networks[network].inputs}
            buffers["latent"].copy_(self.compute(network, inputs | entry["features"])["latent"])

        return run_shallow if network == "shallow_unet" and entry is not None else run


@fails("test_what_outputs_held_has_no_effect", "unet, 1 image, step 10, on outputs that held nan, output latent: ")
class AddsToWhatWasThere(Intact):
    """Times zero: as a matrix product with beta = 0 that does not know what that is for."""

    def call(self, network, buffers):
        inputs = {name: buffers[name] for name in self.networks[network].inputs}
        for name, result in self.compute(network, inputs).items():
            buffers[name].mul_(0).add_(result)


@fails("test_a_graph_replays_it", "it declares that a CUDA graph can hold it, and is on cpu")
class SaysItCanBeCaptured(Intact):
    def __init__(self, request):
        super().__init__(request)
        self.capabilities = replace(self.capabilities, capturable=True)


@fails("test_inputs_are_left_alone", "unet, input sample: 2048 of 2048 values were changed")
class WorksInItsInput(Intact):
    def call(self, network, buffers):
        super().call(network, buffers)
        if network == "unet":
            buffers["sample"].zero_()


@fails("test_bad_values_show", "unet, output latent: nan in sample is hidden, its row is finite")
class HidesBadValues(Intact):
    def compute(self, network, inputs):
        return super().compute(network, {name: value.nan_to_num(0, 0, 0) for name, value in inputs.items()})


@fails("test_bad_rows_stay_alone", "unet, beside a row with nan in sample, output latent: 1024 of 1024 values are not")
class SpreadsBadValues(Intact):
    def compute(self, network, inputs):
        outputs = super().compute(network, inputs)
        if not all(value.isfinite().all() for value in inputs.values()):
            outputs = {name: tensor * torch.nan for name, tensor in outputs.items()}
        return outputs


@fails("test_images", "pipeline DeepCache, image 0 of 1: ")
class TiresAfterThreeCalls(Intact):
    """As a ring of workspaces that is one too short."""

    def bound(self, network, buffers):
        calls = []

        def run():
            self.call(network, buffers)
            calls.append(network)
            if network == "unet" and len(calls) > 3:
                buffers["latent"].mul_(0.5)

        return run


@fails("test_order_of_results", "pipeline, a shuffled batch, image ")
class RemembersPromptsInOneOrder(Intact):
    """Results of the text encoders are kept by which prompts there are, not by their order."""

    def __init__(self, request):
        super().__init__(request)
        self.kept = {}

    def compute(self, network, inputs):
        if "input_ids" not in inputs:
            return super().compute(network, inputs)
        key = (network, *sorted(tuple(row) for row in inputs["input_ids"].tolist()))
        if key not in self.kept:
            self.kept[key] = super().compute(network, inputs)
        return self.kept[key]


@fails("test_memory_is_told_until_it_is_closed", "a closed engine says that it holds EngineMemory(host=")
class NeverSaysItIsClosed(Intact):
    def memory(self):
        return self.torch.memory()


LEFT = []


@fails("test_memory_is_given_back", "host memory grows by ")
class LeavesItsWeights(Intact):
    def close(self):
        if not self.closed:
            LEFT.append(b"\1" * self.memory().host)
        super().close()
