"""Run on one machine with GPUs what no test on a CPU can show, and write one report: ``python -m benchmarks.gpu_day``."""
