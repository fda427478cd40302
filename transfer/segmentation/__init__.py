"""Fine-tune a backbone in MMSegmentation: `run.run(job, backbone)`. Importing this package imports no framework."""
