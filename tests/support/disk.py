"""A disk without room."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(room: int = 20_000):
    """Lets no file of this process grow beyond so many bytes: what a full disk does, by the system itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
