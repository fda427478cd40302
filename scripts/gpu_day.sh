#!/usr/bin/env bash
# Runs on a machine with 1 to 8 GPUs, in about an hour, what no test on a CPU can show, and writes one report to send back.
#
#   scripts/gpu_day.sh              after scripts/install.sh; the report is in runs/gpu_day
#   scripts/gpu_day.sh --on-cpu     the same steps without GPUs, as far as they can run, at the smallest size
#   scripts/gpu_day.sh --help       more options
#
# It uses the active environment, or .venv; VENV=/somewhere names another one. docs/gpu_day.md explains steps and report.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-${VIRTUAL_ENV:-${CONDA_PREFIX:-.venv}}}
[ -x "$VENV/bin/python" ] || { echo "gpu_day: there is no $VENV/bin/python; run scripts/install.sh first" >&2; exit 2; }
exec "$VENV/bin/python" -m benchmarks.gpu_day "$@"
