"""Dewy v2's registry cache, as the facts about the Go program have it (section 3), on S3 by boto3: for mixed fleets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

ZERO = "0001-01-01T00:00:00Z"
FIELDS = ("response", "fetched_at", "locked_at", "locked_by")
RESPONSE = ("ID", "Tag", "ArtifactURL", "CreatedAt", "Slot")


class DewyV2:
    """One node. Reads what it knows of an entry, and drops the rest when it writes, as Go's encoder does."""

    def __init__(self, s3: Any, bucket: str, key: str, ttl: float, name: str, stop: threading.Event) -> None:
        self._s3, self._bucket, self._key, self._ttl, self._name, self._stop = s3, bucket, key, ttl, name, stop
        self._lock_ttl = min(max(2 * ttl, 30.0), 300.0)
        self.conflicts = 0

    def current(self, upstream: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        deadline = time.time() + self._lock_ttl + 0.25
        while not self._stop.is_set():
            entry, token = self._read()
            now = time.time()
            response = entry.get("response")
            if response is not None and now - seconds(entry["fetched_at"]) < self._ttl:
                return response
            locked_at = entry.get("locked_at", ZERO)
            if locked_at != ZERO and now - seconds(locked_at) < self._lock_ttl and now < deadline:
                time.sleep(0.25)
                continue
            claim = {**entry, "locked_at": text(now), "locked_by": self._name}
            claim.setdefault("fetched_at", ZERO)
            claimed = self._write(claim, token)
            if claimed is None:
                time.sleep(0.25)
                continue
            answer = upstream()
            self._write({"response": answer, "fetched_at": text(time.time()), "locked_at": ZERO}, claimed)
            return answer
        return None

    def _read(self) -> tuple[dict[str, Any], str]:
        try:
            found = self._s3.get_object(Bucket=self._bucket, Key=self._key)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "NoSuchKey"
            return {}, ""
        raw = json.loads(found["Body"].read())
        known = {name: raw[name] for name in FIELDS if name in raw}
        if known.get("response") is not None:
            known["response"] = {name: known["response"][name] for name in RESPONSE}
        return known, found["ETag"]

    def _write(self, entry: dict[str, Any], token: str) -> str | None:
        body = json.dumps({name: entry[name] for name in FIELDS if name in entry}, separators=(",", ":"))
        condition = {"IfMatch": token} if token else {"IfNoneMatch": "*"}
        try:
            return str(self._s3.put_object(Bucket=self._bucket, Key=self._key, Body=body.encode(), **condition)["ETag"])
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 409, 412)
            self.conflicts += 1
            return None


def text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def seconds(when: str) -> float:
    return 0.0 if when == ZERO else datetime.fromisoformat(when.replace("Z", "+00:00")).timestamp()
