"""./dev bench python: streams from Python beside C++'s, and what capture costs a training step.

What is compared is measured in this one run, in alternation; figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]


def run(*command: str) -> Any:
    """Return what a program prints as JSON."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def cpp_rates(stream_bench: str, fisherd: str) -> dict[str, float]:
    """Return the C++ client's GB/s by transport and batch size: "tcp/1MiB"."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "figures.json"
        command = [stream_bench, "stream", "--quick", "--filter", "^(tcp|shm)/(1|16)MiB/t1/f1$", "--fisherd", fisherd]
        subprocess.run([*command, "--json", str(path)], check=True, capture_output=True)
        results = json.loads(path.read_text())["results"]
    return {result["name"].removesuffix("/t1/f1"): result["ours_gbps"] for result in results}


def bench_streams(options: argparse.Namespace) -> list[Row]:
    """Return a row for each transport, batch size and set of packages."""
    cpp: list[dict[str, float]] = []
    python: dict[str, list[dict[str, Row]]] = {"pypi": [], "debian": []}
    for _ in range(1 if options.quick else 5):
        cpp.append(cpp_rates(options.stream_bench, options.fisherd))
        for packages, rounds in python.items():
            interpreter = str(options.environments / packages / "bin/python")
            rounds.append({row["name"]: row for row in run(interpreter, str(HERE / "streaming.py"), options.fisherd)})
    rows: list[Row] = []
    for name in cpp[0]:
        theirs = statistics.median(one[name] for one in cpp)
        for packages, rounds in python.items():
            ours = statistics.median(one[name]["gbps"] for one in rounds)
            cpu = statistics.median(one[name]["cpu_s_per_gb"] for one in rounds)
            share = statistics.median(mine[name]["gbps"] / cpps[name] for mine, cpps in zip(rounds, cpp, strict=True))
            figures = {"python_gbps": ours, "cpp_gbps": theirs, "share": share, "cpu_s_per_gb": cpu}
            rows.append({"name": name, "packages": packages, **figures})
    return rows


def bench_training(options: argparse.Namespace) -> list[Row]:
    """Return a row for a server with a core to itself and one without, by shared memory and over TCP."""
    command = [str(options.environments / "debian/bin/python"), str(HERE / "training.py"), options.fisherd]
    quick = ["--quick"] if options.quick else []
    places = ["apart", "beside"] if len(os.sched_getaffinity(0)) > 1 else ["beside"]
    return [run(*command, place, transport, *quick) for place in places for transport in ("shm", "tcp")]


def claim(figure: float, bound: float, *, at_least: bool, what: str) -> Row:
    """Return what must hold, and whether it does."""
    holds = figure >= bound if at_least else figure <= bound
    return {"what": what, "figure": figure, "must_be": "at least" if at_least else "at most", "bound": bound,
            "holds": holds}  # fmt: skip


def claims(streams: list[Row], training: list[Row]) -> list[Row]:
    """Return all that must hold."""
    made = []
    for transport in ("tcp", "shm"):
        worst = min(row["share"] for row in streams if row["name"].startswith(transport))
        made.append(claim(worst, 0.7, at_least=True, what=f"Python's throughput / C++'s, from 1 MiB, {transport}"))
    for row in training:
        if row["server"] == "apart":
            what = f"step slowed by capture, the server with a core to itself, {row['transport']}"
            made.append(claim(row["slowed"], 0.15, at_least=False, what=what))
    return made


def report(streams: list[Row], training: list[Row], held: list[Row]) -> None:
    """Print the figures."""
    print(
        "streams of batches, GB/s (10^9 bytes of elements a second); tr/GB: seconds of the trainer's CPU time for one"
    )
    print("batch      packages   Python     C++  share   tr/GB")
    for row in streams:
        rates = f"{row['python_gbps']:8.2f} {row['cpp_gbps']:7.2f} {row['share']:6.0%} {row['cpu_s_per_gb']:7.2f}"
        print(f"{row['name']:10} {row['packages']:9} {rates}")
    print("\na training step, 4 layers of 1024 x 1024, 256 rows, capture on every step: ms")
    print("server  transport  threads    none  captured  slowed by  more CPU")
    for row in training:
        times = f"{row['none_ms']:7.1f} {row['captured_ms']:9.1f} {row['slowed']:10.1%} {row['cpu']:9.1%}"
        print(f"{row['server']:7} {row['transport']:9}  {row['threads']:7d} {times}")
    print("\nwhat must hold")
    for one in held:
        word = "holds" if one["holds"] else "falls short"
        print(f"{word:11} {one['figure']:8.3g}  {one['must_be']:8} {one['bound']:<5g}  {one['what']}")


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(prog="./dev bench python", description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures there too")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--fisherd", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--stream-bench", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--environments", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores; load before this {os.getloadavg()[0]:.2f}\n", flush=True)
    streams, training = bench_streams(options), bench_training(options)
    held = claims(streams, training)
    report(streams, training, held)
    if options.json is not None:
        options.json.write_text(json.dumps({"streams": streams, "training": training, "claims": held}, indent=1))


if __name__ == "__main__":
    main()
