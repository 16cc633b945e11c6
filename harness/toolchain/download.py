# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetches files from an archive: bounded in size and time, held against what is promised of them.

download("http://deb.debian.org/debian/pool/...", file, Promise(size, sha256), events=events)
"""

from __future__ import annotations

import functools
import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.errors import MachineryError
from harness.events import EventStream
from harness.toolchain.run import run_program, search_path
from harness.units import format_size

#: Where files may come from.  What comes by plain HTTP is held against a signature all the same.
SCHEMES: Final = ("http", "https", "file")

#: Seconds without a byte, and seconds in all.
_SILENCE: Final = 30.0
_LONGEST: Final = 1800.0
#: A connection that breaks is made again, and that is said.
_ATTEMPTS: Final = 3
_CHUNK: Final = 1 << 18
#: Behind a proxy the system's apt may know of it; nothing else of its settings is ours.
_APT_PROXY: Final = re.compile(r'^Acquire::(https?)::Proxy "([^"]*)";$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Promise:
    """What a signed list says of a file: its size in bytes, and its SHA-256."""

    size: int
    sha256: str


class NotThere(MachineryError):  # noqa: N818 - the name says what happened
    """The archive has no such file."""


def download(
    address: str, file: Path, promise: Promise | None, *, events: EventStream, most: int = 1 << 20
) -> None:
    """Fetch a file.

    ``promise``: what it has to be.  Without one it may have ``most`` bytes, and whoever asked checks it.
    Raises :class:`NotThere`, and :class:`MachineryError` for what cannot be had or is not what was promised;
    then no file is left.
    """
    if address.partition(":")[0] not in SCHEMES:
        raise MachineryError(f"{address}: only {', '.join(SCHEMES)} can be read")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _fetch(address, file, promise, most if promise is None else promise.size)
        except _BrokenOff as broken:
            file.unlink(missing_ok=True)
            if attempt == _ATTEMPTS:
                raise MachineryError(f"cannot fetch {address}: {broken}") from broken
            events.emit("message", text=f"{address}: {broken}; asked again ({attempt} of {_ATTEMPTS - 1})")
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        else:
            return


class _BrokenOff(Exception):  # noqa: N818 - the name says what happened
    """The connection was not made, or ended before the file did."""


def _fetch(address: str, file: Path, promise: Promise | None, most: int) -> None:
    digest, size, until = hashlib.sha256(), 0, time.monotonic() + _LONGEST
    try:
        with _opener().open(address, timeout=_SILENCE) as answer, file.open("wb") as copy:
            announced = answer.headers.get("Content-Length")
            while data := answer.read(_CHUNK):
                size += len(data)
                if size > most:
                    wrong = f"it is larger than {format_size(most)}"
                    if promise is None:
                        raise MachineryError(f"cannot fetch {address}: {wrong}")
                    raise _not_as_promised(address, wrong)
                if time.monotonic() > until:
                    raise MachineryError(f"cannot fetch {address}: it took over {_LONGEST:g} s")
                digest.update(data)
                copy.write(data)
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise _BrokenOff(f"the server says {error.code} {error.reason}") from error
        raise NotThere(f"cannot fetch {address}: {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError) or "No such file" in str(error.reason):
            raise NotThere(f"cannot fetch {address}: there is no such file") from error
        raise _BrokenOff(str(error.reason)) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _BrokenOff(str(error) or type(error).__name__) from error
    if announced is not None and announced.isdecimal() and size < int(announced):
        raise _BrokenOff(f"the connection ended after {size} of {announced} bytes")
    if promise is not None and (size, digest.hexdigest()) != (promise.size, promise.sha256):
        wrong = "its SHA-256 is another" if size == promise.size else f"it has {size} of {promise.size} bytes"
        raise _not_as_promised(address, wrong)


def _not_as_promised(address: str, wrong: str) -> MachineryError:
    return MachineryError(
        f"{address} is not what the archive's signed index promises: {wrong}",
        hint="freepage build --update looks everything up again",
    )


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler(_proxies()))


def _proxies() -> dict[str, str]:
    """The environment's proxies; where it names none, those of the system's apt, if there is one."""
    known = urllib.request.getproxies()
    if shutil.which("apt-config", path=search_path()) is None:
        return known
    return apt_proxies(run_program(["apt-config", "dump"], what="read apt's settings")) | known


def apt_proxies(said: str) -> dict[str, str]:
    """The proxies by scheme that ``apt-config dump`` names."""
    found = dict(_APT_PROXY.findall(said))
    return {scheme: proxy for scheme, proxy in found.items() if proxy not in ("", "DIRECT", "false")}
