"""Turn a manifest into a prepared cache: `python recipes/prepare/cache.py MANIFEST OUT [--split train] [--speeds 0.9 1 1.1]`."""

import argparse
import logging

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vcae.training.cache import prepare_cache, read_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest")
    parser.add_argument("output_dir")
    parser.add_argument("--split", help="keep only rows of this split")
    parser.add_argument(
        "--speeds", type=float, nargs="+", default=[1.0], help="speeds other than 1 add copies as additional speakers"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    rows = read_manifest(args.manifest, args.split)
    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("", total=len(rows) * len(args.speeds))
        index = prepare_cache(rows, args.output_dir, tuple(args.speeds), lambda done, _: bar.update(task, completed=done))
    print(f"wrote {index}")


if __name__ == "__main__":
    main()
