"""N processes of one run on this machine, each with D CPU devices: several hosts, to try and break.

    python launch/local_processes.py [--processes 2] [--devices 4] [--restarts 0]
        [--kill RANK:WHEN[:SIGNAL]] [--dry-run] -- jalign train CONFIG ...

When a process dies of a signal (127 and above, as its peers do soon after) or was told to stop
(42), all are started again, --restarts times. --kill sends KILL, or TERM, to one process of the
first start: WHEN is seconds after it, or a file or folder that will be there.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def start(args: argparse.Namespace, kill: str | None) -> int:
    """Run all processes to their end; the exit code of the first that failed, or 0."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    inherited, processes = {n: x for n, x in os.environ.items() if n != "XLA_FLAGS"}, []
    for rank in range(args.processes):
        own = {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(args.devices),
            "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
            "JALIGN_NUM_PROCESSES": str(args.processes),
            "JALIGN_PROCESS_ID": str(rank),
        }
        print("+", *(f"{n}={x}" for n, x in own.items()), shlex.join(args.command), flush=True)
        if not args.dry_run:
            out = None if rank == 0 else subprocess.DEVNULL  # the others say the same, or nothing
            processes.append(subprocess.Popen(args.command, env=inherited | own, stdout=out))
    if kill and processes:
        hurt(processes, kill)
    codes = [process.wait() for process in processes]
    codes = [128 - code if code < 0 else code for code in codes]  # -9 is what a shell calls 137
    print(f"exit codes: {codes}", flush=True)  # first counts what no restart puts right
    return next((c for c in codes if 0 < c < 127 and c != 42), next(filter(None, codes), 0))


def hurt(processes: list[subprocess.Popen], kill: str) -> None:
    """Send one of them a signal when it is time, unless one ends before."""
    rank, when, *name = kill.split(":")
    number, ends = getattr(signal, f"SIG{name[0] if name else 'KILL'}"), None
    if when.replace(".", "", 1).isdigit():
        ends = time.monotonic() + float(when)
    while not (Path(when).exists() if ends is None else time.monotonic() >= ends):
        if any(process.poll() is not None for process in processes):
            return
        time.sleep(0.02)
    print(f"+ kill -{number.name} process {rank}", flush=True)
    processes[int(rank)].send_signal(number)


def main() -> int:
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    for name, default in {"processes": 2, "devices": 4, "restarts": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kill")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    if min(args.processes, args.devices, args.restarts + 1) < 1:
        parser.error("--processes and --devices must be at least 1, --restarts at least 0")
    code = start(args, args.kill)
    for _ in range(args.restarts):
        if code == 42 or code >= 127:
            code = start(args, None)
    return code


if __name__ == "__main__":
    sys.exit(main())
