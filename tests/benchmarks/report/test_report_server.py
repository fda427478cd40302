"""The server of the report: this machine only, one page, nothing else, nothing to change, and new results show up."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import made_results
import pytest

from benchmarks.commands.main import main
from benchmarks.report.section import Contents, read_contents
from benchmarks.report.server import Pages, server
from benchmarks.tables.options import Options
from pixbench.errors import UserError


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    made_results.write(tmp_path / "runs" / "one", label="pixpro")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path / "runs"


@pytest.fixture
def running(runs: Path) -> Iterator[ThreadingHTTPServer]:
    found = server(Pages([runs], lambda: read_contents([runs], Options()), fresh_s=0.0), 0)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


Ask = Callable[..., tuple[int, dict[str, str], str]]


@pytest.fixture
def ask(running: ThreadingHTTPServer) -> Ask:
    def ask(path: str = "/", method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], str]:
        connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=30)
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"127.0.0.1:{running.server_port}")
        connection.endheaders()
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        return answer.status, dict(answer.headers), content

    return ask


def test_it_listens_on_this_machine_only(running: ThreadingHTTPServer) -> None:
    assert running.server_address[0] == "127.0.0.1"


def test_the_page_is_there_and_may_only_ask_its_own_server(ask: Ask) -> None:
    status, headers, content = ask()
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert "connect-src &#39;self&#39;" in content
    assert "PixPro" in content
    assert f'<meta name="version" content={headers["ETag"]}>' in content


def test_head_answers_without_a_page(ask: Ask) -> None:
    status, headers, content = ask(method="HEAD")
    assert (status, content) == (200, "")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    "path",
    [
        *("/secret.txt", "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/etc/passwd"),
        *("/one/result.json", "/?file=../secret.txt", "/.", "/index.html", "http://127.0.0.1/secret.txt", "*"),
    ],
)
def test_no_file_can_be_asked_for(ask: Ask, path: str) -> None:
    status, _, content = ask(path)
    assert status == 404
    assert "secret\n" not in content + "\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"])
def test_nothing_can_be_changed(ask: Ask, method: str) -> None:
    assert ask(method=method)[0] == 501


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example:80", "0.0.0.0:80", ":80", "[::1]:80"]
)
def test_a_name_that_is_not_of_this_machine_is_refused(ask: Ask, host: str) -> None:
    assert ask(host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1"])
def test_the_names_of_this_machine_are_fine_with_any_port(ask: Ask, host: str) -> None:
    assert ask(method="HEAD", host=host)[0] == 200


def test_a_new_result_makes_a_new_page_and_nothing_else_does(ask: Ask, runs: Path) -> None:
    before = ask()
    assert ask()[2] == before[2]
    made_results.write(runs / "two", label="moco_v2")
    after = ask()
    assert after[1]["ETag"] != before[1]["ETag"]
    assert ">MoCo v2<" in after[2]
    assert ">MoCo v2<" not in before[2]


def test_a_run_that_has_begun_shows_up(ask: Ask, runs: Path) -> None:
    (runs / "three").mkdir()
    (runs / "three" / "progress.json").write_text(json.dumps({"done": 3, "total": 9, "left_s": 60.0, "best": {}}))
    assert "3/9" in ask()[2]


def test_results_that_cannot_stand_together_say_so_and_the_server_goes_on(ask: Ask, runs: Path) -> None:
    twice = made_results.write(runs / "twice", label="pixpro")
    assert "a seed counts once" in ask()[2]
    twice.unlink()
    assert "Main results" in ask()[2]


def test_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    pages = Pages([tmp_path], lambda: read_contents([tmp_path], Options()))
    assert "pixbench suite configs/suites/demo.yaml" in pages.newest()[1].decode()


def test_a_port_that_is_taken_ends_in_a_sentence(running: ThreadingHTTPServer) -> None:
    with pytest.raises(UserError, match="choose another"):
        server(Pages([], lambda: read_contents([], Options())), running.server_port)
    with pytest.raises(UserError, match="choose another"):
        server(Pages([], lambda: read_contents([], Options())), 70000)


def test_a_file_that_goes_away_meanwhile_ends_nothing(tmp_path: Path) -> None:
    def contents() -> Contents:
        raise FileNotFoundError(2, "No such file or directory", "gone.npz")

    _, page = Pages([tmp_path], contents).newest()
    assert "The report cannot be made" in page.decode()
    assert "gone.npz" in page.decode()


def test_a_folder_that_is_not_there_is_told_at_the_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "nowhere"), "--port", "0"]) == 2
    assert "does not exist" in capsys.readouterr().err
