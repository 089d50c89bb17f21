#!/usr/bin/env bash
# Who may know whom (docs/architecture.md), read off the #include lines; the links of the
# CMake targets say the same. Prints each line that breaks it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
broken=0

# forbid HEADERS ROOM...: no file of the rooms includes a header whose path matches.
forbid() {
  local headers=$1
  shift
  if grep -rnE "^ *# *include *[\"<]($headers)" --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh' "$@"; then
    echo "^ forbidden in $*" >&2
    broken=1
  fi
}

forbid 'server/|client/|fisherd/|google/|grpc' core tests/core
forbid 'core/(factor|factor_registry|ledger|step_gather|registered_results|damping_table|commit_record)\.h' core/kinds
forbid 'core/[a-z_]+\.h|core/kinds/' core/kernels
forbid 'core/kernels/(accumulate|advance|convert|ingest|power|reference|target)|core/kinds/|core/[a-z_]+\.h|absl/' core/cuda
forbid 'cuda|core/cuda/' core/kernels core/kinds $(ls core/*.* | grep -v backend_cuda.cc) server client
forbid 'core/(backend_cuda|cuda_backend/)' core/kernels core/kinds $(ls core/*.* | grep -v 'backend_cuda\|devices.cc') server client
forbid 'core/kinds/[a-z_]+/' core/*.* server
forbid 'client/|fisherd/[a-z_]+\.h' server tests/server
forbid 'server/|core/[a-z_]+\.h|core/kinds/' client tests/client
forbid 'client/(ctl|trainer)/' client/cpp
exit $broken
