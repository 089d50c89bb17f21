"""One rank of two, as a process that does some jobs: rank.py RANK FOLDER JSON, a list of jobs' options."""

import dataclasses
import hashlib
import json
import pathlib
import sys
import time

import torch
from torch import distributed, nn
from torch.nn import functional

import fisherd.torch

OPTIONS = [("grpc.initial_reconnect_backoff_ms", 5), ("grpc.min_reconnect_backoff_ms", 5),
           ("grpc.max_reconnect_backoff_ms", 20)]  # fmt: skip


@dataclasses.dataclass
class Job:
    """What a rank is to do. spoil: the step on which rank 1's batch is not finite."""

    rank: int
    target: str
    prefix: str
    steps: int = 1
    rate: float = 0.0
    pause: float = 0.0
    spoil: int = -1
    slow: float = 0.0
    decay: float = 0.9
    attach: dict = dataclasses.field(default_factory=dict)
    policy: dict = dataclasses.field(default_factory=dict)


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 4))


def make_batch(rank, step):
    """Ranks have batches of unlike sizes."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    rows = 12 + 8 * rank
    return torch.randn(rows, 6, generator=generator), torch.randint(4, (rows,), generator=generator)


def train(job):
    model = nn.parallel.DistributedDataParallel(make_model())
    with (
        fisherd.Client(job.target, options=OPTIONS) as client,
        fisherd.torch.attach(model, client, prefix=job.prefix, decay=job.decay, **job.attach) as fisher,
    ):
        if job.slow and job.rank == 1:
            agree = fisher._sender._agree
            fisher._sender._agree = lambda words: (time.sleep(job.slow), agree(words))[1]
        optimizer = fisherd.torch.Preconditioner(torch.optim.SGD(model.parameters(), lr=job.rate), fisher, **job.policy)
        for step in range(job.steps):
            x, y = make_batch(job.rank, step)
            if step == job.spoil and job.rank == 1:
                with fisher.paused():
                    optimizer.zero_grad()
                    functional.cross_entropy(model(x), y).backward()
                x[0, 0] = float("inf")
                functional.cross_entropy(model.module(x), y).backward()
                for parameter in model.parameters():
                    parameter.grad.zero_()
            else:
                optimizer.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                if step == job.spoil:
                    for parameter in model.parameters():
                        parameter.grad.zero_()
            optimizer.step()
            time.sleep(job.pause)
        fisher.flush(60)
        bits = hashlib.sha256(b"".join(parameter.detach().numpy().tobytes() for parameter in model.parameters()))
        return {
            "parameters": bits.hexdigest(),
            "finite": all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()),
            "stats": dataclasses.asdict(fisher.stats()),
            "reconnects": sum(writer.stats().reconnects for writer in fisher._sender.writers),
        }


def main():
    rank, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    results = [train(Job(rank, **options)) for options in json.loads(sys.argv[3])]
    (folder / f"{rank}.json").write_text(json.dumps(results))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
