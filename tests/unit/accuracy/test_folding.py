"""Folding of batch normalisation into convolutions."""

import copy

import numpy as np


def test_folded_network_is_the_same_function():
    import torch
    from torchvision.models.inception import BasicConv2d

    from sdxl_engine.accuracy.folding import fold_batch_norms

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(
            BasicConv2d(3, 16, kernel_size=3), torch.nn.Sequential(BasicConv2d(16, 8, kernel_size=(1, 5)))
        )
        for block in (network[0], network[1][0]):
            for values, low, high in (
                (block.bn.running_mean, -1, 1),
                (block.bn.running_var, 1e-4, 2),
                (block.bn.weight.data, 0.2, 3),
                (block.bn.bias.data, -1, 1),
            ):
                values.uniform_(low, high)
        pixels = torch.rand(2, 3, 20, 20) * 2 - 1
    network.eval().requires_grad_(requires_grad=False)
    exact = copy.deepcopy(network).double()(pixels.double()).numpy()
    plain = network(pixels).numpy()
    fold_batch_norms(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    folded = network(pixels).numpy()
    scale = np.abs(exact).max()
    np.testing.assert_allclose(folded, exact, rtol=0, atol=1e-6 * scale)
    assert np.abs(folded - exact).max() < 2 * np.abs(plain - exact).max(), "no worse than the network as it was"
