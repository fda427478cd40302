"""Run the jobs of a suite: `scheduler` decides which may start, `local` and `slurm` run them, `display` shows them."""
