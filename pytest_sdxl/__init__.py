"""The pytest plugin: options, fixtures, benchmark results and gates over `sdxl_engine`."""
