#!/usr/bin/env bash
# Compiler wrapper for building mmcv. Nearly all of the compile time is spent parsing <torch/types.h> in each of its
# 78 files. Therefore the first call precompiles that header with its own flags, and every call includes the result.
# If anything fails, the plain compiler is used. Needs PCH_DIR (a scratch folder) and REAL_CXX (the compiler).
set -u
cxx=${REAL_CXX:-g++}
compiles=no; torch_dir=; flags=(); skip=no
for arg in "$@"; do
  if [ "$skip" = yes ]; then skip=no; continue; fi
  case "$arg" in
    -c) compiles=yes ;;
    -o|-MF|-MT|-MQ) skip=yes ;;
    -MMD|-MD|-MP) ;;
    *.cpp|*.cc|*.cxx|*.o|*.so) ;;
    *) flags+=("$arg")
       case "$arg" in -I*/torch/csrc/api/include) torch_dir=${arg#-I} ;; esac ;;
  esac
done
if [ "$compiles" = yes ] && [ -n "$torch_dir" ] && [ -f "$torch_dir/torch/types.h" ] && [ -n "${PCH_DIR:-}" ]; then
  mkdir -p "$PCH_DIR"
  (
    flock 9
    if [ ! -e "$PCH_DIR/types.h" ]; then
      cp "$torch_dir/torch/types.h" "$PCH_DIR/types.h"
      "$cxx" "${flags[@]}" -x c++-header "$PCH_DIR/types.h" -o "$PCH_DIR/types.h.gch" 2>/dev/null || rm -f "$PCH_DIR/types.h.gch"
    fi
  ) 9>"$PCH_DIR/lock"
  if [ -e "$PCH_DIR/types.h.gch" ] && "$cxx" -include "$PCH_DIR/types.h" "$@" 2>"$PCH_DIR/err.$$"; then
    rm -f "$PCH_DIR/err.$$"; exit 0
  fi
fi
exec "$cxx" "$@"
