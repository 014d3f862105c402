"""djl_python.SessionManager: what a model keeps from one request of a session to the next, whatever worker has it.

A session is a directory of files in shared memory, and expires. Copies of sessions in S3, as DJL makes them when it
ends, are refused: workers have no credentials.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmserve_worker.codecs.rows import Array

_ID = re.compile(r"[0-9a-f-]{36}")
# Seconds.
_EXPIRATION = 20 * 60
# Its time is that of the session's beginning.
_BEGINNING = ".creation_time"


class Session:
    def __init__(self, session_id: str, session_root: str | Path) -> None:
        self.session_id = session_id
        self.files_path = os.path.join(session_root, session_id)

    def put(self, key: str, value: Any) -> None:
        path = self._path(key)
        # Written aside: another worker may be reading it.
        with tempfile.NamedTemporaryFile(dir=self.files_path, delete=False) as file:
            pickle.dump(value, file)
        os.replace(file.name, path)

    def get(self, key: str, default: Any = None) -> Any:
        try:
            with self._path(key).open("rb") as file:
                return pickle.load(file)
        except FileNotFoundError:
            return default

    def get_as_numpy(self, key: str, shape: Any, dtype: Any = np.float32, create: bool = False) -> Array:
        """An array that is the file: what is written to it is kept."""
        return np.memmap(self._path(key), dtype=dtype, mode="w+" if create else "r+", shape=shape)

    def remove(self) -> bool:
        """Says whether it was there."""
        try:
            shutil.rmtree(self.files_path)
        except FileNotFoundError:
            return False
        return True

    def _path(self, key: str) -> Path:
        name = key.replace("/", "-")
        if name in ("", ".", ".."):
            raise ValueError(f"{key!r} is no key of a session")
        return Path(self.files_path, name)


class SessionManager:
    """`properties` are a model's: `sessions_expiration` in seconds, `sessions_path`."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        if properties.get("sessions_s3url"):
            raise ValueError("sessions_s3url is not supported: workers have no credentials for S3")
        self.expiration = int(properties.get("sessions_expiration", _EXPIRATION))
        shared = Path("/dev/shm")
        root = shared if shared.is_dir() else Path(tempfile.gettempdir())
        self.sessions_path = str(properties.get("sessions_path") or root / "djl_sessions")
        # What is kept is pickled: nobody else is to write there.
        os.makedirs(self.sessions_path, mode=0o700, exist_ok=True)
        if os.stat(self.sessions_path).st_uid != os.geteuid():
            raise PermissionError(f"{self.sessions_path} belongs to somebody else: say another as sessions_path")

    def create_session(self) -> Session:
        self._remove_expired()
        session = Session(str(uuid.uuid4()), self.sessions_path)
        os.mkdir(session.files_path, 0o700)
        Path(session.files_path, _BEGINNING).touch()
        return session

    def get_session(self, session_id: str) -> Session | None:
        """None if it was closed, has expired or never was."""
        session = Session(_checked(session_id), self.sessions_path)
        return session if os.path.isdir(session.files_path) and not self._is_expired(session) else None

    def close_session(self, session_id: str) -> None:
        Session(_checked(session_id), self.sessions_path).remove()

    def _remove_expired(self) -> None:
        for name in os.listdir(self.sessions_path):
            session = Session(name, self.sessions_path)
            if _ID.fullmatch(name) and self._is_expired(session):
                session.remove()

    def _is_expired(self, session: Session) -> bool:
        try:
            began = os.stat(os.path.join(session.files_path, _BEGINNING)).st_mtime
        except FileNotFoundError:
            # It is being created, or has just been removed, by another worker.
            return False
        return time.time() - began > self.expiration


def _checked(session_id: str) -> str:
    """It becomes part of a path, and comes from a caller."""
    if not session_id or _ID.fullmatch(session_id) is None:
        raise ValueError(f"{session_id!r} is no session's id")
    return session_id
