"""Check the jobs of a suite without training: `pixbench suite SUITE --check`."""
