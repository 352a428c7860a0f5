"""The reader: what it keeps, and lots of rows that are read ahead by worker processes."""

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from support.sets import replace

from hf_pmgaft import ZeroShotDataset
from hf_pmgaft.evaluation import reader as reading
from hf_pmgaft.evaluation import workers as working
from hf_pmgaft.evaluation.reader import Reader
from hf_pmgaft.evaluation.workers import LOTS_AHEAD
from hf_pmgaft.fingerprints import digest_of_image


class Grey:
    """Images of one grey each, whose labels are a class for each pixel; those of odd rows lie between 8-bit levels."""

    name = "grey"

    def __init__(self):
        self.reads = []

    def __getitem__(self, row: int) -> dict:
        self.reads.append(row)
        level = row + 0.3 * (row % 2)
        return {"images": torch.full((3, 4, 4), level / 255), "labels": torch.full((4, 4), row), "sample_id": row}


@pytest.fixture
def food(images, processor) -> ZeroShotDataset:
    return ZeroShotDataset(images, processor, name="food")


# ---- One process ----


def test_images_are_stacked_with_labels_of_any_shape():
    images, labels = Reader(Grey()).stack([0, 5])
    assert images.shape == (2, 3, 4, 4) and labels.shape == (2, 4, 4)
    assert images.dtype == torch.float32 and labels.dtype == torch.int64


def test_images_are_read_once_while_they_take_little_room(monkeypatch):
    data = Grey()
    reader = Reader(data)
    reader.stack([0, 1, 0, 1])
    assert data.reads == [0, 1]

    monkeypatch.setattr(reading, "KEPT_BYTES", 3 * 4 * 4 * 4)  # one image of floats, or four of 8 bits
    reader = Reader(data)
    reader.stack([1, 3, 1, 3])
    assert data.reads == [0, 1, 1, 3, 3]
    reader = Reader(data)
    reader.stack([0, 2, 4, 6, 8] * 2)
    assert data.reads[5:] == [0, 2, 4, 6, 8, 8]


def test_what_is_too_large_to_be_kept_does_not_keep_others_out(monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES", 3 * 4 * 4 * 2)  # two images of 8 bits
    data = Grey()
    Reader(data).stack([0, 1, 2, 0, 1, 2])
    assert data.reads == [0, 1, 2, 1]


def test_the_images_of_a_processor_are_kept_in_8_bits_and_come_back_to_the_bit(food):
    reader = Reader(food)
    for _ in range(2):  # read, and then kept
        (loaded,) = reader.stream([[4, 1, 9]])
        assert loaded.images.dtype == torch.uint8 and loaded.images.shape == (3, 3, 16, 16)
        floats = loaded.to("cpu").images
        assert floats.dtype == torch.float32
        assert all(torch.equal(image, food[row]["images"]) for image, row in zip(floats, [4, 1, 9], strict=True))


def test_a_lot_with_an_image_between_8_bit_levels_is_of_floats():
    reader = Reader(Grey())
    even, mixed = reader.stream([[2, 4], [2, 3]])
    assert (even.images.dtype, mixed.images.dtype) == (torch.uint8, torch.float32)
    assert mixed.images[0, 0, 0, 0] == torch.tensor(2 / 255) and mixed.images[1, 0, 0, 0] == torch.tensor(3.3 / 255)
    assert mixed.to("cpu").images is not None and mixed.labels[:, 0, 0].tolist() == [2, 3]


def test_digests_are_those_of_the_images_as_the_set_gives_them(food):
    reader = Reader(food)
    expected = [digest_of_image(food[row]["images"], food[row]["labels"]) for row in (3, 0)]
    for _ in range(2):  # read, and then kept
        (loaded,) = reader.stream([[3, 0]], with_digests=True)
        assert loaded.digests == expected
    (loaded,) = reader.stream([[3, 0]])
    assert loaded.digests is None


def test_a_lot_is_taken_when_it_is_asked_for():
    taken = []
    stream = Reader(Grey()).stream(taken.append(row) or [row] for row in range(5))
    assert taken == []
    assert next(stream).rows == [0] and taken == [0]
    assert next(stream).rows == [1] and taken == [0, 1]


@pytest.mark.parametrize("num_workers", [-1, 1.5, True, "2"])
def test_a_number_of_workers_that_is_none_is_refused(num_workers):
    with pytest.raises(ValueError, match=r"num_workers=.*Pass an integer from 0"):
        Reader(Grey(), num_workers=num_workers)


# ---- Worker processes ----


class Logged:
    """Images of one grey each that note, in a file, which process read which row."""

    name = "logged"

    def __init__(self, folder: Path):
        self.log = folder / "reads"
        self.log.touch()

    def __getitem__(self, row: int) -> dict:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()} {row}\n")
        return {"images": torch.full((3, 4, 4), row / 255), "labels": row, "sample_id": row}

    def reads(self) -> list[tuple[int, int]]:
        """Process and row of all reads until now."""
        return [tuple(map(int, line.split())) for line in self.log.read_text().splitlines()]

    def rows_read(self) -> list[int]:
        return sorted(row for _, row in self.reads())


class Broken(Grey):
    """One row raises an error, or ends its process."""

    def __init__(self, error: Exception | None = None):
        super().__init__()
        self.error = error

    def __getitem__(self, row: int) -> dict:
        if row == 3 and self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        if row == 3:
            raise self.error
        return super().__getitem__(row)


class TwoPartError(Exception):
    """An error that cannot be made of its arguments, as pickle would."""

    def __init__(self, what: str, why: str):
        super().__init__(f"{what}: {why}")


@pytest.fixture(autouse=True)
def nothing_stays():
    """No test leaves a process or shared memory behind."""
    before = shared_memory()
    yield
    assert multiprocessing.active_children() == []

    # Tests beside this one have shared memory too, for a moment.
    new, deadline = shared_memory() - before, time.monotonic() + 60
    while new & shared_memory() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not new & shared_memory()


def shared_memory() -> set[str]:
    """Pieces of shared memory, on Linux, whose process has ended."""
    files = {file.name for file in Path("/dev/shm").glob("torch_*")}
    return {name for name in files if not Path("/proc", name.split("_")[1]).exists()}


def lots_of(*sizes: int) -> list[list[int]]:
    """Lots of these sizes, of the rows from 0 on."""
    rows = itertools.count()
    return [list(itertools.islice(rows, size)) for size in sizes]


def test_workers_read_the_same_as_the_main_process(food):
    lots = [[4, 1, 9], [0], [15, 2]]
    expected = list(Reader(food).stream(lots, with_digests=True))
    with Reader(food, num_workers=2) as reader:
        for _ in range(2):  # read, and then kept
            for loaded, same in zip(reader.stream(lots, with_digests=True), expected, strict=True):
                assert (loaded.rows, loaded.digests) == (same.rows, same.digests)
                assert loaded.images.dtype == torch.uint8 and torch.equal(loaded.images, same.images)
                assert torch.equal(loaded.labels, same.labels)
                assert torch.equal(loaded.to("cpu").images, same.to("cpu").images)


def test_workers_read_images_between_8_bit_levels():
    with Reader(Grey(), num_workers=1) as reader:
        for _ in range(2):
            (loaded,) = reader.stream([[2, 3]])
            assert torch.equal(loaded.to("cpu").images, Reader(Grey()).stack([2, 3])[0])


def test_what_is_kept_is_not_read_again(tmp_path):
    data = Logged(tmp_path)
    with Reader(data, num_workers=2) as reader:
        reader.stack([0, 5])
        streams = [list(reader.stream([[0, 1, 2], [3, 4, 5]])) for _ in range(2)]
        assert data.rows_read() == [0, 1, 2, 3, 4, 5]
        processes = {process for process, row in data.reads() if row not in (0, 5)}
        assert os.getpid() not in processes and len(processes) == 2
    for stream in streams:
        assert [loaded.images[:, 0, 0, 0].tolist() for loaded in stream] == [[0, 1, 2], [3, 4, 5]]


def test_a_set_that_is_kept_needs_no_worker(tmp_path):
    with Reader(Logged(tmp_path), num_workers=2) as reader:
        reader.stack(range(4))
        taken = []
        stream = reader.stream(taken.append(row) or [row] for row in range(4))
        assert next(stream).rows == [0] and taken == [0]
        assert multiprocessing.active_children() == []


def test_what_finds_no_room_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES", 3 * 4 * 4 * 2)  # two images of 8 bits
    data = Logged(tmp_path)
    with Reader(data, num_workers=1) as reader:
        for _ in range(2):
            loaded = list(reader.stream([[0, 1, 2], [3]]))
            assert [each.images[:, 0, 0, 0].tolist() for each in loaded] == [[0, 1, 2], [3]]
    assert data.rows_read() == [0, 1, 2, 2, 3, 3]


def test_kept_images_do_not_hold_shared_memory():
    with Reader(Grey(), num_workers=1) as reader:
        (loaded,) = reader.stream([[1, 3]])
        assert loaded.images.is_shared()
        assert not reader.read(1)[0].is_shared()


def test_few_lots_are_taken_ahead_of_who_asks_for_them():
    taken = []
    with Reader(Grey(), num_workers=2) as reader:
        lots = (taken.append(row) or [row] for row in range(0, 40, 2))
        for number, _ in enumerate(reader.stream(lots), start=1):
            assert number <= len(taken) <= number + 2 * LOTS_AHEAD


def test_a_broken_image_is_the_same_error_at_the_same_lot_as_in_the_main_process(images, processor):
    rows = replace(images, 5, images.features, image={"bytes": b"no image", "path": None})
    data = ZeroShotDataset(rows, processor, name="food")
    errors, whole = [], []
    for num_workers in (0, 2):
        with Reader(data, num_workers) as reader:
            stream = reader.stream([[0, 1], [2, 3], [4, 5], [6]])
            whole.append([next(stream).rows, next(stream).rows])
            with pytest.raises(ValueError, match="image in row 5 of 'food'") as caught:
                next(stream)
            errors.append((type(caught.value), str(caught.value)))
    assert whole[0] == whole[1] == [[0, 1], [2, 3]]
    assert errors[0] == errors[1]


def test_a_reader_goes_on_after_an_error():
    with Reader(Broken(ValueError("broken")), num_workers=2) as reader:
        for _ in range(2):
            with pytest.raises(ValueError, match="^broken$"):
                list(reader.stream([[0], [3], [4], [5]]))
        assert [loaded.rows for loaded in reader.stream([[4], [2]])] == [[4], [2]]


def test_an_error_that_no_pipe_takes_is_told_by_its_name():
    with Reader(Broken(TwoPartError("disk", "gone")), num_workers=1) as reader:
        with pytest.raises(RuntimeError, match="^TwoPartError: disk: gone$"):
            list(reader.stream([[0], [3]]))


@pytest.mark.parametrize("where", ["while it reads", "while another batch is computed"])
def test_a_worker_that_is_killed_is_one_clear_error(where):
    with pytest.raises(RuntimeError, match="read images of 'grey' was killed .*fewer --num_workers.*--shm-size"):
        with Reader(Broken() if where == "while it reads" else Grey(), num_workers=2) as reader:
            for loaded in reader.stream([row] for row in range(40)):
                assert loaded.rows != [3]
                if where != "while it reads":
                    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
                    threading.Event().wait(30)  # until torch's handler hears of it


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_pipe_that_breaks_before_its_worker_is_known_to_be_gone_is_the_same_error(monkeypatch, error):
    def get(queue, *args, **options):
        raise error

    with pytest.raises(RuntimeError, match="was killed .(.*reset by peer|EOFError)., .*fewer --num_workers"):
        with Reader(Grey(), num_workers=2) as reader:
            for _ in reader.stream([row] for row in range(40)):
                monkeypatch.setattr(multiprocessing.queues.Queue, "get", get)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_the_lots_raise_is_not_laid_on_the_workers(num_workers):
    def lots():
        yield [0]
        raise ConnectionResetError("the queue is gone")

    with Reader(Grey(), num_workers) as reader:
        with pytest.raises(ConnectionResetError, match="^the queue is gone$"):
            list(reader.stream(lots()))


def test_a_worker_that_is_killed_while_it_ends_is_no_error(monkeypatch):
    join, told = multiprocessing.Process.join, []

    def tell(process, timeout=None):
        join(process, timeout)
        if not told:
            told.append(process)
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")

    with Reader(Grey(), num_workers=2) as reader:
        list(reader.stream([[0], [2]]))
        monkeypatch.setattr(multiprocessing.Process, "join", tell)
    assert told


def test_shared_memory_that_a_killed_worker_had_begun_is_freed(tmp_path, monkeypatch):
    monkeypatch.setattr(working, "SHARED_MEMORY", tmp_path)
    others = tmp_path / "torch_1_2_3"
    others.touch()
    with pytest.raises(RuntimeError, match="was killed"):
        with Reader(Grey(), num_workers=1) as reader:
            for _ in reader.stream([row] for row in range(40)):
                worker = multiprocessing.active_children()[0].pid
                (tmp_path / f"torch_{worker}_5_0").touch()
                os.kill(worker, signal.SIGKILL)
                threading.Event().wait(30)
    assert list(tmp_path.iterdir()) == [others]
    for file in Path("/dev/shm").glob(f"torch_{worker}_*"):  # where the reader did not look this time
        file.unlink()


def test_shared_memory_that_does_not_suffice_is_one_clear_error(monkeypatch):
    def fail(tensor):
        raise RuntimeError("unable to allocate shared memory")

    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    with Reader(Grey(), num_workers=1) as reader:
        with pytest.raises(RuntimeError, match="no shared memory left for 2 images of 'grey' .*--shm-size"):
            list(reader.stream([[0, 2]]))


@pytest.mark.parametrize("how", ["break", "close", "error", "Ctrl-C"])
def test_who_stops_early_leaves_no_worker_behind(how):
    error = KeyboardInterrupt if how == "Ctrl-C" else ZeroDivisionError
    with contextlib.suppress(error):
        with Reader(Grey(), num_workers=2) as reader:
            stream = reader.stream(lots_of(*[4] * 20))
            for loaded in stream:
                assert loaded.rows == [0, 1, 2, 3] and len(multiprocessing.active_children()) == 2
                if how in ("error", "Ctrl-C"):
                    raise error
                break
            if how == "close":
                stream.close()
                stream = reader.stream([[7], [6]])
                assert [loaded.rows for loaded in stream] == [[7], [6]]
    assert multiprocessing.active_children() == []


def test_ctrl_c_is_for_the_process_that_started_the_workers():
    with Reader(Grey(), num_workers=2) as reader:
        rows = []
        for loaded in reader.stream([[row] for row in range(12)]):
            rows += loaded.rows
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGINT)
        assert rows == list(range(12))


def test_two_streams_at_once_are_refused():
    reader = Reader(Grey())
    first = reader.stream([[0], [1]])
    next(first)
    with pytest.raises(RuntimeError, match="'grey' began before the last one had ended"):
        next(reader.stream([[2]]))
    first.close()
    assert next(reader.stream([[2]])).rows == [2]


@pytest.fixture
def spawned():
    """Processes start from nothing, as everywhere but on Linux."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.slow  # since they import everything anew
def test_workers_that_start_from_nothing_read_the_same(spawned, food):
    with Reader(food, num_workers=1) as reader:
        (loaded,) = reader.stream([[3, 1]])
        assert torch.equal(loaded.to("cpu").images, Reader(food).stack([3, 1])[0])


def test_a_set_that_no_process_can_be_handed_is_refused(spawned):
    data = Grey()
    data.transform = lambda image: image
    with Reader(data, num_workers=2) as reader:
        with pytest.raises(ValueError, match=r"num_workers=2, but the set 'grey' cannot be handed .*lambda.*=0"):
            list(reader.stream([[0]]))


def test_workers_change_neither_draws_nor_the_environment(monkeypatch):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    state = torch.get_rng_state()
    with Reader(Grey(), num_workers=1) as reader:
        list(reader.stream([[0], [1]]))
    assert torch.equal(torch.get_rng_state(), state)
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def test_images_are_pinned_for_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    (loaded,) = Reader(Grey()).stream([[2]])
    assert (loaded.pin_memory().images == 3).all() and loaded.pin_memory().rows == [2]
