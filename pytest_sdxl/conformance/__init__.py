"""The conformance suite: does an engine compute the same function as the fp32 torch reference, and keep its contract?

    pytest -m conformance --sdxl-engine=NAME                       # in this repository
    pytest --pyargs pytest_sdxl.conformance --sdxl-engine=NAME     # wherever the package is installed

The checks are the `test_*` modules, one per chapter of the contract in `sdxl_engine/engines/base.py`.
docs/conformance.md lists them, says where the bounds come from and how to read a failure.
"""
