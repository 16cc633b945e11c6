# SPDX-License-Identifier: GPL-2.0-or-later
"""A content-addressed cache that any number of runs may use at once.

An entry is a folder ``store/<kind>/<key>``; the key is a hash over everything
that went into it, so an entry never changes and is never wrong, only unused.
It is made in a temporary folder beside its place and renamed into it whole:
whoever sees an entry sees all of it, however its maker died.  What has become of
it since is noticed (:mod:`harness.toolchain.sums`), and it is made again.

A machine's users may share a cache that most of them cannot write to: what it lacks
goes to a cache of the user's own, which is looked at first.

    cache = Cache(None, events)
    folder = cache.get("module", key, build, what="the guest's module", space=50 * MIB)

A finished entry costs a few ``stat`` and needs no lock, no write permission and
no network.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import site_cache_dir, user_cache_dir

from harness.errors import MachineryError
from harness.events import EventStream
from harness.toolchain.sums import Sums

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

CACHE_VARIABLE = "FREEPAGE_CACHE"


def sums_file(entry: Path) -> Path:
    """Where the sums of an entry's files are, by the entry's own place."""
    return entry.parents[2] / "sums" / entry.parent.name / f"{entry.name}.json"


def key_of(**inputs: object) -> str:
    """The key of what these inputs make.  Equal inputs give equal keys, in every process."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(paths: Iterable[Path], base: Path) -> dict[str, str]:
    """What a set of files is, as an input for :func:`key_of`: name below ``base`` to digest."""
    return {str(path.relative_to(base)): file_digest(path) for path in sorted(paths)}


def no_space(where: Path, what: str, needed: int | None = None) -> MachineryError:
    """The error for a full disk: which disk, how much is there, how much it takes."""
    free = shutil.disk_usage(where).free
    need = f", {needed // MIB} MiB are needed" if needed else ""
    return MachineryError(
        f"no disk space for {what}: {free // MIB} MiB free at {where}{need}",
        hint=f"make room there, or let {CACHE_VARIABLE} name a folder on another disk",
    )


def require_space(where: Path, what: str, needed: int) -> None:
    """Say so before a long build, not after it."""
    if shutil.disk_usage(where).free < needed:
        raise no_space(where, what, needed)


def cache_root(override: Path | None = None) -> Path:
    """Where the cache is: the argument, else the environment, else the user's cache folder."""
    return cache_layers(override)[0]


def cache_layers(override: Path | None = None) -> tuple[Path, ...]:
    """The folder that is written to, and behind it those that are only read.

    The environment may name several, in that order, with colons between.  One that belongs to others is
    only read: the user's own is in front of it.  Where nothing is named, the system's folder
    (/var/cache/freepage-testbed) is behind the user's, if there is one.
    """
    if override is not None:
        return (override.absolute(),)
    own = Path(user_cache_dir("freepage-testbed"))
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        places = tuple(dict.fromkeys(Path(name).absolute() for name in named.split(os.pathsep) if name))
        alone = len(places) == 1 and places[0].is_dir() and not os.access(places[0], os.W_OK | os.X_OK)
        return tuple(dict.fromkeys((own, *places))) if alone else places or (own,)
    system = Path(site_cache_dir("freepage-testbed"))
    return (own, system) if (system / "store").is_dir() and system != own else (own,)


@contextmanager
def _space_errors(where: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space(where, what) from error
        raise


class Cache:
    """The cache's folder, its locks and its events."""

    def __init__(self, root: Path | None, events: EventStream) -> None:
        self.root, *behind = cache_layers(root)
        self.behind = tuple(behind)
        self.events = events

    @property
    def layers(self) -> tuple[Path, ...]:
        """The folder that is written to, and those behind it."""
        return (self.root, *self.behind)

    def folder(self, *parts: str) -> Path:
        """A folder of the cache that is not an entry (an archive's lists, work trees), made when missing."""
        path = self.root.joinpath(*parts)
        self._make(path)
        return path

    def place(self, kind: str, key: str) -> Path:
        """Where an entry is, once it exists: in the first folder that has it, else in our own."""
        places = [layer / "store" / kind / key for layer in self.layers]
        return next((place for place in places if place.is_dir()), places[0])

    def has(self, kind: str, key: str) -> bool:
        """Whether an entry is there."""
        return self.place(kind, key).is_dir()

    def get(
        self, kind: str, key: str, build: Callable[[Path], None], *, what: str, space: int = 64 * MIB
    ) -> Path:
        """The entry; ``build`` fills a new folder if there is none yet.

        Of several runs that want the same entry one builds, the others wait
        and then find it.  A build that fails leaves nothing behind.
        """
        place = self.place(kind, key)
        if place.is_dir():
            wrong = self._damage(place)
            if wrong is None:
                return place
            if not place.is_relative_to(self.root):
                self._say_damaged(place, what, wrong)
        place = self.root / "store" / kind / key
        with self.lock(f"{kind}-{key}", what):
            if place.is_dir():  # made while this run waited, or damaged
                wrong = self._damage(place)
                if wrong is None:
                    return place
                self._say_damaged(place, what, wrong)
                self.discard(kind, key)
            self._make(place.parent)
            self._sweep(place)
            require_space(place.parent, what, space)
            with _space_errors(place.parent, what):
                temporary = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=place.parent))
                try:
                    # mkdtemp's 0700 would keep a QEMU that gave up root from its firmware.
                    temporary.chmod(0o755)
                    build(temporary)
                    # First: whoever sees the entry is to know what it was.
                    Sums.of(temporary).save(sums_file(place))
                    temporary.rename(place)
                except BaseException as error:
                    self._keep_logs(temporary, f"{kind}-{key}", error)
                    shutil.rmtree(temporary, ignore_errors=True)
                    raise
        return place

    @contextmanager
    def lock(self, name: str, what: str) -> Iterator[None]:
        """Only one run at a time does this; the others say that they wait."""
        lock = FileLock(self.folder("locks") / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.events.emit("message", text=f"{what}: another run is at it; waiting for that")
            lock.acquire(poll_interval=0.1)
        except PermissionError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def remember(self, name: str, value: object) -> None:
        """Keep a small fact across runs (what an archive has, say), replaced as a whole."""
        folder = self.folder("facts")
        with _space_errors(folder, "the cache"):
            descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                os.fchmod(descriptor, 0o644)  # mkstemp's 0600 would keep it from the machine's other users
                json.dump(value, file, indent=1, sort_keys=True)
            Path(temporary).replace(folder / f"{name}.json")

    def recall(self, name: str) -> object | None:
        """What was remembered under that name; None if nothing was, or it cannot be read."""
        for layer in self.layers:
            with contextlib.suppress(OSError, ValueError):
                value: object = json.loads((layer / "facts" / f"{name}.json").read_text("utf-8"))
                return value
        return None

    def recall_all(self, name: str) -> list[object]:
        """What is remembered under that name in each folder, our own first, up to one that forgot it."""
        found: list[object] = []
        for layer in self.layers:
            with contextlib.suppress(OSError, ValueError):
                value: object = json.loads((layer / "facts" / f"{name}.json").read_text("utf-8"))
                if value is None:
                    break
                found.append(value)
        return found

    def forget(self, name: str) -> None:
        """Forget what was remembered under that name; what others remember is covered up."""
        (self.root / "facts" / f"{name}.json").unlink(missing_ok=True)
        if self.recall(name) is not None:
            self.remember(name, None)

    def discard(self, kind: str, key: str) -> None:
        """Take an entry of our own away; a program that is running from it keeps what it has open."""
        place = self.root / "store" / kind / key
        aside = place.with_name(f".{key}.discarded-{os.getpid()}")
        place.rename(aside)
        sums_file(place).unlink(missing_ok=True)
        shutil.rmtree(aside, ignore_errors=True)

    def _damage(self, place: Path) -> str | None:
        """What is wrong with an entry, as far as it is cheap to see; None if nothing is."""
        known = Sums.load(sums_file(place))
        # Entries of before sums were kept: nobody knows.
        wrong = known.quick(place) if known is not None else None
        if wrong is None:
            with contextlib.suppress(OSError):
                # When it was used last, for those who prune.
                os.utime(sums_file(place))
        return wrong

    def _say_damaged(self, place: Path, what: str, wrong: str) -> None:
        text = f"{what}: damaged in the cache, and made anew: {wrong} ({place})"
        self.events.emit("warning", text=text)

    def _keep_logs(self, temporary: Path, name: str, error: BaseException) -> None:
        """What a build has said stays where its error says that it is."""
        if not isinstance(error, MachineryError):
            return
        for log in temporary.glob("*.log"):
            # On a full disk there is only the error.
            with contextlib.suppress(OSError, MachineryError):
                kept = self.folder("logs", name) / log.name
                shutil.move(log, kept)
                error.message = error.message.replace(str(log), str(kept))

    def _make(self, path: Path) -> None:
        try:
            with _space_errors(self.root if self.root.exists() else Path("/"), "the cache"):
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> MachineryError:
        return MachineryError(
            f"cannot write to the cache {self.root}: {error.strerror} ({error.filename})",
            hint=f"let {CACHE_VARIABLE} name a folder of your own",
        )

    def _sweep(self, place: Path) -> None:
        # Whoever holds the key's lock may remove what a killed run left of it.
        for leftover in place.parent.glob(f".{place.name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)
