"""What the disk says while a set is opened: where it cannot be kept, the variable that moves it is named."""

import errno
import os
from pathlib import Path

import datasets
from support.borders import Refused, check, outcomes

from hf_pmgaft.data.source_errors import named_errors

CACHE = Path(datasets.config.HF_DATASETS_CACHE)
MOVED = "set HF_HOME or HF_DATASETS_CACHE to a folder that you may write to and that has room"


def kept(words: str) -> Refused:
    return Refused(words, OSError)


def error(number: int, file: object) -> OSError:
    return OSError(number, os.strerror(number), None if file is None else str(file))


ERRORS = {
    "a disk that is full": (error(errno.ENOSPC, CACHE / "user___set" / "set.arrow"), kept(MOVED)),
    "a quota that is reached": (error(errno.EDQUOT, CACHE / "user___set"), kept(MOVED)),
    "a disk that is read-only": (error(errno.EROFS, CACHE / "user___set"), kept(MOVED)),
    "a cache of somebody else": (error(errno.EACCES, CACHE / "user___set" / "lock"), kept(MOVED)),
    "a cache that cannot be made": (error(errno.ENOENT, CACHE.parent), kept(MOVED)),
    "a cache below a file": (error(errno.ENOTDIR, CACHE), kept(MOVED)),
    "a full disk elsewhere": (error(errno.ENOSPC, "/data/set"), kept("cannot be read or kept: No space left")),
    "a full disk without a name": (error(errno.ENOSPC, None), kept("cannot be read or kept: No space left")),
    "files of somebody else": (error(errno.EACCES, "/data/set/a.tar"), kept("kept: Permission denied")),
    "too many open files": (error(errno.EMFILE, "/data/set/a.tar"), kept("kept: Too many open files")),
    "a file that is gone": (error(errno.ENOENT, "/data/set/a.tar"), Refused("cannot be read ([Errno 2]")),
    "an error without a number": (OSError("truncated"), Refused("cannot be read (truncated)")),
}


@outcomes(ERRORS)
def test_what_the_disk_says(given, outcome):
    def opened():
        with named_errors("user/set", split="train"):
            raise given

    check(opened, outcome)
    is_of_cache = isinstance(outcome, Refused) and outcome.words == MOVED
    try:
        opened()
    except (OSError, ValueError) as shown:
        assert (MOVED in str(shown)) == is_of_cache and "'user/set', split 'train'" in str(shown)
