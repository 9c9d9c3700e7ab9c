"""The article's picture: MNIST features learned with h = 2, λ = 0.01 beside λ = 0.75.

    make mnist-features DATA=DIR

n = 100, σ = 5, m = 1, through the real commands: a study of constants for each λ, and `embed --width 2`. Writes
docs/features-mnist.png (the last epochs side by side) and benchmarks/out/features-LAMBDA/ with every epoch and the GIF.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from commands import OUT, Command, machine
from PIL import Image

EPOCHS = 10
MARGINS = (0.01, 0.75)
DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    command = Command("mnist-features", parser.parse_args().data_dir)
    frames = [Image.open(features(command, margin) / f"epoch-{EPOCHS:03}.png") for margin in MARGINS]
    both = Image.new("RGB", (sum(frame.width for frame in frames), frames[0].height), "white")
    for number, frame in enumerate(frames):
        both.paste(frame, (number * frames[0].width, 0))
    both.save(DOCS / "features-mnist.png", optimize=True)
    print(f"wrote {DOCS / 'features-mnist.png'}; {machine()}")


def features(command: Command, margin: float) -> Path:
    """The folder with the pictures of this λ."""
    name, folder = f"features-{margin}", OUT / f"features-{margin}"
    constants = {"space.lambda": margin, "space.sigma": 5, "space.n_centers": 1, "data.minority": 100}
    settings = constants | {"training.epochs": EPOCHS, "network.batch_norm_momentum": 0.9}
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command.launch("mnist", "--name", name, "--trials", "1", "--workers", "1", *options)
    command.embed(name, "--width", "2", "--output", str(folder))
    return folder


if __name__ == "__main__":
    main()
