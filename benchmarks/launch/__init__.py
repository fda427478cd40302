"""Ways to run the jobs of a suite: `scheduler` decides what may run, `local` and `slurm` run it, `display` shows it."""
