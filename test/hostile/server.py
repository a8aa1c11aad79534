"""Fork a process for each case from one that has imported the programs, which takes milliseconds.

Reads a request per line on stdin, a JSON object, and answers each with a line on stdout:

    {"action", "arguments", "folder", "output", "limits"}   starts a case and answers with its process id
    {"wait": seconds}                                       waits for it and answers with how it ended
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostile import actions

_ADDRESS_BYTES = 6 << 30  # protects the machine; the oracle allows less
_CAPABILITY_VERSION = 0x20080522
_POLL_SECONDS = 0.002


def main() -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background jobs of a shell
    for name in actions.IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # otherwise collections in the forked processes copy every page
    case = 0
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = _wait(case, request["wait"])
        else:
            # A signal is delivered once the process is set up.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            case = os.fork()
            if case == 0:
                _run(request)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
            with suppress(OSError):
                os.setpgid(case, case)  # also in the child: a signal to the group must not come too early
            answer = {"pid": case}
        print(json.dumps(answer), flush=True)


def _wait(pid: int, seconds: float) -> dict[str, Any]:
    """Return how a process ended; kill it if it takes longer than `seconds`."""
    descriptor = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    timed_out = not poll.poll(1000 * seconds)
    os.close(descriptor)
    if timed_out:
        os.killpg(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    left = _left_processes(pid)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "timed_out": timed_out,
        "peak_bytes": 1024 * usage.ru_maxrss,
        "left": left,
    }


def _left_processes(group: int, seconds: float = 1.0) -> bool:
    """Return whether processes of a group are alive after `seconds`, and kill them."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(_POLL_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    return True


def _run(request: dict[str, Any]) -> None:
    """Run a case and end this process."""
    with suppress(OSError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the program handles it
    output = Path(request["output"])
    _redirect("/dev/null", 0, os.O_RDONLY)
    _redirect(output / "stdout", 1, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    _redirect(output / "stderr", 2, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    # The buffer of stdin may hold further requests, and that of stdout an answer.
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1, errors="backslashreplace")
    os.chdir(request["folder"])
    record = os.open(output / "result", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    _limit(request["limits"])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    status = _status_of(request["action"], request["arguments"], record)
    _end(status)


def _redirect(path: str | Path, number: int, flags: int) -> None:
    descriptor = os.open(path, flags, 0o600)
    os.dup2(descriptor, number)
    os.close(descriptor)


def _limit(limits: dict[str, Any]) -> None:
    """Set the limits of this process: no core files, address space, size of files, no privileges."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_BYTES, _ADDRESS_BYTES))
    if size := limits.get("file_bytes"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    _drop_capabilities()


def _drop_capabilities() -> None:
    """Give up the capabilities of root (capset(2)): with them, no file is protected."""
    header = struct.pack("<Ii", _CAPABILITY_VERSION, 0)
    if ctypes.CDLL(None, use_errno=True).capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _status_of(action: str, arguments: dict[str, Any], record: int) -> int:
    """Return the exit status that a program would have, after printing the traceback of an exception."""
    try:
        return actions.ACTIONS[action](record=record, **arguments)
    except SystemExit as ended:
        return _exit_status(ended.code)
    except BaseException:
        traceback.print_exc()
        return 1


def _exit_status(code: Any) -> int:
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


def _end(status: int) -> None:
    """End this process like a program, without returning to the loop of the server."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or 120  # as the interpreter
    os._exit(status)


def command() -> Sequence[str]:
    """Return the command that starts a server."""
    return [sys.executable, "-c", "from hostile.server import main; main()"]


if __name__ == "__main__":
    main()
