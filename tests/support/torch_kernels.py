"""What the kernels of engine `cuda` compute, by torch on any device: same arguments, same roundings, same memory.

`install` puts them in the kernels' place, so that the engine's networks can be tested where Triton only interprets.
Sums are in float32, results are rounded once to what the kernel writes.
"""

import torch
import torch.nn.functional as F

from sdxl_engine.engines.cuda import decoder, layers, resnet, transformer, unet
from sdxl_engine.engines.cuda.layers import Pending

E4M3 = torch.float8_e4m3fn


def written(y, scale):
    """As fp16, or divided by a scale and saturated as fp8."""
    return y.half() if scale is None else (y / scale).clamp(-448, 448).to(E4M3)


def total_of(pending):
    total = pending.value.float()
    if pending.shift is not None:
        shift = pending.shift.float()
        total = total + (shift[:, None, None] if shift.dim() == 2 else shift)
    return total if pending.residual is None else total + pending.residual.float()


def add_up(x):
    return x.value.copy_(total_of(x)) if isinstance(x, Pending) else x


def group_norm(x, norm, skip=None, *, silu, keep=True, scale=None):
    pending = x if isinstance(x, Pending) else Pending(x)
    total = total_of(pending)
    if pending.residual is not None or (keep and pending.shift is not None):
        total = pending.value.copy_(total).float()
    both = total if skip is None else torch.cat([total, skip.float()], -1)
    y = F.group_norm(both.permute(0, 3, 1, 2), norm.groups, norm.weight, norm.bias, norm.eps).permute(0, 2, 3, 1)
    return written(F.silu(y) if silu else y, scale).contiguous(), pending.value


def layer_norm(stream, norm, shift, scale=None):
    return written(F.layer_norm(stream.float() + shift, shift.shape, norm.weight, norm.bias, norm.eps), scale)


def text_attention(query, context, heads, scale=None):
    def by_head(rows):
        return rows.float().reshape(len(context), -1, heads, query.shape[1] // heads).transpose(1, 2)

    key, value = context.chunk(2, -1)
    mixed = F.scaled_dot_product_attention(by_head(query), by_head(key), by_head(value))
    return written(mixed.transpose(1, 2).reshape(query.shape), scale)


def quantise(x, scale):
    return written(x.float(), scale)


class TorchCompute:
    """See `layers.Compute`."""

    def multiply(self, x, weight, out, bias=None, *, residual=False, scales=None):
        y = x.float() @ weight.float().t()
        if scales is not None:
            y *= scales[0] * scales[1]
        if bias is not None:
            y += bias.float()
        return out.copy_(y + out.float() if residual else y)

    def geglu(self, x, weight, epilogue, out):
        value, gate = (x.float() @ weight.float().t()).chunk(2, 1)
        y = (value * epilogue[2] + epilogue[0]) * F.gelu(gate * epilogue[3] + epilogue[1])
        return out.copy_(y.clamp(-448, 448) if out.dtype == E4M3 else y)

    def convolve(self, x, weights, *, x_scale=None, bias=None, residual=None):
        side, channels = (3 if weights.phases == 1 else 2), weights.in_channels
        rows = weights.weight.float()
        if weights.scale is not None:
            rows = rows * weights.scale[:, None] * x_scale
        kernels = rows.reshape(weights.phases, weights.out_channels, side, side, channels).permute(0, 1, 4, 2, 3)
        padded = F.pad(x.float().permute(0, 3, 1, 2), (1, 1, 1, 1))
        if weights.phases == 1:
            y = F.conv2d(padded, kernels[0])
        else:
            images, height, width, _ = x.shape
            y = torch.empty(images, weights.out_channels, 2 * height, 2 * width, device=x.device)
            for phase, kernel in enumerate(kernels):
                down, right = divmod(phase, 2)
                seen = padded[:, :, down : down + height + 1, right : right + width + 1]
                y[:, :, down::2, right::2] = F.conv2d(seen, kernel)
        y = y.permute(0, 2, 3, 1)
        if bias is not None:
            y = y + bias
        return (y if residual is None else y + residual.float()).half().contiguous()


def install(patch):
    """Put them where the engine's modules look for the kernels; `patch` is a pytest.MonkeyPatch."""
    replaced = 0
    for module in (decoder, layers, resnet, transformer, unet):
        for function in (add_up, group_norm, layer_norm, text_attention, quantise):
            if hasattr(module, function.__name__):
                patch.setattr(module, function.__name__, function)
                replaced += 1
    assert replaced >= 8, "the engine's modules import fewer kernels than these stand for"
