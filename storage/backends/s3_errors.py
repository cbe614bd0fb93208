"""What a failed call of an S3 server means: set something (InputError), wait (StoreAwayError), or look (Fault)."""

import asyncio
import os
import socket
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError
from botocore.exceptions import (
    BotoCoreError,
    ConfigParseError,
    ConnectionError,
    EndpointProviderError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    ValidationError,
)
from botocore.parsers import ResponseParserError

from storage.errors import Fault, InputError, StoreAwayError

RAISED = (
    *(OSError, ValueError, BotoCoreError, ClientError, ResponseParserError, asyncio.TimeoutError),
    RecursionError,  # botocore follows redirects that lead in a circle
)
"""What s3fs lets through, of all the layers below it."""

NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName"})
BAD_CREDENTIALS = frozenset(
    {
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "InvalidSecurity",
        "AccountProblem",
        "InvalidClientTokenId",
    }
)
NOT_ALLOWED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "401", "Unauthorized"})
ELSEWHERE = frozenset(
    {
        "301",
        "PermanentRedirect",
        "307",
        "TemporaryRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    }
)
BUSY = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "RequestTimeout"}
    | {"InternalError", "ServiceUnavailable", "BadDigest", "XAmzContentSHA256Mismatch"}
)
BUSY_STATUS = (408, 429)
NO_ANSWER = (
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ClientError,
    TimeoutError,
    asyncio.TimeoutError,
)


@dataclass(frozen=True)
class Place:
    """Where a call failed."""

    url: str
    bucket: str
    path: str
    is_known: bool
    """The store is known to have answered, in this run: then its name and address are right."""


def is_absent(error: BaseException) -> bool:
    """Tell whether the object is not there; with a file name in the error, it is a local file that is not."""
    return isinstance(error, FileNotFoundError) and error.filename is None and code_of(error) not in NO_BUCKET


def code_of(error: BaseException) -> str:
    """Return the error code in the server's answer, empty if there was no answer."""
    response = _response(error)
    return str(response.get("Error", {}).get("Code", "")) if response else ""


def explained(error: Exception, place: Place) -> Fault | InputError:
    """Return the error to raise, which says what must hold, what was found and what to do."""
    found = f"the store must answer, but {place.url}/{place.path} failed: {type(error).__name__}: {error}"
    if advice := _advice(error, place):
        return InputError(f"{found}; {advice}")
    if _is_away(error, place):
        return StoreAwayError(
            f"{found}; check the network and {_endpoint()}, then run again: what is finished is kept"
        )
    return Fault(f"{found}; check {_endpoint()} and AWS_DEFAULT_REGION, then run again: what is finished is kept")


def _advice(error: Exception, place: Place) -> str:
    """Return what the user must set; empty if nothing is known to be set wrongly."""
    code = code_of(error)
    if code in NO_BUCKET:
        return f"correct the URL of the store, or create the bucket {place.bucket!r} at {_endpoint()}"
    if code in BAD_CREDENTIALS or _is_caused_by(
        error, NoCredentialsError, PartialCredentialsError, ProfileNotFound, ConfigParseError
    ):
        return (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN too if they are temporary), or "
            "AWS_PROFILE, to credentials that are valid there"
        )
    if code in NOT_ALLOWED or (not code and isinstance(error, PermissionError) and error.filename is None):
        return (
            f"check that the credentials of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) may "
            f"read, write, list and delete in the bucket {place.bucket!r}"
        )
    if code in ELSEWHERE or isinstance(error, RecursionError):
        return f"set AWS_DEFAULT_REGION to the region of the bucket {place.bucket!r}, and check {_endpoint()}"
    if code == "RequestTimeTooSkewed":
        return "set the clock of this machine"
    if _is_caused_by(error, SSLError):
        return f"check {_endpoint()}: its certificate must be valid, or named by AWS_CA_BUNDLE"
    if place.is_known:
        return ""
    if _is_unknown_host(error):
        return f"there is no such host: correct {_endpoint()}, or AWS_DEFAULT_REGION"
    if isinstance(error, ValueError | ResponseParserError) or _is_caused_by(
        error, EndpointProviderError, ValidationError
    ):
        return f"correct {_endpoint()}: it must be the address of an S3 server, with http:// or https://"
    return ""


def _is_away(error: Exception, place: Place) -> bool:
    status = int((_response(error) or {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code_of(error) in BUSY or status in BUSY_STATUS or status >= 500:
        return True
    if isinstance(error, ResponseParserError):  # a proxy's page
        return place.is_known
    return not _response(error) and _is_caused_by(error, *NO_ANSWER)


def _response(error: BaseException) -> dict[str, Any] | None:
    response = getattr(error.__cause__ or error, "response", None)
    return response if isinstance(response, dict) else None


def _is_caused_by(error: BaseException | None, *kinds: type[BaseException]) -> bool:
    return any(isinstance(one, kinds) for one in _causes(error))


def _is_unknown_host(error: BaseException) -> bool:
    absent = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
    return any(isinstance(one, socket.gaierror) and one.errno in absent for one in _causes(error))


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return an error with all that led to it: the layers wrap each other's in their own ways."""
    found: list[BaseException] = []
    todo = [error]
    while todo:
        one = todo.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            todo += [one.__cause__, one.__context__, getattr(one, "os_error", None)]
            todo.append(getattr(one, "kwargs", {}).get("error"))
    return found


def _endpoint() -> str:
    name = "AWS_ENDPOINT_URL_S3" if os.environ.get("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"
    return f"{name} ({os.environ.get(name) or 'not set, so AWS'})"
