#!/usr/bin/env bash
# The program itself: process.sh PATH_TO_FISHERD. What it prints, its exit status, its end by signals.
set -euo pipefail
fisherd=$1
folder=$(mktemp -d)
server=
cleanup() {
  [[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true
  rm -rf "$folder"
}
trap cleanup EXIT

fail() { echo "process.sh: $*" >&2; exit 1; }

# expect STATUS TEXT ARGS...: fisherd ARGS ends with STATUS and says TEXT.
expect() {
  local status=$1 text=$2 said rc=0
  shift 2
  said=$("$fisherd" "$@" 2>&1) || rc=$?
  ((rc == status)) || fail "fisherd $* ended with $rc, not $status"
  [[ $said == *"$text"* ]] || fail "fisherd $* did not say '$text' but: $said"
}

# start ARGS...: a fisherd on a free port; $port.
start() {
  rm -f "$folder/port"
  "$fisherd" --listen=127.0.0.1:0 --port-file="$folder/port" "$@" 2>"$folder/log" &
  server=$!
  until [[ -e $folder/port ]]; do
    kill -0 "$server" 2>/dev/null || fail "fisherd did not start: $(cat "$folder/log")"
    sleep 0.02
  done
  port=$(<"$folder/port")
}

# stop SIGNAL: it ends well.
stop() {
  kill -"$1" "$server"
  local rc=0
  wait "$server" || rc=$?
  server=
  ((rc == 0)) || fail "fisherd ended with $rc at SIG$1: $(cat "$folder/log")"
}

expect 0 "fisherd " --version
FISHERD_TARGET=scalar expect 0 "kernels: scalar (of " --version
FISHERD_TARGET=avx9 expect 2 "FISHERD_TARGET=avx9: expected one of " --version
expect 0 "--state-budget=BYTES" --help
expect 2 "unknown flag --windwo; did you mean --window?" --windwo=3
expect 2 "--window=0: expected a whole number from 1 to 1024" --window=0
start
expect 1 "cannot listen at 127.0.0.1:$port" --listen="127.0.0.1:$port"
stop TERM
start --listen="unix:$folder/socket"
[[ -S $folder/socket ]] || fail "there is no socket: $(cat "$folder/log")"
expect 1 "cannot listen at unix:$folder/socket: the address is taken" --listen="unix:$folder/socket"
kill -KILL "$server"
wait "$server" || true
start --listen="unix:$folder/socket"
stop TERM
[[ ! -e $folder/socket ]] || fail "the socket is still there"
start --shared-memory="$folder/memory" --shared-memory-limit=1GiB
[[ $(stat -c %a "$folder/memory") == 660 ]] || fail "the socket for shared memory is not the group's"
grep -q "shared memory at $folder/memory" "$folder/log" || fail "it did not say so: $(cat "$folder/log")"
expect 1 "cannot listen at unix:$folder/memory: the address is taken" --listen="127.0.0.1:0" --shared-memory="$folder/memory"
stop TERM
[[ ! -e $folder/memory ]] || fail "the socket for shared memory is still there"
start --log-level=error
stop INT
[[ ! -s $folder/log ]] || fail "it logged below --log-level=error: $(cat "$folder/log")"
echo ok
