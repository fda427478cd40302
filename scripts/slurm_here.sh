#!/usr/bin/env bash
# Run Slurm on this machine only, for tests. Its two nodes are both this machine. Its files are in DIR.
#   scripts/slurm_here.sh start DIR   start it and print the line that sets the environment
#   scripts/slurm_here.sh stop DIR    stop it
# Needs root and Debian's packages (apt-get install slurm-wlm munge). It listens on the loopback address only.
set -eu

[ $# -eq 2 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
command=$1 dir=$(mkdir -p "$2" && cd "$2" && pwd)
export SLURM_CONF=$dir/slurm.conf

stop() {
  [ -f "$SLURM_CONF" ] || return 0
  # end the jobs first, while the controller still accepts their last messages; otherwise the daemons wait for them
  timeout 5 scancel --quiet --user="$(id -un)" || true
  for _ in $(seq 40); do
    [ -n "$(timeout 5 squeue --noheader 2>/dev/null)" ] || break
    sleep 0.5
  done
  for pid in "$dir"/slurmd/*.pid "$dir/slurmctld/pid" "$dir/munge/pid"; do
    [ ! -f "$pid" ] || kill "$(cat "$pid")" 2>/dev/null || true
    sleep 1
  done
  [ ! -L "$dir/munge" ] || rm -rf "$(readlink "$dir/munge")" "$dir/munge"
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() {
  for program in munged slurmctld slurmd; do
    command -v $program >/dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 2; }
  done
  [ "$(id -u)" = 0 ] || { echo "slurmd must run as root" >&2; exit 2; }
  trap '[ $? = 0 ] || stop' EXIT
  rm -rf "$dir"/{slurmctld,slurmd}
  mkdir -p "$dir"/{slurmctld,slurmd}
  # munged accepts a socket only in a folder that no other user can write to, so it gets its own folder
  munge=$(mktemp -d /run/slurm_here.XXXXXX)
  ln -sfn "$munge" "$dir/munge"
  chown munge "$munge" && chmod 755 "$munge"
  head -c 128 /dev/urandom >"$munge/key" && chown munge "$munge/key" && chmod 600 "$munge/key"
  runuser -u munge -- munged --key-file="$munge/key" --socket="$munge/socket" --pid-file="$munge/pid" \
    --log-file="$munge/log" --seed-file="$munge/seed"
  cat >"$SLURM_CONF" <<CONF
ClusterName=here
SlurmctldHost=localhost
SlurmctldAddr=127.0.0.1
SlurmctldPort=$(free_port)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$munge/socket
SlurmUser=root
StateSaveLocation=$dir/slurmctld
SlurmdSpoolDir=$dir/slurmd/%n
SlurmctldPidFile=$dir/slurmctld/pid
SlurmdPidFile=$dir/slurmd/%n.pid
SlurmctldLogFile=$dir/slurmctld/log
SlurmdLogFile=$dir/slurmd/%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/affinity
TaskPluginParam=Cores
KillOnBadExit=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
KillWait=5
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=$(hostname -s) NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$(free_port) CPUs=$(nproc) State=UNKNOWN
NodeName=$(hostname -s)b NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$(free_port) CPUs=$(nproc) State=UNKNOWN
PartitionName=here Nodes=ALL Default=YES State=UP
CONF
  slurmctld
  slurmd -N "$(hostname -s)"
  slurmd -N "$(hostname -s)b"
  for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%t 2>/dev/null)" != idle ] || break
    sleep 0.5
  done
  [ "$(sinfo --noheader --format=%t)" = idle ] || { tail -n 5 -q "$dir"/*/*log >&2; exit 1; }
  echo "export SLURM_CONF=$SLURM_CONF"
}

"$command"
