"""Ways to run the jobs of a suite: `loop` decides what may run, `local` and `slurm` run it, `display` shows it."""
