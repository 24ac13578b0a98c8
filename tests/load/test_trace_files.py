"""Files of traces: what lies in the repository, folders of ServeGen's, and lines that are longer than any."""

import gzip
from pathlib import Path

import pytest

from spillway.load.trace_files import MAX_LINE_CHARS, SHORT_NAMES, TRACE_NAMES, is_servegen, load_servegen, load_trace
from spillway.wire.traces import TraceError

GOOD = b'{"at_s": 1.0, "input_tokens": 3, "output_tokens": 1}\n'


@pytest.mark.parametrize("length", [MAX_LINE_CHARS - 1, MAX_LINE_CHARS, MAX_LINE_CHARS + 1, 10_000_000])
def test_a_very_long_line_is_one_bad_line(tmp_path: Path, length: int) -> None:
    path = tmp_path / "trace.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD + b"x" * length + b"\n" + GOOD + b"\xff\xfe\n" + GOOD, 1))
    trace = load_trace(str(path))
    assert len(trace.records) == 3
    assert [bad.number for bad in trace.first_bad] == [2, 4]


def test_servegen_comes_along() -> None:
    servegen = load_servegen()
    assert (servegen.rates.bad, servegen.lengths.bad, len(servegen.lengths.windows)) == (0, 0, 1125)
    assert {one.client for one in servegen.rates.bins} >= {one.client for one in servegen.lengths.windows}


def test_a_folder_of_servegen(tmp_path: Path) -> None:
    (tmp_path / "chunk-7-trace.csv").write_text("0,0,0,,0,0\n600,1.5,1.2,Gamma,0.7,0.9\nx\n")
    (tmp_path / "chunk-7-dataset.json").write_text('{"0": {"input_tokens": "{9: 1.0}", "output_tokens": "{3: 1.0}"}}')
    (tmp_path / "README.md").write_text("not a chunk")
    servegen = load_servegen(str(tmp_path))
    assert [(one.client, one.rate_rps) for one in servegen.rates.bins] == [(7, 1.5)]
    assert [(one.client, one.inputs[0], one.outputs[0]) for one in servegen.lengths.windows] == [(7, 9, 3)]
    assert (servegen.rates.bad, servegen.rates.first_bad[0].number) == (1, 3)


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(TraceError, match=str(folder)):
            load_servegen(str(folder))


def test_what_is_servegens(tmp_path: Path) -> None:
    assert is_servegen("servegen")
    assert is_servegen(str(tmp_path))
    assert not any(is_servegen(name) for name in SHORT_NAMES)
    assert set(TRACE_NAMES) < set(SHORT_NAMES)
