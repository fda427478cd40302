"""Files, folders, the hub (its cache on the disk, and a hub of our own on this machine) and timm; nothing leaves the machine."""

from __future__ import annotations

import builtins
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from pixbench.errors import UserError, explain
from transfer.weights import read
from transfer.weights.file_format import Pixels
from transfer.weights.inspection import inspect
from transfer.weights.sources import Source, locate

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"
"""Two commits."""
CONFIG = {"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}


def refused(source: str | os.PathLike[str]) -> str:
    with pytest.raises(UserError) as caught:
        locate(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def tensors(folder: Path, name: str = "model.safetensors", **arrays: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: np.full(3, value, np.float32) for key, value in (arrays or {"a": 1.0}).items()}, folder / name)
    return folder / name


def shards(folder: Path, stem: str = "model", index: str = "model.safetensors.index.json") -> Path:
    """Write two shards and their index, as transformers does."""
    names = [f"{stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    tensors(folder, names[0], a=1.0, b=2.0)
    tensors(folder, names[1], c=3.0)
    write(folder / index, {"metadata": {"total_size": 36}, "weight_map": {"a": names[0], "b": names[0], "c": names[1]}})
    return folder / index


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def content(source: Source) -> dict[str, float]:
    """All numbers of the files, each of which must be where the index says."""
    found = {}
    for file in source.files:
        for name, array in load_file(file).items():
            found[name] = float(array[0])
            assert source.index is None or file.as_posix().endswith(source.index[name])
    return found


# Files


@pytest.mark.parametrize(
    "name", ["a.pth", "model.safetensors", "hf:org/name", "timm:resnet50", "C:\\weights.pth", "x:y"]
)
def test_a_file_that_exists_is_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / name, "weights")
    assert locate(path) == Source(str(path), (path,))
    monkeypatch.chdir(tmp_path)
    assert locate(name) == Source(name, (Path(name),))


def test_home_is_expanded_but_the_name_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path / "runs" / "a.pth", "weights")
    assert locate("~/runs/a.pth") == Source("~/runs/a.pth", (path,))
    assert refused("~/b.pth") == "there is no file ~/b.pth; check the path"
    assert refused("~nobody-of-this-name/b.pth").startswith("there is no file ~nobody-of-this-name/b.pth")


def test_config_json_describes_only_files_named_as_hugging_face_does(tmp_path: Path) -> None:
    write(tmp_path / "config.json", CONFIG)
    assert locate(tensors(tmp_path)).architecture == "ResNetForImageClassification"
    assert locate(shards(tmp_path)).architecture == "ResNetForImageClassification"
    assert locate(tensors(tmp_path, "backbone.safetensors")).architecture is None


@pytest.mark.parametrize(
    "name", ["", "missing.pth", "runs/missing.pth", "a\0b", "x" * 5000, "hf", "https://host/a.pth"]
)
def test_a_path_that_does_not_exist(name: str) -> None:
    assert refused(name) == f"there is no file {name or repr(name)}; check the path"


@pytest.mark.parametrize("text", ["org/name", "org/name@v1", "org/name:a.pth", "microsoft/resnet-50"])
def test_a_path_like_a_repository_gets_a_hint(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hint = f", or write hf:{text} for a repository of the Hugging Face hub"
    assert refused(text) == f"there is no file {text}; check the path{hint}"
    assert refused(f"https://huggingface.co/{text}").endswith(hint)
    (tmp_path / "org").mkdir()
    assert "hf:" not in refused("org/name")  # a folder of this name makes it a path


# Shards


def test_an_index_names_its_shards(tmp_path: Path) -> None:
    index = shards(tmp_path)
    source = locate(index)
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    assert source.files == (tmp_path / first, tmp_path / second)
    assert source.index == {"a": first, "b": first, "c": second}
    assert content(source) == {"a": 1.0, "b": 2.0, "c": 3.0}


def test_a_pickled_checkpoint_may_have_shards_too(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model-00001-of-00001.bin")
    write(tmp_path / "pytorch_model.bin.index.json", {"weight_map": {"a": "pytorch_model-00001-of-00001.bin"}})
    assert locate(tmp_path).files == (tmp_path / "pytorch_model-00001-of-00001.bin",)


def test_a_missing_shard(tmp_path: Path) -> None:
    index = shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    for source in (index, tmp_path):
        assert refused(source) == (
            f"{index} names the shard model-00002-of-00002.safetensors, which is not beside it (1 of 2 are missing); "
            "put all shards into the folder of the index"
        )


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/x.safetensors", "a/../../x", "..\\x", "C:x", "C:\\x", "\\\\host\\x"]
)
def test_a_shard_outside_the_folder(shard: str, tmp_path: Path) -> None:
    tensors(tmp_path, "x.safetensors")
    index = write(tmp_path / "inner" / "model.safetensors.index.json", {"weight_map": {"a": shard}})
    assert refused(index) == (
        f"{index} names the shard {shard!r}, which is outside its folder; use an index whose shards are beside it"
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ("[]", 'no "weight_map"'),
        ("{}", 'no "weight_map"'),
        ('{"weight_map": {}}', "does not name a file for each tensor"),
        ('{"weight_map": {"a": 1}}', "does not name a file for each tensor"),
        ('{"weight_map": ["a"]}', "does not name a file for each tensor"),
    ],
)
def test_a_damaged_index(text: str, why: str, tmp_path: Path) -> None:
    index = write(tmp_path / "model.safetensors.index.json", text)
    message = refused(index)
    assert message.startswith(f"{index} is not a valid index of shards (")
    assert why in message
    assert message.endswith("; download or write it again")


def test_an_index_that_is_not_text(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(b"\xff\xfe\x00")
    assert "is not a valid index of shards" in refused(index)
    os.truncate(index, 1 << 30)
    assert "is not a valid index of shards (it is too large)" in refused(index)


# Folders


def test_what_save_pretrained_writes(tmp_path: Path) -> None:
    write(tmp_path / "config.json", CONFIG)
    for name in ("training_args.bin", "optimizer.pt", "rng_state_0.pth", "scheduler.pt", "pytorch_model.bin"):
        write(tmp_path / name, "")
    assert locate(tmp_path) == Source(
        str(tmp_path), (tmp_path / "pytorch_model.bin",), None, CONFIG["architectures"][0], config=CONFIG
    )
    shards(tmp_path)
    assert content(locate(tmp_path)) == {"a": 1.0, "b": 2.0, "c": 3.0}
    file = tensors(tmp_path)
    assert locate(tmp_path).files == (file,)


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        ({"architecture": "resnet50d", "num_features": 2048}, "resnet50d"),
        ({"architectures": ["TimmWrapperModel"], "architecture": "resnet50d"}, "resnet50d"),
        ({"architectures": ["A", "B"]}, "A"),
        ({"architectures": []}, None),
        ({"architectures": None, "architecture": 3}, None),
        ({"architecture": "x\x1b[2J"}, None),
        ({"architecture": "x" * 101}, None),
        ([], None),
        ("not JSON", None),
        ("[" * 100_000, None),
    ],
)
def test_what_config_json_declares(config: Any, architecture: str | None, tmp_path: Path) -> None:
    tensors(tmp_path)
    write(tmp_path / "config.json", config)
    assert locate(tmp_path).architecture == architecture


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.ckpt", "a.bin", "a.pkl", "a.safetensors", "moco.pth.tar"])
def test_a_folder_with_one_weight_file(name: str, tmp_path: Path) -> None:
    for other in ("log.txt", "config.yaml", ".checkpoint.77.part.pth", "optimizer.bin", "weights.h5", "a.tar"):
        write(tmp_path / other, "")
    (tmp_path / "folder.pth").mkdir()
    file = write(tmp_path / name, "")
    assert locate(tmp_path).files == (file,)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    write(tmp_path / "log.txt", "")
    assert refused(tmp_path) == (
        f"{tmp_path} holds no weight file (.safetensors, .pth, .pt, .ckpt, .bin, .pkl, .pth.tar); name the file itself"
    )


def test_a_folder_with_several_weight_files(tmp_path: Path) -> None:
    for number in range(10):
        write(tmp_path / f"{number}.pth", "")
    assert refused(tmp_path) == (
        f"{tmp_path} holds several weight files: {', '.join(f'{n}.pth' for n in range(8))} and 2 more; "
        f"name one of them, for example {tmp_path / '9.pth'}"
    )


def test_shards_without_their_index(tmp_path: Path) -> None:
    index = shards(tmp_path, index="other.safetensors.index.json")
    assert locate(tmp_path).files == locate(index).files  # the only index, under any name
    second = write(tmp_path / "second.safetensors.index.json", "")
    assert "holds shards (model-00001-of-00002.safetensors, ...) but several indexes" in refused(tmp_path)
    index.unlink()
    second.unlink()
    assert refused(tmp_path).endswith("but no index of them (*.safetensors.index.json); add it")


def test_the_last_checkpoint_of_a_pre_training_run(tmp_path: Path) -> None:
    for name in ("checkpoint.pth", "checkpoint_ep0050.pth", "checkpoint_ep0100.pth", "log.jsonl"):
        write(tmp_path / name, "")
    assert locate(tmp_path).files == (tmp_path / "checkpoint.pth",)
    write(tmp_path / "backbone.pth", "")  # may be what the user means
    assert "several weight files: backbone.pth, checkpoint.pth" in refused(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    inner = write(tmp_path / "closed" / "a.pth", "")
    inner.parent.chmod(0)
    try:
        with pytest.raises(PermissionError):
            locate(inner)
        with pytest.raises(PermissionError):
            locate(inner.parent)
    finally:
        inner.parent.chmod(0o700)


# DeepSpeed and PyTorch's distributed checkpoints


@pytest.mark.parametrize("place", [".", "checkpoint", "global_step500"])
def test_deepspeed(place: str, tmp_path: Path) -> None:
    """The folder itself, Lightning's and DeepSpeed's own."""
    states = write(tmp_path / place / "mp_rank_00_model_states.pt", "")
    write(tmp_path / place / "zero_pp_rank_0_mp_rank_00_optim_states.pt", "")
    write(tmp_path / "zero_to_fp32.py", "")
    if place != ".":
        write(tmp_path / "latest", f"{place}\n")
    assert locate(tmp_path).files == (states,)


def test_deepspeed_of_lightning_without_the_file_latest(tmp_path: Path) -> None:
    states = write(tmp_path / "last.ckpt" / "checkpoint" / "mp_rank_00_model_states.pt", "")
    assert locate(tmp_path / "last.ckpt").files == (states,)


@pytest.mark.parametrize("ranks", [1, 4])
def test_deepspeed_stage_3(ranks: int, tmp_path: Path) -> None:
    for rank in range(ranks):
        write(tmp_path / "checkpoint" / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt", "")
    write(tmp_path / "latest", "checkpoint")
    assert refused(tmp_path) == (
        f"{tmp_path / 'checkpoint'} is a checkpoint of DeepSpeed's ZeRO stage 3, which cuts all weights over its ranks; run "
        "the zero_to_fp32.py that DeepSpeed wrote beside it, and name the file that this writes"
    )


def test_deepspeed_with_a_model_cut_over_ranks(tmp_path: Path) -> None:
    for rank in range(2):
        write(tmp_path / f"mp_rank_0{rank}_model_states.pt", "")
    assert "cuts the model over 2 files (mp_rank_00_model_states.pt, ...); save the whole model" in refused(tmp_path)


@pytest.mark.parametrize("latest", ["", "..", "../other", "/", "missing", "\0", "x" * 5000])
def test_a_file_latest_that_leads_nowhere(latest: str, tmp_path: Path) -> None:
    write(tmp_path / "other" / "mp_rank_00_model_states.pt", "")
    write(tmp_path / "run" / "latest", latest)
    assert "holds no weight file" in refused(tmp_path / "run")
    file = write(tmp_path / "run" / "a.pth", "")
    assert locate(tmp_path / "run").files == (file,)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_distributed_checkpoint_and_the_way_out(tmp_path: Path) -> None:
    from torch.distributed import checkpoint as distributed
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    folder, file = tmp_path / "folder", tmp_path / "file.pth"
    distributed.save({"a": torch.ones(3)}, checkpoint_id=folder, no_dist=True)
    write(folder / "meta.pt", "")  # Lightning's
    message = refused(folder)
    assert message.startswith(f"{folder} is a distributed checkpoint of PyTorch")
    assert "dcp_to_torch_save(FOLDER, FILE) and name FILE" in message
    dcp_to_torch_save(folder, file)
    assert locate(file).files == (file,)
    assert torch.load(file)["a"].tolist() == [1, 1, 1]


# The hub


@dataclass
class Hub:
    """A local cache of the hub, and what the hub on this machine answers."""

    cache: Path
    home: Path
    set: Callable[[str, Any], None]
    """Set one of the library's constants."""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Repository, commit, file. The last commit is main."""
    error: tuple[int, dict[str, str]] | None = None
    """Status and headers of every answer."""
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    def snapshot(self, repository: str, commit: str, ref: str | None = "main") -> Path:
        """Return the folder of a commit in the cache; `keep` fills it."""
        folder = self.cache / f"models--{repository.replace('/', '--')}"
        if ref:
            write(folder / "refs" / ref, commit)
        (folder / "blobs").mkdir(exist_ok=True, parents=True)
        (folder / "snapshots" / commit).mkdir(exist_ok=True, parents=True)
        return folder / "snapshots" / commit

    def keep(self, snapshot: Path) -> Path:
        """Move the content of a snapshot to the blobs and link it, as the library does."""
        for file in [path for path in snapshot.rglob("*") if path.is_file() and not path.is_symlink()]:
            blob = snapshot.parents[1] / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            file.replace(blob)
            file.symlink_to(os.path.relpath(blob, file.parent))
        return snapshot

    def publish(self, repository: str, commit: str, folder: Path) -> None:
        """Put the files of a folder on the hub on this machine."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repositories.setdefault(repository, {})[commit] = files


class Answers(BaseHTTPRequestHandler):
    """The part of the hub's interface that a download needs."""

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def do_GET(self) -> None:
        self.hub.asked.append(self.path)
        self.hub.tokens.add(self.headers["authorization"])
        if self.hub.error:
            return self.answer(self.hub.error[0], self.hub.error[1], b"")
        parts = self.path.strip("/").split("/")
        is_question = parts[:2] == ["api", "models"]
        repository = "/".join(parts[2:4] if is_question else parts[:2])
        if repository not in self.hub.repositories:
            return self.answer(401, {"X-Error-Code": "RepoNotFound"}, b"")
        commits = self.hub.repositories[repository]
        revision = (parts[5:6] or ["main"])[0] if is_question else parts[3]
        commit = list(commits)[-1] if revision == "main" else {"v1": next(iter(commits))}.get(revision, revision)
        if commit not in commits:
            return self.answer(404, {"X-Error-Code": "RevisionNotFound"}, b"")
        if is_question:
            siblings = [{"rfilename": name} for name in commits[commit]]
            return self.answer(200, {}, json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode())
        data = commits[commit].get("/".join(parts[4:]))
        if data is None:
            return self.answer(404, {"X-Error-Code": "EntryNotFound"}, b"")
        return self.answer(200, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}, data)

    do_HEAD = do_GET

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty cache of the hub, without network. The library reads the environment only once, so its constants are set."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants, file_download, utils

    forget = (
        getattr(utils, "close_session", None) or utils.reset_sessions
    )  # connections, by the name since version 1 or before

    def setting(name: str, value: Any) -> None:
        for module in (constants, file_download):  # which has some of its own before version 1
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
        forget()

    home = tmp_path / "hf home"
    for name, value in vars(constants).copy().items():
        if name.isupper() and isinstance(value, str) and os.path.isabs(value):
            monkeypatch.setattr(constants, name, str(home / Path(value).name))
    setting("HF_HUB_CACHE", str(home / "hub"))
    setting("HF_HUB_OFFLINE", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    yield Hub(home / "hub", home, setting)
    forget()


@pytest.fixture
def online(hub: Hub) -> Iterator[Hub]:
    """As `hub`, with a hub on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Answers, hub))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    connect(hub, server.server_port)
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


def connect(hub: Hub, port: int) -> None:
    hub.set("HF_HUB_OFFLINE", False)
    hub.set("ENDPOINT", f"http://127.0.0.1:{port}")
    hub.set("HUGGINGFACE_CO_URL_TEMPLATE", f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}")


def cached_repository(hub: Hub) -> None:
    """Two commits: v1 in one file, main in two shards, with another model in a sub-folder."""
    first = hub.snapshot("org/name", OLD, "v1")
    tensors(first, a=7.0)
    write(first / "config.json", {"architecture": "resnet50d"})
    hub.keep(first)
    second = hub.snapshot("org/name", NEW)
    shards(second)
    tensors(second / "more", "b.safetensors", b=9.0)
    write(second / "more" / "config.json", {"architecture": "resnet101"})
    write(second / "config.json", CONFIG)
    hub.keep(second)


@pytest.mark.parametrize("state", ["offline", "no connection", "repository deleted"])
@pytest.mark.parametrize(
    ("name", "numbers", "architecture", "commit"),
    [
        ("hf:org/name", {"a": 1.0, "b": 2.0, "c": 3.0}, "ResNetForImageClassification", NEW),
        ("hf:org/name@main", {"a": 1.0, "b": 2.0, "c": 3.0}, "ResNetForImageClassification", NEW),
        (f"hf:org/name@{NEW}", {"a": 1.0, "b": 2.0, "c": 3.0}, "ResNetForImageClassification", NEW),
        ("hf:org/name@v1", {"a": 7.0}, "resnet50d", OLD),
        (f"hf:org/name@{OLD}:model.safetensors", {"a": 7.0}, "resnet50d", OLD),
        ("hf:org/name:model-00002-of-00002.safetensors", {"c": 3.0}, "ResNetForImageClassification", NEW),
        ("hf:org/name:more/b.safetensors", {"b": 9.0}, "resnet101", NEW),
    ],
)
def test_the_cache_is_enough(
    state: str, name: str, numbers: dict[str, float], architecture: str, commit: str, online: Hub
) -> None:
    cached_repository(online)
    if state == "offline":
        online.set("HF_HUB_OFFLINE", True)
    elif state == "no connection":
        connect(online, closed_port())
    source = locate(name)
    assert (source.name, content(source), source.architecture, source.revision) == (name, numbers, architecture, commit)
    assert all(file.is_relative_to(online.cache) for file in source.files)


def closed_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_port


def test_a_cache_that_lacks_other_files_is_enough(hub: Hub) -> None:
    tree = pytest.importorskip("huggingface_hub._tree_cache")
    cached_repository(hub)
    entries = {"model.safetensors": tree.TreeCacheEntry(1, "x"), "README.md": tree.TreeCacheEntry(1, "y")}
    tree.write_tree_cache(str(hub.cache / "models--org--name"), OLD, entries)
    assert content(locate("hf:org/name@v1")) == {"a": 7.0}


def test_a_cache_that_lacks_what_is_needed(hub: Hub) -> None:
    cached_repository(hub)
    command = "hf download org/name model-00002-of-00002.safetensors --local-dir FOLDER"
    (hub.cache / "models--org--name" / "snapshots" / NEW / "model-00002-of-00002.safetensors").unlink()
    assert refused("hf:org/name") == (
        "model-00002-of-00002.safetensors of the repository org/name cannot be fetched (HF_HUB_OFFLINE is set), nor found in "
        f"the local cache; run `{command}` on a machine with network and give the path of what it wrote"
    )
    only_config = hub.snapshot("org/other", OLD)
    write(only_config / "config.json", CONFIG)
    assert refused("hf:org/other").startswith(
        "the weights of the repository org/other cannot be fetched (HF_HUB_OFFLINE"
    )


def test_offline_and_not_in_the_cache(hub: Hub) -> None:
    assert refused("hf:org/name@v2") == (
        "the weights of the repository org/name at v2 cannot be fetched (HF_HUB_OFFLINE is set), nor found in the local cache; "
        "run `hf download org/name --revision v2 --local-dir FOLDER` on a machine with network and give the path of what it "
        "wrote"
    )
    assert "run `hf download org/name a.pth --local-dir FOLDER`" in refused("hf:org/name:a.pth")
    assert not hub.home.exists()


def test_without_network_it_fails_at_once(hub: Hub) -> None:
    connect(hub, closed_port())
    assert refused("hf:org/name:a.pth").startswith(
        "a.pth of the repository org/name cannot be fetched (no connection), nor"
    )


def test_a_download_and_then_the_cache(online: Hub, tmp_path: Path) -> None:
    shards(tmp_path / "published")
    write(tmp_path / "published" / "config.json", CONFIG)
    write(tmp_path / "published" / "README.md", "not fetched")
    online.publish("org/name", NEW, tmp_path / "published")
    source = locate("hf:org/name")
    assert content(source) == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert (source.architecture, source.revision) == ("ResNetForImageClassification", NEW)
    assert not [path for path in online.asked if "README" in path]
    online.asked.clear()
    assert locate("hf:org/name") == source
    assert not any(path.endswith(".safetensors") for path in online.asked)  # a file of a commit does not change
    online.set("HF_HUB_OFFLINE", True)
    assert locate("hf:org/name") == source


def test_a_new_commit_is_fetched_and_an_old_one_can_be_named(online: Hub, tmp_path: Path) -> None:
    for commit, number in ((OLD, 1.0), (NEW, 2.0)):
        online.publish("org/name", commit, tensors(tmp_path / commit, a=number).parent)
        found = locate("hf:org/name")
        assert (content(found), found.revision) == ({"a": number}, commit)
    for name in ("hf:org/name@v1", f"hf:org/name@{OLD}"):
        found = locate(name)
        assert (content(found), found.revision) == ({"a": 1.0}, OLD)


def test_the_choice_among_the_files_of_a_repository(online: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    write(folder / "logs" / "log.txt", "")
    online.publish("org/name", "1" * 40, folder)
    assert refused("hf:org/name").startswith("the repository org/name holds no weight file")
    tensors(folder / "weights", "only.safetensors")
    online.publish("org/name", "2" * 40, folder)
    assert content(locate("hf:org/name")) == {"a": 1.0}  # the only one, although in a sub-folder
    tensors(folder, "top.safetensors", a=2.0)
    online.publish("org/name", "3" * 40, folder)
    assert content(locate("hf:org/name")) == {"a": 2.0}
    tensors(folder, "second.safetensors", a=3.0)
    online.publish("org/name", "4" * 40, folder)
    assert refused("hf:org/name@main") == (
        "the repository org/name at main holds several weight files: second.safetensors, top.safetensors; name one of them, "
        "for example hf:org/name@main:top.safetensors"
    )
    tensors(folder, a=4.0)
    online.publish("org/name", "5" * 40, folder)
    assert content(locate("hf:org/name")) == {"a": 4.0}


def test_what_the_hub_does_not_have(online: Hub, tmp_path: Path) -> None:
    online.publish("org/name", NEW, tensors(tmp_path / "published").parent)
    assert refused("hf:org/nme") == (
        "the Hugging Face hub has no repository org/nme, or it is private; check the name, or run `hf auth login` with an "
        "account that may read it"
    )
    assert refused("hf:org/name@v7") == "the repository org/name has no revision v7; check the branch, tag or commit"
    assert refused("hf:org/name:model.safetensor") == (
        "the repository org/name has no file model.safetensor; did you mean model.safetensors?; check the name"
    )


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (403, {"X-Error-Code": "GatedRepo"}, "org/name is open only to those whom its owner admits; ask for access at"),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            "the Hugging Face hub refuses your token",
        ),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, "cannot be fetched (the hub answered 403)"),
        (429, {}, "cannot be fetched (the hub answered 429), nor found in the local cache"),
        (503, {}, "cannot be fetched (the hub answered 503), nor found in the local cache"),
        (200, {}, "cannot be fetched (JSONDecodeError)"),
    ],
)
def test_what_the_hub_refuses(status: int, headers: dict[str, str], message: str, online: Hub) -> None:
    online.error = status, headers
    assert message in refused("hf:org/name")
    assert message in refused("hf:org/name:a.pth")


@pytest.mark.parametrize("token", ["hf_secretsecretsecretsecretsecret", "hf_secret\x01secret", "hf_secret\u00e9"])
def test_no_message_holds_the_token(token: str, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library quotes a token that is not a valid header, and logs in with any other."""
    monkeypatch.setenv("HF_TOKEN", token)
    for error in ((403, {"X-Error-Code": "GatedRepo"}), (401, {"X-Error-Message": f"wrong: {token[:9]}"}), (503, {})):
        online.error = error if error[1].get("X-Error-Message", "").isascii() else None
        assert "hf_secret" not in refused("hf:org/name")
    assert online.tokens <= {f"Bearer {token}"}


def test_the_connection_breaks_during_the_download(
    online: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.publish("org/name", NEW, tensors(tmp_path / "published").parent)
    answer = Answers.answer

    def broken(self: Answers, status: int, headers: dict[str, str], body: bytes) -> None:
        answer(self, *((status, headers, body) if self.path.startswith("/api") else (403, {}, b"")))

    monkeypatch.setattr(Answers, "answer", broken)
    assert refused("hf:org/name").startswith(
        "model.safetensors of the repository org/name cannot be fetched (the hub answer"
    )


def test_a_cache_that_cannot_be_written_is_not_a_matter_of_the_hub(online: Hub, tmp_path: Path) -> None:
    online.publish("org/name", NEW, tensors(tmp_path / "published").parent)
    write(online.home, "a file where the folder of the cache should be")
    with pytest.raises(OSError, match="Not a directory") as caught:
        locate("hf:org/name")
    assert explain(caught.value).startswith(f"Not a directory: {online.home}")


@pytest.mark.parametrize("shard", ["../a.safetensors", "/a.safetensors"])
def test_an_index_of_the_hub_cannot_name_other_files(shard: str, online: Hub, tmp_path: Path) -> None:
    write(tmp_path / "published" / "model.safetensors.index.json", {"weight_map": {"a": shard}})
    online.publish("org/name", NEW, tmp_path / "published")
    assert "which is outside its folder" in refused("hf:org/name")


@pytest.mark.parametrize(
    "name",
    [
        *"hf: hf:name hf:org/ hf:/org/name hf://org/name hf:../name hf:org/name/more hf:org/na--me hf:org/näme".split(),
        *"hf:org/name@ hf:org/name: hf:org/name@:a.pth hf:org/name:../a.pth hf:org/name:/a.pth".split(),
        *("hf:org/name@v 1", "hf:org/na me", "hf:org/name\n", f"hf:org/{'x' * 100}"),
    ],
)
def test_a_malformed_name_of_a_repository(name: str, hub: Hub) -> None:
    with pytest.raises(UserError) as caught:
        locate(name)
    assert str(caught.value) == (
        f"{name} does not name a repository of the Hugging Face hub; write hf:ORGANISATION/NAME, and after it @REVISION, :FILE "
        "or @REVISION:FILE if needed"
    )


@pytest.mark.parametrize(
    ("package", "name", "advice"),
    [
        ("huggingface_hub", "hf:org/name", "pip install huggingface_hub, or download the file and give its path"),
        ("timm", "timm:resnet50", "pip install timm"),
    ],
)
def test_packages_that_are_not_installed(package: str, name: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(module: str, *args: Any, **kwargs: Any) -> ModuleType:
        if module.partition(".")[0] == package:
            raise ModuleNotFoundError(module)
        return real(module, *args, **kwargs)

    for module in [loaded for loaded in sys.modules if loaded.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(builtins, "__import__", without)
    assert refused(name) == f"{name} needs the package {package}: {advice}"


# timm


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torch keeps downloads, empty."""
    pytest.importorskip("timm")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.mark.parametrize("name", ["resnet50.a1_in1k", "resnet50"])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_of_timm_from_the_cache_of_the_hub(name: str, file: str, hub: Hub, torch_home: Path) -> None:
    """Without a tag it is timm's default; the safetensors come first, as in timm."""
    snapshot = hub.snapshot("timm/resnet50.a1_in1k", NEW)
    write(snapshot / "pytorch_model.bin", "")
    write(snapshot / file, "")
    write(snapshot / "config.json", {"architecture": "something else"})
    assert locate(f"timm:{name}") == Source(
        f"timm:{name}", (hub.keep(snapshot) / file,), None, "resnet50", NEW, Pixels()
    )


def test_a_model_of_timm_downloaded_from_the_hub(online: Hub, torch_home: Path, tmp_path: Path) -> None:
    online.publish("timm/resnet50d.ra2_in1k", NEW, tensors(tmp_path / "published").parent)
    found = locate("timm:resnet50d.ra2_in1k")
    assert (content(found), found.architecture, found.revision) == ({"a": 1.0}, "resnet50d", NEW)


def test_a_model_of_timm_from_the_cache_of_torch(hub: Hub, torch_home: Path) -> None:
    import timm

    url = timm.models.get_pretrained_cfg("resnet50.a1_in1k").url
    file = write(torch_home / url.rpartition("/")[2], "")  # as timm kept it before it used the hub
    assert locate("timm:resnet50.a1_in1k") == Source("timm:resnet50.a1_in1k", (file,), None, "resnet50", None, Pixels())


def test_timm_offline(hub: Hub, torch_home: Path) -> None:
    write(hub.snapshot("timm/resnet18.a1_in1k", NEW) / "config.json", "{}")
    for name in ("resnet50.a1_in1k", "resnet18.a1_in1k"):
        assert refused(f"timm:{name}") == (
            f"the weights of the repository timm/{name} cannot be fetched (HF_HUB_OFFLINE is set), nor found in the local "
            f"cache; run `hf download timm/{name} --local-dir FOLDER` on a machine with network and give the path of what it "
            "wrote"
        )


def test_a_repository_of_timm_without_weights(online: Hub, torch_home: Path, tmp_path: Path) -> None:
    write(tmp_path / "published" / "config.json", "{}")
    online.publish("timm/resnet18.a1_in1k", NEW, tmp_path / "published")
    assert refused("timm:resnet18.a1_in1k").startswith(
        "the repository timm/resnet18.a1_in1k has no file pytorch_model.bin"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet50.a1_in1", "; did you mean resnet50.a1_in1k?"),
        ("resnet50.", "; did you mean resnet50"),
        ("timm/resnet50.a1_in1k", "; did you mean resnet50.a1_in1k?"),
        ("tv_resnet50", "; it is called resnet50.tv_in1k now"),
        ("", ""),
        ("\N{SNOWMAN}", ""),
    ],
)
def test_unknown_models_of_timm(name: str, hint: str, torch_home: Path) -> None:
    message = refused(f"timm:{name}")
    assert message.startswith(f"timm has no pretrained model {name!r}{hint}")
    assert message.endswith("; timm.list_models(pretrained=True) lists them all")


def test_models_of_timm_with_an_address_or_a_file(
    hub: Hub, torch_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timm.models import PretrainedCfg, _registry

    weights = tensors(tmp_path)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    server = weights.rename(tmp_path / f"model-{digest}.safetensors")

    def registered(**settings: Any) -> None:
        monkeypatch.setitem(_registry._model_pretrained_cfgs, "own_net.tag", PretrainedCfg(**settings))

    registered(file=str(server))
    assert locate("timm:own_net.tag") == Source("timm:own_net.tag", (server,), None, "own_net", None, Pixels())
    registered(url=server.as_uri())
    for _ in range(2):
        found = locate("timm:own_net.tag")
        assert (found.files, content(found)) == ((torch_home / server.name,), {"a": 1.0})
        monkeypatch.setattr(torch.hub, "download_url_to_file", None)  # not fetched again
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(torch_home.parents[1]))
    registered(url=(server.as_uri(), "other-00000000.pth"))  # a name of timm's own, with the digest of other bytes
    message = refused("timm:own_net.tag")
    assert message.startswith(f"{server.as_uri()} cannot be downloaded (invalid hash value")
    assert message.endswith(f"put it at {torch_home / 'other-00000000.pth'}")
    registered(url="http://127.0.0.1:1/a.pth")
    assert "http://127.0.0.1:1/a.pth cannot be downloaded (<urlopen error" in refused("timm:own_net.tag")
    assert not (torch_home / "a.pth").exists()
    registered(hf_hub_id="org/name@v1", hf_hub_filename="nets/own.bin")
    hub_cache = hub.snapshot("org/name", OLD, "v1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub.cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    safe = tensors(hub_cache / "nets", "own.safetensors")
    assert locate("timm:own_net.tag") == Source("timm:own_net.tag", (safe,), None, "own_net", OLD, Pixels())


HALVES = Pixels("RGB", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


@pytest.mark.parametrize(
    ("files", "pixels"),
    [
        (
            {"config.json": {"architecture": "resnet50d", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}},
            HALVES,
        ),
        ({"preprocessor_config.json": {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}}, HALVES),
        (
            {"preprocessor_config.json": {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}},
            Pixels(),
        ),
        ({"preprocessor_config.json": {"image_mean": 0.5, "image_std": ["a"] * 3}}, None),
        ({"config.json": {"architecture": "resnet50d"}}, None),
    ],
)
def test_pixels_that_are_declared_beside_the_weights(
    tmp_path: Path, files: dict[str, Any], pixels: Pixels | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert locate(tmp_path).pixels == pixels


def test_declared_pixels_are_those_of_the_backbone(tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    config = timm.models.get_pretrained_cfg("resnet18d.ra4_e3600_r224_in1k")
    assert config is not None
    held = {"architecture": "resnet18d", "pretrained_cfg": {"mean": config.mean, "std": config.std}}
    (tmp_path / "config.json").write_text(json.dumps(held))
    save_file(timm.create_model("resnet18d").state_dict(), tmp_path / "model.safetensors")
    reading = read(tmp_path)
    assert (reading.format, reading.architecture, reading.backbone.pixels) == ("timm_d", "resnet18d", HALVES)
    assert inspect(tmp_path)["formats"]["timm_d"]["pixels"]["std"] == HALVES.std
