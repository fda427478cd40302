"""What a check found: equal faults are one line, rare ones with a usual reading become notes."""

from __future__ import annotations

from transfer.datasets.report import LONGEST, Report, one_line


def test_equal_faults_are_one_line_with_their_number() -> None:
    report = Report()
    for number in range(1234):
        report.problem("size", f"file {number}", "is too large", "shrink it")
    assert report.problems == ["file 0: is too large (and 1,233 more like it); shrink it"]
    report.note("pose", "file 7", "object without <pose>", times=3)
    assert report.notes == ["3 × object without <pose> (first: file 7)"]


def test_one_fault_has_no_number() -> None:
    report = Report()
    report.problem("size", "a", "is too large", "shrink it")
    assert report.problems == ["a: is too large; shrink it"]


def test_rare_faults_with_a_usual_reading_become_notes() -> None:
    for total, rare in ((2000, True), (1999, False)):
        report = Report()
        for _ in range(2):
            report.problem("box", "a", "has no width", "correct it", "it is passed over")
        report.problem("id", "b", "has no id", "add it")
        report.settle(total)
        assert ("id" in report.faults, "box" in report.faults) == (True, not rare)
        assert report.notes == (["2 × has no width; it is passed over (first: a)"] if rare else [])


def test_what_is_rare_can_be_said() -> None:
    report = Report()
    report.problem("box", "a", "has no width", "correct it", "it is passed over", rare=2)
    report.settle(1)
    assert report.problems
    report.settle(2)
    assert not report.problems


def test_reports_are_merged_in_their_order() -> None:
    one, other = Report(), Report()
    for report, where in ((one, "a"), (other, "b")):
        report.problem("size", where, "is too large", "shrink it")
        report.note("pose", where, "no pose")
        report.counts["objects"] += 2
    other.problem("id", "b", "has no id", "add it")
    other.facts["classes"] = 3
    one.merge(other)
    assert one.problems == ["a: is too large (and 1 more like it); shrink it", "b: has no id; add it"]
    assert one.notes == ["2 × no pose (first: a)"]
    assert (one.counts["objects"], one.facts) == (4, {"classes": 3})


def test_sentences_are_one_printable_line_of_bounded_length() -> None:
    assert one_line("Straße 猫 × …") == "Straße 猫 × …"
    assert one_line("a\nb\x00\u202e\u2028\ud83d") == "a\\nb\\x00\\u202e\\u2028\\ud83d"
    long = one_line("x" * 10**6)
    assert len(long) == LONGEST + 1
    assert "…" in long
