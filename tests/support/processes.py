"""Groups of processes over gloo, forked from one that has imported what they need and computes nothing itself."""

import multiprocessing
import multiprocessing.connection
import os
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

PRELOADED = ["support.processes", "support.shared_evaluation"]


class Group:
    """Processes that each call a function of a module that is preloaded, with some arguments.

    Args:
        count (`int`): How many; a single one has no process group.
        function (`Callable`): What they call.
        arguments (`Any`): What they pass.
        log (`Path`): A folder for what they raise.
        timeout (`float`): Seconds for which collectives wait.
    """

    def __init__(self, count: int, function: Callable, *arguments: Any, log: Path, timeout: float = 60):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self.log = log
        self.processes = [
            context.Process(target=_call, args=(rank, count, port, timeout, log, function, arguments))
            for rank in range(count)
        ]
        for process in self.processes:
            process.start()

    def wait(self, seconds: float) -> list[int | None]:
        """Exit codes; `None` of those that have not ended by then."""
        for process in self.processes:
            process.join(seconds)
        return [process.exitcode for process in self.processes]

    def run(self, seconds: float = 300) -> None:
        """Waits for them, and fails with what they wrote if one of them does."""
        codes = self.wait(seconds)
        self.kill()
        assert codes == [0] * len(codes), (codes, self.errors())

    def end_as_launchers_do(self, seconds: float) -> list[int]:
        """Exit codes, once the first has ended and all others were killed, as they are by a launcher."""
        assert multiprocessing.connection.wait([process.sentinel for process in self.processes], seconds)
        self.kill()
        return self.wait(0)

    def kill_when(self, is_time: Callable[[], bool]) -> None:
        """Kills all of them at once as soon as it is time, unless they have ended."""
        sentinels = [process.sentinel for process in self.processes]
        while not is_time() and not multiprocessing.connection.wait(sentinels, timeout=0.002):
            pass
        self.kill()

    def kill(self) -> None:
        """Kills those that have not ended."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()

    def errors(self) -> str:
        """What they raised."""
        return "\n".join(file.read_text() for file in sorted(self.log.glob("error-*.txt")))


def _call(rank: int, count: int, port: int, timeout: float, log: Path, function: Callable, arguments: tuple) -> None:
    code = 1
    multiprocessing.set_start_method("fork", force=True)  # of worker processes, not by way of a server
    try:
        if count > 1:
            where = {"init_method": f"tcp://127.0.0.1:{port}", "rank": rank, "world_size": count}
            dist.init_process_group("gloo", timeout=timedelta(seconds=timeout), **where)
        function(*arguments)
        if count > 1:
            dist.barrier()
        code = 0
    except BaseException:
        (log / f"error-{rank}.txt").write_text(traceback.format_exc())
    finally:
        os._exit(code)  # gloo's own end, at exit or by destroy_process_group, hangs or aborts now and then
