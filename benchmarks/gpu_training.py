"""Train the demo on the CPU and on a GPU and compare: `python -m benchmarks.gpu_training --store FOLDER`.

Prints JSON: tokens per second on both, and how far the losses lie apart. The first steps must agree to about
1e-4 (float32, sums in another order); later ones drift. Without a CUDA device it says that it was not run.
"""

import argparse
import json
import subprocess
import sys

from storage.artifacts.store import Store


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True, help="where the demo is, or will be built")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    import torch  # noqa: PLC0415 - not needed to print the help

    if not torch.cuda.is_available():
        print(json.dumps({"run": False, "reason": "no CUDA device"}))
        return
    results = {device: train(options.store, device, options.steps) for device in ("cpu", "cuda")}
    pairs = list(zip(results["cpu"], results["cuda"], strict=True))
    print(
        json.dumps(
            {
                "run": True,
                "device": torch.cuda.get_device_name(),
                "torch": torch.__version__,
                "tokens_per_second": {name: lines[-1]["tokens_per_second"] for name, lines in results.items()},
                "loss_difference_first_step": abs(pairs[0][0]["loss"] - pairs[0][1]["loss"]),
                "loss_difference_last_step": abs(pairs[-1][0]["loss"] - pairs[-1][1]["loss"]),
            },
            indent=1,
        )
    )


def train(store: str, device: str, steps: int) -> list[dict[str, float]]:
    """Train on a device, whatever is finished already; return the lines of metrics that hold a loss."""
    settings = {"execution.device": device, "train.max_steps": steps, "train.warmup_steps": steps // 10}
    command = [
        sys.executable,
        "-m",
        "flows.command",
        "--quiet",
        "run",
        "demo",
        "--store",
        store,
        "--target",
        "train",
    ]
    command += [f"--set={field}={value}" for field, value in settings.items()]
    subprocess.run([*command, "--force", "train"], check=True, stdout=subprocess.DEVNULL)
    newest = max(Store(store).manifests("train"), key=lambda manifest: manifest.finished)
    artifact = Store(store).find("train", newest.key)
    assert artifact is not None
    lines = [json.loads(line) for line in (artifact.report("metrics.jsonl") or b"").splitlines()]
    return [line for line in lines if "loss" in line]


if __name__ == "__main__":
    main()
