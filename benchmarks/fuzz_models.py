"""Whether any forged file of a stored model ends the process that opens it, or makes it fail without a sentence.

python3 -m benchmarks.fuzz_models                       100,000 files (long)
python3 -m benchmarks.fuzz_models --files 5000 --seed 3
python3 -m benchmarks.fuzz_models --reader skops --files 500      how a reader fares that believes what it reads

Small models of each kind get one to three lies: numbers of trees, shapes and types of arrays, settings, the structure of the
file, single bytes. Each file is opened by `unpack` in a process of its own; of what is accepted all methods are called, with
tables and sparse ones. A file that ends the process, computes for a minute or takes more than 6 GiB counts as one that crashed.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.common import in_test_environment, keep, table


def main() -> int:
    """Forge, count and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", choices=("ours", "skops"), default="ours")
    args = parser.parse_args()
    in_test_environment(["-m", "benchmarks.fuzz_models", *sys.argv[1:]])
    from tqdm.auto import tqdm

    from tests.support.forging import campaign

    start = time.monotonic()
    with tqdm(total=args.files, unit="file", mininterval=5) as bar:
        found = campaign(args.files, args.seed, reader=args.reader, told=lambda n: bar.update(n - bar.n))
    seconds = time.monotonic() - start
    rows = [
        ["refused in a sentence", f"{found.refused:,}"],
        ["accepted, all methods called", f"{found.used:,}"],
        [
            "of these a method raised",
            ", ".join(f"{k} {v:,}" for k, v in found.raised.most_common()) or "nothing",
        ],
        ["failed without a sentence", f"{len(found.escaped):,} {' '.join(found.escaped[:5])}"],
        ["ended the process", f"{len(found.crashed):,} {list(found.crashed.items())[:5] or ''}"],
        ["seconds", f"{seconds:.0f}"],
    ]
    table(f"{args.files:,} forged files, seed {args.seed}, read by {args.reader}", ["what", "files"], rows)
    keep("fuzz-models", {**vars(args), **vars(found), "raised": dict(found.raised), "seconds": seconds})
    return 1 if found.crashed or found.escaped else 0


if __name__ == "__main__":
    sys.exit(main())
