"""Fine-tuning of a trunk in MMSegmentation: `run.run(job, trunk)`. Importing this package imports no framework."""
