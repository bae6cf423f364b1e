#!/usr/bin/env python3
"""Measures pairs of proxies in the place of a pair of sidecars. README.md says how; `run` beside this file does it."""
import argparse
import json
import os
import pathlib
import signal
import sys
import time

import machine
import tables
from rows import BLOCKS, Broken, Rows

HERE = pathlib.Path(__file__).resolve().parent
SCRATCH = HERE.parents[1] / "target" / "pair"
PEERS = ["direct", "vouchsafe", "vouchsafe-tunnel", "vouchsafe-aws-lc", "envoy", "haproxy", "nginx"]


def main():
    options = read_options()
    if options.table:
        document = json.loads(pathlib.Path(options.table).read_text())
    else:
        document = measure(options)
    text = tables.markdown(document)
    print(text)
    if options.write:
        tables.write(pathlib.Path(options.write), text)
    if any(result["test"] == "broken" for result in document["results"]):
        sys.exit(1)


def read_options():
    parser = argparse.ArgumentParser(description=__doc__)
    tests = ",".join(test for block in BLOCKS for test in block.tests)
    parser.add_argument("peers", nargs="*", default=PEERS, help="scripts of peers/; what cannot run here is left out")
    parser.add_argument("--rounds", type=int, default=3, help="every peer has its turn in each")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--per-second", type=int, default=2000, help="requests of the tests of latency")
    parser.add_argument("--tests", default="", help=f"some of {tests}")
    parser.add_argument("--idle", default="1000,5000", help="idle connections whose memory is measured")
    parser.add_argument("--workers", type=int, default=1, help="threads or processes of each proxy")
    parser.add_argument("--load-cpu", default="0", help="processor of the load and the application")
    parser.add_argument("--out-cpu", default="1", help="processor of the outbound proxy")
    parser.add_argument("--in-cpu", default="1", help="processor of the inbound proxy")
    parser.add_argument("--foreign", type=float, default=0.15, help="processors others may use during a calm run")
    parser.add_argument("--repeats", type=int, default=1, help="of a disturbed run, at most")
    parser.add_argument("--json", default=str(SCRATCH / "results.json"), help="where every single figure goes")
    parser.add_argument("--table", help="measure nothing: print the tables of such a file")
    parser.add_argument("--write", help="also put the tables into this file, between its markers")
    return parser.parse_args()


def measure(options):
    wanted = set(filter(None, options.tests.split(",")))
    rows = Rows(HERE, SCRATCH, options)
    peers = [peer for peer in options.peers if rows.abilities(peer)]
    for peer in options.peers:
        if peer not in peers:
            print(f"{peer} cannot run here: left out", file=sys.stderr)
    if not peers:
        sys.exit("there is nothing to measure")
    document = {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine.describe(),
        "rounds": options.rounds,
        "workers": options.workers,
        "versions": {peer: rows.hook(peer, "version") for peer in peers},
        "results": rows.results,
    }
    # Ends like any other way out: namespaces and processes are taken down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for number in range(options.rounds):
            # Interleaved, and each round begins with another peer.
            first = number % len(peers)
            for peer in peers[first:] + peers[:first]:
                print(f"round {number + 1}: {peer}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
                one_round(rows, peer, number, wanted)
                pathlib.Path(options.json).write_text(json.dumps(document, indent=1))
    finally:
        rows.stop()
    return document


def one_round(rows, peer, number, wanted):
    able = rows.abilities(peer)
    for block in BLOCKS:
        tests = [test for test in block.tests if test in wanted or not wanted]
        if block.ability not in able or not tests or (peer == "direct" and not block.direct):
            continue
        try:
            rows.start(peer, block, number)
            for test in tests:
                rows.measure(test)
        except Broken as broken:
            rows.record("broken", block=block.name, error=str(broken))
        except Exception as surprise:  # One peer must not end the run of all.
            rows.record("broken", block=block.name, error=type(surprise).__name__)
            print(surprise, file=sys.stderr)
        finally:
            rows.stop()


if __name__ == "__main__":
    main()
