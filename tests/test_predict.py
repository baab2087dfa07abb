"""Every row exactly once, in order; the files are whole and the same every time."""

from __future__ import annotations

import resource
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset
from toy_training import ToyLoader, ToyModel

from mmrec import Batch, InputError
from mmrec.predict import predict, write_submission


def test_rows_come_in_order_whatever_the_loaders_order_and_batch_size() -> None:
    model = ToyModel()
    answers = [
        predict(model, ToyLoader(203, batch_size=size, shuffle=shuffle, labelled=False))
        for size, shuffle in ((16, False), (203, False), (7, True), (1, True))
    ]
    for rows, probability in answers:
        assert np.array_equal(rows, np.arange(203))
        np.testing.assert_allclose(probability, answers[0][1], atol=1e-6)
    batch = next(iter(ToyLoader(203, batch_size=203, shuffle=False)))
    model.eval()
    expected = torch.sigmoid(model(batch).double()).detach().numpy()
    np.testing.assert_allclose(answers[0][1], expected, atol=1e-7)


def test_training_mode_is_left_as_it_was() -> None:
    model = ToyModel(dropout=0.9).train()
    loader = ToyLoader(50)
    first, second = predict(model, loader)[1], predict(model, loader)[1]
    assert np.array_equal(first, second)  # dropout is off inside
    assert model.training


class Sent(ToyLoader):
    """The same batches, sent by a worker process."""

    def __iter__(self) -> Iterator[Batch]:
        return iter(DataLoader(Rows(self.n), batch_size=None, num_workers=1))


class Rows(IterableDataset[Batch]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Batch]:
        return iter(ToyLoader(self.n, batch_size=1, shuffle=False))


def test_batches_of_workers_do_not_pile_up_open_files() -> None:
    """What workers send lies in shared memory, one descriptor a tensor for as long as it lives."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, before[1]))
    try:
        rows, _ = predict(ToyModel(), Sent(150), device="cpu")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(rows) == 150


def changed(number: int, value: int) -> Callable[[Batch], Batch]:
    return lambda batch: replace(
        batch, row=torch.where(batch.row == number, torch.tensor(value), batch.row)
    )


@pytest.mark.parametrize(
    ("change", "num_rows", "sentence"),
    [
        (changed(17, 18), None, "row 18 came more than once"),
        (changed(17, 60), None, "another than row 17 in its place"),
        (None, 51, "every row of 0 … 50 must be predicted once, got 50 rows"),
        (None, 49, "every row of 0 … 48 must be predicted once, got 50 rows"),
    ],
)
def test_missing_and_doubled_rows_are_errors(
    change: Callable[[Batch], Batch] | None, num_rows: int | None, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        predict(ToyModel(), ToyLoader(50, change=change), num_rows=num_rows)


def test_non_finite_predictions_are_errors() -> None:
    model = ToyModel()
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="must be finite, the model gives another for row 0"):
        predict(model, ToyLoader(50))
    with torch.no_grad():
        model.head.bias.fill_(1e30)
    assert (predict(model, ToyLoader(50))[1] == 1).all()  # far out is not an error


def test_submission_files(tmp_path: Path) -> None:
    ids, probability = np.array([7, 3, 11]), np.array([0.123456789123, 1e-12, 1.0])
    names = {"id_column": "ID", "columns": ["Task1&2"]}
    csv_path, zip_path = write_submission(ids, probability, tmp_path, **names)
    assert csv_path.read_text() == "ID,Task1&2\n7,0.123456789\n3,1e-12\n11,1\n"
    with zipfile.ZipFile(zip_path) as archive:
        assert archive.namelist() == ["prediction.csv"]
        assert archive.read("prediction.csv") == csv_path.read_bytes()
    first = zip_path.read_bytes()
    write_submission(ids, probability, tmp_path, **names)
    assert zip_path.read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prediction.csv", "prediction.zip"]


def test_column_is_choosable_and_quoted(tmp_path: Path) -> None:
    csv_path, _ = write_submission([1], [0.5], tmp_path, id_column="ID", columns=['a,"b"'])
    assert list(pd.read_csv(csv_path).columns) == ["ID", 'a,"b"']


def test_several_tasks_are_columns_and_ids_may_be_strings(tmp_path: Path) -> None:
    """Ids keep every digit, whatever their type."""
    both = np.array([[0.25, 0.5], [1.0, 0.125]])
    for ids in (["a-1", "b"], np.array([2**63 - 1, 2**63 - 3])):
        path, _ = write_submission(ids, both, tmp_path, id_column="key", columns=["click", "buy"])
        lines = path.read_text().splitlines()
        assert lines == ["key,click,buy", f"{ids[0]},0.25,0.5", f"{ids[1]},1,0.125"]
    with pytest.raises(InputError, match="2 prediction columns need names of their own"):
        write_submission(["a", "b"], both, tmp_path / "x", id_column="key", columns=["click"])


@pytest.mark.parametrize(
    ("ids", "probability", "column", "sentence"),
    [
        ([1, 2], [0.5], "p", "one length"),
        ([1, 1], [0.5, 0.5], "p", "every ID must come once, 1 comes again"),
        ([1, 2], [0.5, 1.5], "p", "got 1.5 for ID 2"),
        ([1, 2], [0.5, float("nan")], "p", "got nan for ID 2"),
        ([1, 2], [0.5, 0.5], "ID", "names of their own other than ID"),
    ],
)
def test_bad_submissions_write_nothing(
    tmp_path: Path, ids: list[int], probability: list[float], column: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        write_submission(ids, probability, tmp_path / "out", id_column="ID", columns=[column])
    assert not (tmp_path / "out").exists()
