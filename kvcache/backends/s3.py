"""Amazon S3 and what is compatible with it: `s3://<region>/<bucket>/<prefix>?endpoint=...&engine=...`.

The URL, and which client library carries it out; each is imported only where it is asked for.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kvcache.backends.bucket import Bucket, Rights
from kvcache.backends.opening import Opening, open_objects, split_bucket
from kvcache.errors import InvalidURL
from kvcache.kvs import Capabilities, Version
from kvcache.url import StoreURL

if TYPE_CHECKING:
    from kvcache.backends.objects import ObjectStore

FORM: Final = "s3://<region>/<bucket>/<prefix>"
ENGINES: Final = ("s3fs", "obstore")
RIGHTS: Final = Rights("s3:GetObject and s3:ListBucket", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket")
MOST_PARTS: Final = 10_000
NEVER: Final = Version(f'"{"0" * 32}"')
"""An ETag that no object ever has."""

_TAG: Final = re.compile(r'(W/)?"[!#-~]+"|[\w./+=:-]+', re.ASCII)
"""What may be sent in If-Match. An empty one is ignored by most services, `*` matches anything, a list many things."""
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z]+)+-[0-9]+")


def tag_of(version: Version) -> str:
    """The ETag to send in If-Match for a version; one that nothing has for what is no ETag."""
    return version.token if _TAG.fullmatch(version.token) else NEVER.token


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket, and how to get there."""

    name: str
    region: str
    endpoint: str | None
    """None: Amazon's own, or what the environment says."""
    foreign: bool
    """The service is not Amazon's."""
    profile: str | None
    """Of the shared AWS files."""
    ca: str | None
    """A file of certificates to trust."""
    anonymous: bool

    @property
    def sorted_pages(self) -> bool:
        """Whether listings come in order: only S3 itself promises it, and not for its directory buckets."""
        return not self.foreign and not self.name.endswith("--x-s3")


def open(url: StoreURL) -> ObjectStore:
    """Opens the store. InvalidURL: also a bucket that does not exist or may not be used. StoreUnavailable."""
    url.reject_unknown({"endpoint", "engine", "profile", "ca", *Opening.parameters})
    if url.user is not None or url.password is not None:
        raise InvalidURL(
            f"{url.redacted}: credentials do not belong in the URL: use the standard AWS chain or profile="
        )
    region = url.require("region", url.host, FORM)
    name, prefix = split_bucket(url, FORM, url.path)
    endpoint = url.take_text("endpoint", None)
    foreign = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not foreign and not _REGION.fullmatch(region):
        raise url.invalid("region", region, f"an AWS region such as us-east-1: {FORM}")
    opening = Opening.of(url, foreign=bool(foreign))
    place = Place(
        name,
        region=region,
        endpoint=endpoint,
        foreign=bool(foreign),
        profile=url.take_text("profile", None),
        ca=url.take_text("ca", None),
        anonymous=opening.anonymous,
    )
    engine = url.take_choice("engine", ENGINES, ENGINES[0])
    bucket = _through_obstore(url, place, prefix) if engine == "obstore" else _through_s3fs(place)
    capabilities = Capabilities(
        conditional_write=not opening.anonymous,
        store_time=engine == "s3fs",
        time_resolution=1.0 if engine == "s3fs" else 0.0,
        unique_versions=False,
    )
    return open_objects(url, bucket, prefix, capabilities, opening)


def _through_s3fs(place: Place) -> Bucket:
    from kvcache.backends.s3_bucket import S3Bucket

    return S3Bucket(place)


def _through_obstore(url: StoreURL, place: Place, prefix: str) -> Bucket:
    try:
        from kvcache.backends.s3_obstore import ObstoreBucket
    except ImportError as error:
        if (error.name or "").split(".")[0] != "obstore":
            raise  # a fault of ours, not something to install
        raise InvalidURL(
            f"{url.redacted}: engine: a package for 'obstore' is missing: pip install 'kvcache-dewy[obstore]'"
        ) from error
    if place.profile is not None:
        raise url.invalid("profile", place.profile, "engine=s3fs with it: obstore does not read the shared AWS files")
    if "//" in prefix or {".", ".."} & set(prefix.split("/")):
        raise url.invalid(
            "prefix", prefix.removesuffix("/"), "engine=s3fs with it: obstore takes no empty, '.' or '..' segments"
        )
    return ObstoreBucket(place)
