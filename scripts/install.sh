#!/usr/bin/env bash
# Installs PixBench and everything it drives: torch, mmcv with compiled ops, MMSegmentation, Detectron2.
#
#   scripts/install.sh                       into .venv (made if absent), or into the active environment
#   VENV=/somewhere scripts/install.sh       into that virtual environment
#   DETECTRON2=upstream scripts/install.sh   Detectron2 from its official git instead of the PyPI wheel
#   PYTHON=python3.12 scripts/install.sh     the interpreter to make the environment with
#   TORCH="torch==2.11.0 torchvision==0.26.0" scripts/install.sh   other versions or builds of PyTorch
#
# Without an NVIDIA device the CPU build of PyTorch is taken where the package index has one (a tenth of the size); to add an
# index that has it, set pip's own PIP_EXTRA_INDEX_URL.
# Done once: a stamp in the environment holds a checksum of the recipe, and a finished install is left alone. What pip prints
# goes to install.log in the environment; its end is shown if something fails.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$(date +%s)
DETECTRON2=${DETECTRON2:-wheel}
TORCH=${TORCH:-}
TORCH_VERSION=2.11.0 TORCHVISION_VERSION=0.26.0
MMCV=onedl-mmcv==2.3.6
MMDET=onedl-mmdetection==3.5.1

say() { printf '[install %4ds] %s\n' "$(( $(date +%s) - started ))" "$*"; }
die() { printf 'install: %s\n' "$*" >&2; exit 1; }

if [ -z "${VENV:-}" ] && [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  VENV=${VIRTUAL_ENV:-$CONDA_PREFIX}
fi
VENV=${VENV:-.venv}
stamp=$VENV/.pixbench-installed
recipe=$(cat scripts/install.sh scripts/requirements.txt pyproject.toml <(printf '%s' "$DETECTRON2 $TORCH $PWD") | sha256sum | cut -d' ' -f1)
[ "$(cat "$stamp" 2>/dev/null)" = "$recipe" ] && exit 0

case "$DETECTRON2" in wheel|upstream) ;; *) die "DETECTRON2=$DETECTRON2 is not known; use 'wheel' or 'upstream'." ;; esac
command -v "${CXX:-g++}" >/dev/null || die "no C++ compiler found (needed once, for mmcv's ops): apt-get install g++"

if [ ! -x "$VENV/bin/python" ]; then
  PYTHON=${PYTHON:-python3}
  "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
    || die "$("$PYTHON" --version) is not supported; Python 3.10 to 3.13 is. Name one with PYTHON=."
  "$PYTHON" -c 'import ensurepip' 2>/dev/null || die "this Python cannot make virtual environments: apt-get install python3-venv"
  say "making $VENV with $("$PYTHON" --version)"
  "$PYTHON" -m venv "$VENV"
fi
python=$VENV/bin/python
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
  || die "Python.h is missing (needed once, for mmcv's ops): apt-get install python3-dev"
log=$VENV/install.log
: > "$log"
pip() {
  printf '\n$ pip install %s\n' "$*" >> "$log"
  "$python" -m pip install --disable-pip-version-check --progress-bar off --root-user-action=ignore "$@" >> "$log" 2>&1 && return
  tail -n 15 "$log" >&2
  die "pip failed; all it printed is in $log"
}

if [ -z "$TORCH" ]; then
  TORCH="torch==$TORCH_VERSION torchvision==$TORCHVISION_VERSION"
  cpu="torch==$TORCH_VERSION+cpu torchvision==$TORCHVISION_VERSION+cpu"
  # a torch that is there already stays: this may be the login node of a cluster with GPUs
  # shellcheck disable=SC2086
  if ! compgen -G '/dev/nvidia[0-9]*' > /dev/null && ! "$python" -m pip show --quiet torch 2> /dev/null \
    && "$python" -m pip install --dry-run --no-deps --quiet $cpu > /dev/null 2>&1; then
    TORCH=$cpu
  fi
fi
say "1/6 $TORCH (the builds for GPUs are about 3 GB of downloads)"
# shellcheck disable=SC2086
pip $TORCH
say "2/6 build tools"
pip "setuptools>=77,<81" wheel ninja psutil hatchling

if "$python" -c 'import mmcv.ops' 2>/dev/null; then
  say "3/6 mmcv with ops: present"
else
  say "3/6 $MMCV: compiling its ops, once (4 to 20 minutes on two cores; pip keeps the wheel)"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  PATH="$PWD/$VENV/bin:$VENV/bin:$PATH" MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-$(nproc)} PCH_DIR="$scratch/pch" \
    REAL_CXX=${CXX:-g++} CXX="$PWD/scripts/cxx_with_pch.sh" pip --no-build-isolation "$MMCV"
fi
say "4/6 MMSegmentation, Cityscapes scripts, what Detectron2 needs"
pip -r scripts/requirements.txt
# MaskFormer's head. Without dependencies: imaug, which only unused augmentations import, would bring other versions of numpy and OpenCV.
pip --no-deps "$MMDET"

site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if "$python" -c 'import detectron2' 2>/dev/null; then
  say "5/6 Detectron2: present"
elif [ "$DETECTRON2" = upstream ]; then
  say "5/6 Detectron2 from its official git (compiles)"
  pip --no-build-isolation 'git+https://github.com/facebookresearch/detectron2'
else
  say "5/6 Detectron2 (sal-detectron2, upstream's Python files of 2024-04-17)"
  # Tagged cp310, but what our protocols use is pure Python: RoIAlign and NMS come from torchvision.
  pip --no-deps --only-binary=:all: --python-version 3.10 --upgrade --target "$site" sal-detectron2==0.7.2
fi
say "6/6 PixBench itself, with its test tools"
pip --no-build-isolation -e '.[dev]'
# Headless machines often lack libGL, which the desktop build of OpenCV wants.
if ! "$python" -c 'import cv2' 2>/dev/null; then
  say "OpenCV does not import here (libGL missing?): taking the headless build"
  "$python" -m pip uninstall --quiet --yes opencv-python opencv-python-headless
  pip opencv-python-headless
fi
"$python" -W ignore -c 'import torch, torchvision, mmcv.ops, mmseg, mmdet.models, detectron2.model_zoo, pycocotools.mask, cityscapesscripts, pixbench, pretrain, transfer, benchmarks'
printf '%s\n' "$recipe" > "$stamp"
say "done: $VENV"
