"""The QC page as a file: complete, escaped, never in the place of something else."""

from __future__ import annotations

import html.parser
import json
import re
import shutil

import pytest

import hftn_sr
from hftn_sr.errors import Fault
from hftn_sr.report import QcCase, page, write_report
from hftn_sr.report.page import ASSETS, FILES, PAGE

EVIL = '<img src=x onerror="alert(1)"> & \'"</script><script>alert(2)</script>'


@pytest.fixture
def results(tmp_path, put_case, command, weights):
    """Runs cases with a tiny model; gives the folder of results and a maker of their QcCase."""

    def case(name):
        sources, output = tmp_path / "cases" / name, tmp_path / "results" / name / "target_sr.nii.gz"
        if not output.exists():
            target, reference = put_case(sources)
            done = command(
                "super-resolve", "--target", target, "--reference", reference, "--output", output, "--scale", 2, "--model", weights[2]
            )
            assert done.exit_code == 0, done.stderr
        return QcCase(name, output, sources / "target.nii.gz", sources / "reference.nii.gz")

    return tmp_path / "results", case


class Elements(html.parser.HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, path):
        super().__init__()
        self.found, self.text = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_names_every_case_and_all_its_files_exist(results):
    folder, case = results
    cases = [case("b"), case("a [1] ü"), QcCase("c", folder / "c" / "target_sr.nii.gz", status="failed", message="c/t.nii: empty file.")]
    told = []
    written = write_report(folder, cases, told.append)
    assert told == cases
    assert written == folder / PAGE
    elements = Elements(written)
    links = [each["href"] for each in elements.all("a")]
    first, links = links[:3], links[3:]
    sections = [each["id"] for each in elements.all("section") if each.get("class") == "case"]
    assert first == [f"#{key}" for key in sections]  # two have warnings, one failed
    assert links[:3] == [f"#{key}" for key in sections]
    text = " ".join(elements.text)
    assert "3 cases: 2 done, 1 failed" in text
    assert text.index("b") < text.index("a [1] ü")
    assert "c/t.nii: empty file." in text
    assert hftn_sr.__version__ in text
    assert "Research use only. Not for clinical use." in text
    sources = [each["src"] for tag in ("img", "script") for each in elements.all(tag)]
    sources += [each["href"] for each in elements.all("link") if not each["href"].startswith("data:")]
    sources += [f"{FILES}/{each['data-file']}" for each in elements.all("button") if "data-file" in each] + links[3:]
    assert len([source for source in sources if source.endswith(".png")]) == 10
    assert all((folder / source).is_file() for source in sources)
    assert all((folder / FILES / name).is_file() for name in ASSETS)


def test_nothing_on_the_page_is_remote_inline_or_without_a_name(results):
    folder, case = results
    write_report(folder, [case("a")])
    elements = Elements(folder / PAGE)
    source = (folder / PAGE).read_text(encoding="utf-8")
    assert re.findall(r"(?:https?:)?//", source) == []
    policy = next(each["content"] for each in elements.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'self' file:;")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert [name for _, attributes in elements.found for name in attributes if name == "style" or name.startswith("on")] == []
    assert all("src" in each for each in elements.all("script"))
    assert all(each["loading"] == "lazy" and each["alt"] for each in elements.all("img"))
    labels = {each["for"] for each in elements.all("label")}
    assert {each["id"] for tag in ("input", "select") for each in elements.all(tag)} <= labels
    assert len(ids := [each["id"] for _, each in elements.found if "id" in each]) == len(set(ids))


def test_a_name_that_is_html_stays_text(results):
    folder, case = results
    evil = QcCase(EVIL, *list(vars(case("a")).values())[1:4])
    failed = QcCase(EVIL, folder / "x" / "target_sr.nii.gz", status="failed", message=EVIL)
    elements = Elements(write_report(folder, [evil, failed]))
    assert all(each["src"].startswith(FILES) for each in elements.all("img"))
    assert len(elements.all("script")) == 1
    # Link at the top, table and heading of both, and the message; the button's is in a hidden part.
    assert elements.text.count(EVIL) == 6 + 1
    assert next(each for each in elements.all("button") if "data-name" in each)["data-name"] == EVIL


def test_warnings_come_before_pictures(results):
    folder, case = results
    (folder / "a").mkdir(parents=True)
    one = case("a")
    file = one.output.with_name("target_sr.json")
    record = json.loads(file.read_text())
    record["warnings"] = ["the reference covers 90% of the target"]
    file.write_text(json.dumps(record))
    write_report(folder, [one])
    source = (folder / PAGE).read_text(encoding="utf-8")
    assert 0 < source.index("the reference covers 90% of the target") < source.index("<img") < source.index("<dl>")


def test_results_of_earlier_runs_stay_on_the_page_as_long_as_they_stand(results):
    folder, case = results
    write_report(folder, [case("a")])
    write_report(folder, [case("b")])
    text = " ".join(Elements(folder / PAGE).text)
    assert "2 cases: 1 done, 1 earlier run" in text
    shutil.rmtree(folder / "a")
    write_report(folder, [case("b")])
    assert "1 case: 1 done" in " ".join(Elements(folder / PAGE).text)


def test_a_case_that_fails_now_keeps_its_old_result_and_says_so(results):
    folder, case = results
    one = case("a")
    write_report(folder, [one])
    write_report(folder, [QcCase("a", one.output, status="failed", message="a/target.nii.gz: empty file. Fix: copy it again.")])
    text = " ".join(Elements(folder / PAGE).text)
    assert "1 case: 1 failed" in text
    assert "empty file. Fix: copy it again. The result of an earlier run was left as it was." in text


def test_a_result_without_a_record_fails_alone(results):
    folder, case = results
    bad, good = case("a"), case("b")
    bad.output.with_name("target_sr.json").unlink()
    write_report(folder, [bad, good])
    text = " ".join(Elements(folder / PAGE).text)
    assert "2 cases: 1 failed, 1 done" in text
    assert "target_sr.json: is missing or not of this program" in text


def test_a_damaged_record_fails_alone(results):
    folder, case = results
    bad, good = case("a"), case("b")
    record = bad.output.with_name("target_sr.json")
    record.write_text(json.dumps({"software": {"hftn_sr": "0.0.1"}, "warnings": []}))
    write_report(folder, [bad, good])
    text = " ".join(Elements(folder / PAGE).text)
    assert "2 cases: 1 failed, 1 done" in text
    assert "target_sr.json: is not a complete record (KeyError('acquired'))" in text


def test_a_page_of_another_program_is_not_overwritten(results):
    folder, case = results
    one = case("a")
    (folder / PAGE).write_text("<title>mine</title>")
    with pytest.raises(Fault, match=r"report\.html: stands where the QC page would be written, and is not of this program"):
        write_report(folder, [one])
    assert (folder / PAGE).read_text() == "<title>mine</title>"
    assert not (folder / FILES).exists()


def test_a_file_in_the_place_of_the_folder_is_a_fault(results):
    folder, case = results
    one = case("a")
    (folder / FILES).write_text("mine")
    with pytest.raises(Fault, match="report_files: stands where the files of the QC page"):
        write_report(folder, [one])


def test_an_output_elsewhere_is_a_fault(results, tmp_path):
    _, case = results
    with pytest.raises(Fault, match="does not lie in"):
        write_report(tmp_path / "elsewhere", [case("a")])


def test_two_runs_that_write_one_page_take_turns(results, monkeypatch):
    from filelock import FileLock

    folder, case = results
    write_report(folder, [case("a")])
    monkeypatch.setattr(page, "PATIENCE", 0.2)
    with FileLock(folder / f".{PAGE}.lock"), pytest.raises(Fault, match=r"report\.html: another run is writing this file"):
        write_report(folder, [case("a")])


def test_a_hundred_cases_make_a_page_of_less_than_a_megabyte(results):
    folder, case = results
    one = case("0")
    cases = []
    for number in range(10):
        shutil.copytree(one.output.parent, folder / f"c{number}", dirs_exist_ok=True)
        cases.append(QcCase(f"c{number}", folder / f"c{number}" / "target_sr.nii.gz", one.target, one.reference))
    write_report(folder, cases)
    small = (folder / PAGE).stat().st_size
    cases += [QcCase(f"d{number}", folder / f"d{number}" / "x.nii", status="failed", message="x" * 200) for number in range(90)]
    write_report(folder, cases)
    assert small / 10 < 10_000
    assert (folder / PAGE).stat().st_size < 1e6


# Command


def test_the_command_reports_a_folder_with_the_truth_that_lies_with_a_case(results, command, tmp_path):
    folder, case = results
    one = case("a")
    case("b").output.unlink()
    shutil.copy(one.output, tmp_path / "cases" / "a" / "truth.nii.gz")
    done = command("report", "--results", folder, "--cases", tmp_path / "cases")
    assert (done.exit_code, done.stdout.strip()) == (0, str(folder / PAGE)), done.stderr
    text = " ".join(Elements(folder / PAGE).text)
    assert "2 cases: 1 done, 1 no result" in text
    assert "Against truth.nii.gz, protocol corrected" in text
    assert "infinite" in text


def test_the_command_reports_one_result(results, command):
    folder, case = results
    one = case("a")
    done = command("report", "--results", one.output, "--target", one.target, "--reference", one.reference)
    assert (done.exit_code, done.stdout.strip()) == (0, str(folder / "a" / PAGE)), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--results", "nowhere"], "nowhere: no such file or folder"),
        (["--results", "."], "--cases: is missing"),
        (["--results", ".", "--truth", "x"], "--truth: does not go with a folder of results"),
        (["--results", "f.nii", "--cases", "."], "--cases: does not go with one result"),
        (["--results", "f.nii", "--target", "f.nii"], "--reference: is missing"),
        (["--results", "f.nii", "--target", "f.nii", "--reference", "g.nii"], "g.nii: no such file"),
    ],
)
def test_the_command_refuses_what_cannot_be_meant(command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.nii").touch()
    done = command("report", *arguments)
    assert done.exit_code in (2, 9)
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["f.nii"]
