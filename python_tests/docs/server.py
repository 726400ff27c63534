"""Runs the commands of a page without importing torch for each of them: server.py SOCKET

It imports everything once and forks for every command, which gets the caller's arguments, folder, environment and
streams.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

CLIENT = """#!{python} -S
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({place!r})
    said = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(said).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(said)
    answer = server.recv(8)
sys.exit(int(answer or b"1"))
"""
"""The command ``ddarts`` of a page."""


def main() -> None:
    place = Path(sys.argv[1])
    import shortened  # noqa: F401

    import ddarts_ext.cli
    import ddarts_ext.export  # noqa: F401

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place.with_suffix(".soon")))
        server.listen()
        place.with_suffix(".soon").rename(place)  # whoever sees it is answered
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Run one command in a process of its own, and send its exit code."""
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    said = b""
    while len(said) < int.from_bytes(head, "big"):
        said += connection.recv(1 << 16)
    child = os.fork()
    if child == 0:
        os._exit(command(*json.loads(said), streams))
    _, status = os.waitpid(child, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def command(arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> int:
    import ddarts_command

    for own, given in enumerate(streams):
        os.dup2(given, own)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    try:
        ddarts_command.main()
        code: object = 0
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code if isinstance(code, int) else 0 if code is None else 1


if __name__ == "__main__":
    main()
