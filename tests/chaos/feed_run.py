"""`make chaos`, second part: 1,000 clients and two gateways that are killed, stopped and cut off from everything.

The exit code is 0 only if every client's sequence has no hole that it was not told of, and if clients of both
gateways had to be told of none.
"""

import argparse
import asyncio
import json
import logging
import secrets
import sys
import tempfile
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

from feed_storm import LONG, SHORT, FeedStorm, as_figures


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32), help="repeats a run of this seed")
    parser.add_argument("--short", action="store_true", help="two kills and 100 clients")
    parser.add_argument("--clients", type=int, help="of one gateway each")
    parser.add_argument("--json", type=Path, help="file that the figures go to")
    options, _ = parser.parse_known_args()  # `make chaos` gives both parts the same
    logging.basicConfig(level=logging.CRITICAL)
    clients = options.clients or (100 if options.short else 1000)
    print(f"seed {options.seed}: {clients} clients of one gateway, 20 of both")
    with tempfile.TemporaryDirectory(prefix="tickloom-feed-storm-") as root:
        storm = FeedStorm(Path(root), clients, of_two=20, seed=options.seed, tell=print)
        report = asyncio.run(storm.run(SHORT if options.short else LONG))
    figures = as_figures(report)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return 1 if report.lost or report.told_of_two else 0


if __name__ == "__main__":
    sys.exit(main())
