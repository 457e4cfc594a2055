"""Images per second that train the reference convnet: ours through Ray, beside what a user would pick instead.

All ways train Keras's MNIST convnet (34,826 parameters, dropout 0.5, categorical cross-entropy, Adam) with a global
batch of 128, in float32 but for the two ways that say mixed:

  ours-1     `mnist train --recipe notebook --workers 1`, the worker on all cores
  ours-2     the same with --workers 2, each on half of the cores
  mixed-1    --workers 1 --precision mixed: the convolution of many channels multiplies bfloat16
  mixed-2    the same with --workers 2
  keras-fit  Keras 3 `fit` in one process on all cores, as a notebook has it (peers/keras_fit.py)
  tf-keras   Keras 2 `fit` under MultiWorkerMirroredStrategy, two processes, each on half of the cores
             (peers/tf_keras_worker.py); Keras 3 `fit` does not run under that strategy
  torch      PyTorch in one process on all cores (peers/torch_fit.py); only where --torch-python names a Python that has
             it, such as Debian's /usr/bin/python3 after apt-get install python3-torch

A rate is the images of all epochs but the first over the seconds of those epochs. The first is the warm-up: it holds
tracing and the filling of caches. Not in it: start-up, validation after an epoch, evaluation, publishing. In it: what
each way does within an epoch, which for ours is batching, writing checkpoints and saying how the run is doing.

Read the ratios: each is the median of ratios taken within one round, so that a slow minute of the machine is in both
sides. A rate over less than 8 s of training is not steady, and is warned of: take more --epochs or --images.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from _common import (
    CORES,
    MNIST_TRAIN,
    PEERS,
    at_least,
    interleave,
    make_parser,
    make_row,
    median_ratio,
    print_report,
    started,
    write_digits,
)

from mnist_core.ports import free_ports

HALF = max(1, CORES // 2)
STEADY_S = 8.0


def ours(num_workers: int, precision: str, dataset: Path, epochs: int, folder: Path) -> float:
    """Rate of our training command, from the history that its artifact keeps."""
    options = ["--recipe", "notebook", "--dataset", str(dataset), "--workers", str(num_workers)]
    options += ["--precision", precision]
    with (
        tempfile.TemporaryDirectory(dir=folder) as storage,
        started([*MNIST_TRAIN, *options, "--epochs", str(epochs), "--storage", storage, "--json"], folder) as command,
    ):
        result = command.result()
        history = json.loads(Path(result["artifact"], "evaluation.json").read_text())["history"]
    return _rate(result["dataset"]["train"], [report["seconds"] for report in history])


def keras_fit(dataset: Path, epochs: int, folder: Path) -> float:
    """Rate of Keras 3 in one process."""
    command = [sys.executable, str(PEERS / "keras_fit.py"), str(dataset), str(epochs)]
    with started(command, folder, KERAS_BACKEND="tensorflow") as running:
        result = running.result()
    return _rate(result["images"], result["seconds"])


def tf_keras(dataset: Path, epochs: int, folder: Path) -> float:
    """Rate of Keras 2 under the strategy, two processes together."""
    command = [sys.executable, str(PEERS / "tf_keras_worker.py"), str(dataset), str(epochs), str(HALF)]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    with ExitStack() as stack:
        workers = []
        for rank in range(2):
            place = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})
            workers.append(stack.enter_context(started(command, folder, TF_CONFIG=place, TF_USE_LEGACY_KERAS="1")))
        result, _ = [worker.result() for worker in workers]
    return _rate(result["images"], result["seconds"])


def pytorch(python: str, dataset: Path, epochs: int, folder: Path) -> float:
    """Rate of PyTorch in one process."""
    command = [python, str(PEERS / "torch_fit.py"), str(dataset), str(epochs), str(CORES)]
    with started(command, folder) as running:
        result = running.result()
    return _rate(result["images"], result["seconds"])


WAYS: dict[str, tuple[str, Callable[[Path, int, Path], float]]] = {
    "ours-1": (f"ours on Ray, 1 worker x {CORES} threads", partial(ours, 1, "float32")),
    "ours-2": (f"ours on Ray, 2 workers x {HALF} threads", partial(ours, 2, "float32")),
    "mixed-1": (f"ours on Ray, 1 worker x {CORES} threads, mixed", partial(ours, 1, "mixed")),
    "mixed-2": (f"ours on Ray, 2 workers x {HALF} threads, mixed", partial(ours, 2, "mixed")),
    "keras-fit": (f"Keras 3 fit, 1 process, {CORES} cores", keras_fit),
    "tf-keras": (f"tf_keras fit, strategy, 2 processes x {HALF} threads", tf_keras),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = make_parser(__doc__, rounds=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="which ways (default: all)")
    parser.add_argument("--images", type=int, default=30_000, help="training images (default 30000)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs, the first of them warm-up (default 4)")
    parser.add_argument("--torch-python", metavar="PATH", help="a Python that has PyTorch: time it too")
    options = parser.parse_args(argv)
    if options.smoke:
        options.rounds, options.images, options.epochs = 1, 600, 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_digits(folder / "digits.npz", options.images)
        measures = {way: partial(WAYS[way][1], dataset, options.epochs, folder) for way in options.ways}
        if options.torch_python:
            measures["torch"] = partial(pytorch, options.torch_python, dataset, options.epochs, folder)
        rates = interleave(measures, options.rounds)
    titles = {way: title for way, (title, _) in WAYS.items()} | {"torch": f"PyTorch, 1 process, {CORES} cores"}
    rows = [make_row(titles[way], "img/s", rates[way]) for way in rates]
    ratios = {
        f"{above} / {below}": median_ratio(rates[above], rates[below])
        for above in ("ours-1", "ours-2", "mixed-1", "mixed-2")
        for below in ("keras-fit", "tf-keras", "torch")
        if above in rates and below in rates
    }
    bounds = {"ours-2 / keras-fit": 1.1, "mixed-2 / keras-fit": 1.5, "mixed-2 / tf-keras": 3.0}
    must = {name: at_least(ratios[name], bound) for name, bound in bounds.items() if name in ratios}
    print_report("train_throughput", options.rounds, rows, ratios, must, json_only=options.json_only)


def _rate(images: int, seconds: Sequence[float]) -> float:
    steady = seconds[1:]
    if sum(steady) < STEADY_S:
        print(f"warning: measured over {sum(steady):.1f} s only, expected {STEADY_S:g} s or more", file=sys.stderr)
    return images * len(steady) / sum(steady)


if __name__ == "__main__":
    main()
