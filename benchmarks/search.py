"""A search's overhead, its memory, and one trial at a time against several side by side.

    python benchmarks/search.py
    python benchmarks/search.py --data faces/ --classes neutral,happy,sad --image-size 48 \
        --branches vgg16,densenet121 --epochs 20

Synthetic faces without `--data`. Every search runs the same random trials on the same
stored features; the first one to be measured follows one that fills the store.
"""

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from machine import describe_machine

SPACES = {
    "training.learning_rate": {"log": [1e-5, 1e-2]},
    "training.epsilon": {"log": [1e-8, 1.0]},
    "model.head.dropout": {"float": [0.0, 0.5]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a search.")
    parser.add_argument("--trials", type=int, default=50, help="of the longest search")
    parser.add_argument("--compared", type=int, default=12, help="trials of each compared search")
    parser.add_argument("--workers", default="1,2", help="numbers of workers to compare")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--branches", default="densenet121")
    parser.add_argument("--weights", default="random")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--data")
    parser.add_argument("--labels")
    parser.add_argument("--classes", default="")
    args = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        search(place, args, name="filling", trials=1, workers=1)
        for trials, workers in [
            *((args.compared, int(count)) for count in args.workers.split(",")),
            (args.trials, None),
        ]:
            print_results(
                trials,
                workers,
                *search(place, args, name="measured", trials=trials, workers=workers),
            )


def print_results(
    trials: int, workers: int | None, folder: Path, memory: list[tuple[int, float]]
) -> None:
    """Prints durations and memory of a search."""
    with (folder / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ends = sorted(path.stat().st_mtime for path in (folder / "trials").glob("*/trial.json"))
    first = ends[0] - float(rows[0]["seconds"])
    overhead = statistics.median(float(row["overhead"]) for row in rows[1:])
    seconds = statistics.median(float(row["seconds"]) for row in rows[1:])
    print(
        f"{trials} trials, {workers or 'default'} workers: {ends[-1] - first:.1f} s in total, "
        f"{(ends[-1] - first) / trials:.2f} s per trial; median of a trial {seconds:.2f} s, of its "
        f"overhead {overhead:.3f} s, of tracing in its first epoch {tracing(folder):.2f} s"
    )
    early = [size for ended, size in memory if 1 <= ended <= 10]
    late = [size for ended, size in memory if ended > trials - 10]
    if trials >= 30 and early and late:
        growth = max(late) / max(early) - 1
        print(
            f"memory of all processes: at most {max(early):.0f} MB in the first ten trials, "
            f"{max(late):.0f} MB in the last ten: {growth:+.1%}"
        )


def search(
    place: Path, args: argparse.Namespace, *, name: str, trials: int, workers: int | None
) -> tuple[Path, list[tuple[int, float]]]:
    """Runs a search; returns its folder, and trials ended and memory in MB ten times a second."""
    shutil.rmtree(place / name, ignore_errors=True)
    settings = {
        "data": {
            "root": args.data or [],
            "labels": args.labels,
            "classes": args.classes,
            "image_size": args.image_size,
            "views": args.views,
        },
        "model": {"branches": args.branches, "weights": args.weights, "standardize": True},
        "features": {"directory": str(place / "store")},
        "training": {"epochs": args.epochs, "patience": args.epochs},
        "output": str(place),
        "name": name,
        "search": {"tuner": "random", "trials": trials, "workers": workers, "spaces": SPACES},
    }
    path = place / "settings.yaml"
    path.write_text(yaml.safe_dump(settings))
    folder, memory = place / name, []
    command = [sys.executable, "-m", "ensemble.search", "--config", str(path)]
    with (place / "output.txt").open("w") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output)
        while child.poll() is None:
            ended = len(list((folder / "trials").glob("*/trial.json")))
            if ended < trials:  # then the best becomes a run
                memory.append((ended, proportional_memory(child.pid) / 1e3))
            time.sleep(0.1)
    if child.returncode:
        raise SystemExit(f"exit code {child.returncode}\n{(place / 'output.txt').read_text()}")
    return folder, memory


def tracing(folder: Path) -> float:
    """Returns what the first epoch takes beyond the others, in seconds, as a median."""
    beyond = []
    for path in (folder / "trials").glob("*/history.csv"):
        with path.open(newline="") as file:
            first, *others = [float(row["seconds"]) for row in csv.DictReader(file)]
        beyond.append(first - statistics.median(others or [0.0]))
    return statistics.median(beyond)


def proportional_memory(pid: int) -> int:
    """Returns the memory of a process and its descendants in kB, shared pages counted once."""
    total = 0
    for process in [pid, *descendants(pid)]:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            continue
    return total


def descendants(pid: int) -> list[int]:
    """Returns the process ids of children, their children and so on."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    children = [int(word) for word in text.split()]
    return [*children, *(each for child in children for each in descendants(child))]


if __name__ == "__main__":
    if not Path("/proc/self/smaps_rollup").exists():
        raise SystemExit("Memory is read from /proc, which this system does not have.")
    main()
