#!/usr/bin/env bash
# Installs a build, then builds the README's program against what was installed and runs it with the installed server.
# The first argument is the build, the second the C++ compiler's launcher, if any.
set -euo pipefail
source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
server=
cleanup() {
  [[ -z $server ]] || kill "$server"
  rm -rf "$work"
}
trap cleanup EXIT

cmake --install "$1" --prefix "$work/prefix"
mkdir "$work/consumer"
cp "$source/CMakeLists.txt" "$work/consumer/"
sed -n '/^```cpp$/,/^```$/{/^```/!p}' "$source/../../README.md" >"$work/consumer/main.cc"
cmake -S "$work/consumer" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER_LAUNCHER="${2-}"
cmake --build "$work/build"

"$work/prefix/bin/fisherctl" --help
"$work/prefix/bin/fisherd" --listen 127.0.0.1:0 --port-file "$work/port" &
server=$!
while [[ ! -e $work/port ]]; do
  kill -0 "$server"
  sleep 0.05
done
# (18.5 + 0.5)^-1/2 and its neighbours: the golden values of cholesky_inverse(0.5).
natural=$("$work/build/consumer" "127.0.0.1:$(<"$work/port")" | xargs printf '%.3f ')
[[ $natural == "0.229 0.686 0.170 0.471 0.577 0.943 " ]] || { echo "multiplied: $natural" && exit 1; }
test -e "$work/prefix/share/fisherd/proto/fisherd/v1/factor_service.proto"
