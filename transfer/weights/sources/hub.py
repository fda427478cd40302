"""Checkpoints in repositories of the Hugging Face hub, in its own local cache."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from pixbench.errors import UserError, did_you_mean
from transfer.weights.sources.folders import DECLARATIONS, INDEX, WEIGHTS, choose, declared_in, is_inside, read_index
from transfer.weights.sources.record import Source

HUB = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)(?:@([^:@\s]+))?(?::(\S.*))?", re.ASCII)


def from_hub(name: str) -> Source:
    """Return the source "hf:organisation/name[@revision][:file]"."""
    found = HUB.fullmatch(name)
    if not found or not is_inside(found[3] or ""):
        raise _malformed(name)
    return Repository(name, found[1], found[2]).source([found[3]] if found[3] else [])


def _malformed(name: str) -> UserError:
    return UserError(
        f"{name} does not name a repository of the Hugging Face hub; write hf:ORGANISATION/NAME, and after it @REVISION, "
        ":FILE or @REVISION:FILE if needed"
    )


@dataclass(frozen=True)
class Repository:
    """A repository of the hub, on the hub and in its local cache."""

    given: str
    """What the user gave."""
    name: str
    """"organisation/name"."""
    revision: str | None
    """Branch, tag or commit; None for the main branch."""

    def __str__(self) -> str:
        return f"the repository {self.name}" + (f" at {self.revision}" if self.revision else "")

    def source(self, wanted: list[str]) -> Source:
        """Return the first file of ``wanted`` that exists, with its shards; if ``wanted`` is empty, the one of the weights."""
        try:
            from huggingface_hub import HfApi, constants
        except ImportError as error:
            raise UserError(
                f"{self.given} needs the package huggingface_hub: pip install huggingface_hub, or download the file and "
                "give its path"
            ) from error
        api = HfApi()
        unreachable = cached = None
        only = wanted[0] if len(wanted) == 1 else None
        try:  # asked once, so that without network nobody waits for one file after another
            info = api.model_info(self.name, revision=self.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            names = {file.rfilename for file in info.siblings or ()}
        except Exception as error:  # of several libraries, which change with the version
            cached = self._cached()
            if cached is None:
                self._give_up(error, only)
            names = {file.relative_to(cached).as_posix() for file in cached.rglob("*") if file.is_file()}
            unreachable = error

        def fetch(file: str, revision: str | None) -> Path:
            if unreachable and file not in names:
                self._give_up(unreachable, file)
            if file not in names:
                raise UserError(f"{self} has no file {file}{did_you_mean(file, names)}; check the name")
            if cached:
                return cached / file
            try:
                return Path(api.hf_hub_download(self.name, file, revision=revision))
            except Exception as error:
                self._give_up(error, file)

        there = [file for file in wanted if file in names]
        if unreachable and not (there if wanted else any(file.endswith((*WEIGHTS, *INDEX)) for file in names)):
            self._give_up(unreachable, only)
        chosen = (there or wanted[-1:] or [choose(names, str(self), f"{self.given}:")])[0]
        # By the revision, not yet by its commit: the cache then remembers the commit of the revision.
        file, folder = fetch(chosen, self.revision), PurePosixPath(chosen).parent
        commit = file.parents[chosen.count("/")].name  # the cache has one folder for each commit
        index, files = None, [file]
        if chosen.endswith(INDEX):
            index = read_index(file)
            files = [fetch(str(folder / shard), commit) for shard in sorted(set(index.values()))]
        beside = [fetch(str(folder / name), commit) for name in DECLARATIONS if str(folder / name) in names]
        declared = declared_in(beside[0].parent) if beside else {}
        return Source(self.given, tuple(files), index, revision=commit, **declared)

    def _cached(self) -> Path | None:
        """Return the folder of the local cache with the files of the revision that were fetched before."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError

        try:
            return Path(snapshot_download(self.name, revision=self.revision, local_files_only=True))
        except (OSError, HFValidationError) as error:
            # Not all files of the repository are there, but those that are needed may be.
            some = getattr(error, "snapshot_path", None)
            return Path(some) if some else None

    def _give_up(self, error: Exception, file: str | None) -> NoReturn:
        """Raise a `UserError` that says why ``file`` cannot be fetched. ``error`` is not quoted, as it may hold a token."""
        from huggingface_hub import errors

        if isinstance(error, OSError) and (error.filename or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise error  # of this machine's disk
        if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.HFValidationError):
            raise _malformed(self.given) from error
        if isinstance(error, errors.GatedRepoError):
            why = (
                f"{self.name} is open only to those whom its owner admits; ask for access at "
                f"https://huggingface.co/{self.name}, then run `hf auth login`"
            )
        elif isinstance(error, errors.RepositoryNotFoundError):
            why = (
                f"the Hugging Face hub has no repository {self.name}, or it is private; check the name, or run "
                "`hf auth login` with an account that may read it"
            )
        elif isinstance(error, errors.RevisionNotFoundError):
            why = f"the repository {self.name} has no revision {self.revision}; check the branch, tag or commit"
        elif status == 401:
            why = (
                f"the Hugging Face hub refuses your token, so {self.name} cannot be fetched; run `hf auth login`, "
                "or unset HF_TOKEN"
            )
        else:
            words = ["hf download", self.name, file, self.revision and f"--revision {self.revision}"]
            why = (
                f"{file or 'the weights'} of {self} cannot be fetched ({_cause(error, status)}), nor found in the local "
                f"cache; run `{' '.join(filter(None, words))} --local-dir FOLDER` on a machine with network and give the "
                "path of what it wrote"
            )
        raise UserError(why) from error


def _cause(error: Exception, status: int | None) -> str:
    kind = type(error).__name__
    if kind == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set"
    if status:
        return f"the hub answered {status}"
    return "no answer in time" if "Timeout" in kind else "no connection" if "Connect" in kind else kind
