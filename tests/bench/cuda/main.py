"""./dev bench cuda: the kernels on a GPU beside cuBLAS and PyTorch on the same card, in one run.

Runs cuda_bench (checks, then times) and torch_peer.py one after the other, and puts their figures together.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
SKIPPED = 77


def torch_figures(python, shapes):
    """Return PyTorch's milliseconds by shape; none where it, or its GPU, is not there."""
    done = subprocess.run(
        [python, str(HERE / "torch_peer.py"), json.dumps(shapes)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print("without PyTorch:", (done.stderr.strip().splitlines() or ["it failed"])[-1])
        return {}
    return json.loads(done.stdout)


def claim(figure, bound, what, *, at_least=True):
    """Return what must hold, and whether it does."""
    holds = figure >= bound if at_least else figure <= bound
    return {"what": what, "figure": figure, "must_be": "at least" if at_least else "at most", "bound": bound,
            "holds": holds}  # fmt: skip


def claims(figures):
    """Return all that must hold."""
    results = figures["results"]
    bandwidth = figures["machine"]["gbps"]

    def share_of_copy(row):
        moved = 4 * (2 * row["inputs"] * row["outputs"] + row["rows"] * (row["inputs"] + row["outputs"]))
        return moved / row["ours_ms"] / 1e6 / bandwidth

    large = [row["floor_ms"] / row["ours_ms"] for row in results if min(row["rows"], row["inputs"]) >= 4096]
    few = [share_of_copy(row) for row in results if row["rows"] <= 8]
    fastest = [min(row["peers"].values()) / row["ours_ms"] for row in results if row["peers"]]
    passes = [row["peers"]["five_pass"] / row["ours_ms"] for row in results if "five_pass" in row["peers"]]
    made = [
        claim(min(large), 0.9, "floor / ours, all sizes from 4096"),
        claim(min(few), 0.85, "of copy bandwidth, up to 8 rows"),
        claim(
            min(row["share"] for row in figures["multiply"]),
            0.85,
            "multiply, of copy bandwidth",
        ),
    ]
    # Beside what the card takes to copy as much, launches and all; the ingest is a launch of its own.
    squared = [row["copy_ms"] / (row["ours_ms"] - row["ingest_ms"]) for row in results if row["rows"] <= 8]
    made.append(claim(min(squared), 0.85, "a copy of the state / a step from its squares, up to 8 rows"))
    if fastest:
        made.append(claim(min(fastest), 0.95, "fastest peer / ours, of every shape"))
    if passes:
        mean = math.exp(sum(map(math.log, passes)) / len(passes))
        made.append(claim(mean, 2, "five passes / ours, geometric mean"))
    return made


def report(figures):
    """Print the table and what holds."""
    print("\nms                     ours    floor   cublas    addmm  five pass | floor  fastest peer")
    for row in figures["results"]:
        peers = row["peers"]
        cells = "".join(
            f"{peers[name]:9.4f}" if name in peers else "        -" for name in ("cublas", "addmm", "five_pass")
        )
        ratio = f"{min(peers.values()) / row['ours_ms']:6.2f}" if peers else "     -"
        share = row["floor_ms"] / row["ours_ms"]
        print(f"{row['name']:18}{row['ours_ms']:9.4f}{row['floor_ms']:9.4f}{cells}   | {share:4.0%} {ratio}")
    print("\nwhat must hold")
    for one in figures["claims"]:
        word = "holds" if one["holds"] else "falls short"
        print(f"{word:11} {one['figure']:8.3g}  {one['must_be']:8} {one['bound']:<5g}  {one['what']}")


def main():
    """Run both and report."""
    parser = argparse.ArgumentParser(prog="./dev bench cuda", description=__doc__)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures there too")
    parser.add_argument("--bench", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has PyTorch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "figures.json"
        status = subprocess.run([options.bench, "--json", str(path)], check=False).returncode
        if status != 0:
            return 0 if status == SKIPPED else status
        figures = json.loads(path.read_text())
    shapes = [[row["rows"], row["inputs"], row["outputs"]] for row in figures["results"]]
    torch = torch_figures(options.python, shapes)
    for row in figures["results"]:
        row["peers"].update(torch.get(row["name"], {}))
    figures["claims"] = claims(figures)
    report(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
