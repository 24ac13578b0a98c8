"""The long form of fuzzing, for seconds: a planted fault is found, a target without one passes."""

from pathlib import Path

import pytest

from tests.soak.fuzz import TARGETS, available, fuzz

pytestmark = pytest.mark.server

# atheris has no builds for newer Pythons: the fuzzing itself says so there
if available():

    def test_a_planted_fault_is_found_and_reported_with_its_input() -> None:
        (planted,) = fuzz([Path(__file__).with_name("planted_fuzz.py")], 20)
        assert not planted.passed
        (finding,) = planted.findings
        assert finding.kind == "crash"
        assert "planted" in finding.error
        assert bytes.fromhex(finding.input_hex).startswith(b"k")

    def test_a_target_without_a_fault_passes_and_counts() -> None:
        (wire,) = fuzz([TARGETS / "fuzz_wire.py"], 2)
        assert wire.passed, wire
        assert wire.executions > 100
        assert wire.edges > 50
