"""Python in a process of its own that does not import torch anew: each is forked from one that has imported it, and nothing of vcae.

A run is what it is with `sys.executable`: its own process, with the arguments, environment, folder and standard streams that it is given, and
its exit code. What is about the start of Python, imports, signals or memory needs `sys.executable` itself.

This file is all three parts: the tests ask for `python()`, the process that they start with it is the client, and the client hands its streams
to the server, which forks.
"""

import array
import atexit
import functools
import json
import os
import socket
import sys

SERVER, ROOT = "--server", os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PRELOADED = (
    "torch",
    "numpy",
    "scipy.signal",
    "soundfile",
    "soxr",
    "onnxruntime",
    "safetensors.torch",
    "typer",
    "rich.progress",
    "yaml",
)


@functools.cache
def python():
    """Return the words to write in place of `sys.executable`, before `-m` and a module or before a script; the server ends with the tests."""
    if sys.platform != "linux":
        return (sys.executable,)
    import subprocess
    import tempfile

    folder = tempfile.TemporaryDirectory(prefix="vcae-tests-")
    path = os.path.join(folder.name, "socket")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])}
    server = subprocess.Popen([sys.executable, __file__, SERVER, path], env=environment, stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"ready\n"
    atexit.register(folder.cleanup)
    atexit.register(server.wait)
    atexit.register(server.terminate)
    return (sys.executable, "-I", "-S", __file__, path)


def ask(path, words):
    """The client: hand over the streams, and end as the command ends."""
    request = json.dumps([words, os.getcwd(), [*map(list, _bytes(os.environb))]]).encode()
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        server.sendmsg([len(request).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        server.sendall(request)
        status = int(server.recv(16) or b"9")
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.waitstatus_to_exitcode(status))


def _bytes(environment):
    return ((os.fsdecode(name), os.fsdecode(value)) for name, value in environment.items())


def serve(path):
    """The server: return in each command's process, ready to run it."""
    import gc
    import importlib
    import signal

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from vcae.environment import prepare_command

    prepare_command()
    for name in PRELOADED:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "vcae"]:
        del sys.modules[name]
    # What is there already is not looked through again in each child, which would copy it.
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    os.write(1, b"ready\n")
    while True:
        client, _ = listener.accept()
        while _reaped():
            pass
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            length, rights, _, _ = client.recvmsg(8, socket.CMSG_SPACE(3 * 4))
            request = b""
            while len(request) < int.from_bytes(length, "big"):
                request += client.recv(1 << 20)
            if not (child := os.fork()):
                client.close()
                _become(*json.loads(request), array.array("i", rights[0][2]))
                return
            client.sendall(str(os.waitpid(child, 0)[1]).encode())
            os._exit(0)
        client.close()


def _reaped():
    try:
        return os.waitpid(-1, os.WNOHANG)[0]
    except ChildProcessError:
        return 0


def _become(words, folder, environment, streams):
    for n, stream in enumerate(streams):
        os.dup2(stream, n)
        os.close(stream)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.clear()
    os.environ.update(environment)
    if os.environ.get("OMP_NUM_THREADS", before) != before:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    os.chdir(folder)
    sys.argv = words


def _run():
    """Run a module or a script, and end as Python does, but without taking apart all that was imported, which takes a second."""
    import runpy
    import threading

    code = 0
    try:
        if sys.argv[0] == "-m":
            sys.argv = sys.argv[1:]
            sys.path[0] = os.getcwd()
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            sys.stderr.write(code + "\n")
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == SERVER:
        serve(sys.argv[2])
        _run()
    else:
        ask(sys.argv[1], sys.argv[2:])
