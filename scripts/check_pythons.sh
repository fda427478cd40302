#!/usr/bin/env bash
# Installs PixBench from a clean clone and runs the default tests on several versions of Python, one after the other.
#
#   scripts/check_pythons.sh python3.10 python3.12 python3.13
#
# Each takes the time of a whole installation and of `make test` and 6 GB of disk, which is given back. Exit code 1 if one fails.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 2; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
for python in "$@"; do
  rm -rf "$scratch/source" "$scratch/venv"
  git clone --quiet . "$scratch/source" || exit 1
  log=$PWD/check_pythons.$(basename "$python").log
  version=$("$python" --version 2>&1) || version="$python is not there"
  if (cd "$scratch/source" && VENV=$scratch/venv PYTHON=$python make test) > "$log" 2>&1; then
    result=$(tail -n 1 "$log")
  else
    result="FAILED: $(tail -n 1 "$log") (log: $log)"
    failed=1
  fi
  printf '%s: %s\n' "$version" "$result"
done
exit $failed
