"""The hub asked, and what it refuses said in one line. The token is huggingface_hub's: HF_TOKEN, or its login's file."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from saelight.errors import UserError, one_line
from saelight.hub.hub_place import HubPlace, import_hub
from saelight.version import version

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LOG_IN = "log in by `hf auth login`, or set HF_TOKEN"
_LONGEST = 5  # of a list of names
_AGAIN = "try again later: what has arrived is kept"


def endpoint() -> str:
    """The hub's address, as the environment has it now."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def client() -> "HfApi":
    """What asks the hub. Raises `UserError` where huggingface_hub is missing, or what it has for a token can be none."""
    hub = import_hub()
    if (token := hub.get_token()) and not (token.isascii() and token.isprintable() and " " not in token):
        raise UserError(f"what is in HF_TOKEN, or in the login's file, is no token: {_LOG_IN} anew")
    return hub.HfApi(endpoint=endpoint(), library_name="saelight", library_version=version())


@contextlib.contextmanager
def asking(place: HubPlace, to_write: bool = False) -> Iterator[None]:
    """Ask the hub for a place inside: what goes wrong is a `UserError`, and huggingface_hub's own notes are left out, its
    bars too where they are no terminal's.

    Args:
        to_write: Whether something is to be shared there.
    """
    hub = import_hub()
    level, bars = hub.logging.get_verbosity(), sys.stderr.isatty() or hub.utils.are_progress_bars_disabled()
    hub.logging.set_verbosity_error()
    try:
        with contextlib.nullcontext() if bars else hub.utils.disable_progress_bars():
            yield
    except (UserError, MemoryError):
        raise
    except OSError as error:
        if (said := _refusal(error, place, to_write)) or error.errno is None:
            raise said or _odd(error, place) from None
        raise  # this machine's own, as a full disk
    except Exception as error:
        raise _refusal(error, place, to_write) or _odd(error, place) from None
    finally:
        hub.logging.set_verbosity(level)


def _refusal(error: BaseException | None, place: HubPlace, to_write: bool) -> UserError | None:
    """The line for what huggingface_hub raised, which may have wrapped it; None for what is no matter of a hub."""
    import httpx2
    from huggingface_hub import errors

    repo, page = f"{place.kind} repository {place.repo}", f"{endpoint()}/{place.repo}"
    while error is not None:
        if isinstance(error, errors.GatedRepoError):
            return UserError(f"{place.repo} is gated: ask for access at {page}, then {_LOG_IN}")
        if isinstance(error, errors.RevisionNotFoundError):
            return UserError(f"{place.repo} has no revision {place.revision!r}{_revisions(place)}")
        if isinstance(error, errors.DisabledRepoError):
            return UserError(f"{place.repo} was disabled by the hub or its owner: nothing can be had from {page}")
        if isinstance(error, errors.RepositoryNotFoundError) and not to_write:
            return _not_shown(repo)
        if isinstance(error, errors.HfHubHTTPError):
            return _answer(error.response.status_code, error, repo, place, to_write)
        if isinstance(error, errors.LocalTokenNotFoundError):
            return UserError(f"{endpoint()} does not know you: {_LOG_IN}")
        if isinstance(error, errors.OfflineModeIsEnabled):
            return UserError(f"{place}: HF_HUB_OFFLINE forbids to ask {endpoint()}, and it is needed: unset it")
        if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL | httpx2.StreamError):
            return UserError(
                f"{place}: {endpoint()} does not answer ({one_line(error)}): look to the network, or to HF_ENDPOINT; what "
                "has arrived is kept"
            )
        if isinstance(error, errors.HFValidationError):
            return UserError(f"{place} is no place on a hub: {one_line(error)}")
        error = error.__cause__ or error.__context__
    return None


def _odd(error: BaseException, place: HubPlace) -> UserError:
    """The line for an answer that huggingface_hub makes no sense of."""
    return UserError(
        f"{place}: {endpoint()} answers as no hub does ({one_line(error)}): look to HF_ENDPOINT, or try again later"
    )


def _not_shown(repo: str) -> UserError:
    return UserError(f"{endpoint()} shows no {repo}: mind the spelling; if it is private, {_LOG_IN} as one who may see it")


def _answer(status: int, error: BaseException, repo: str, place: HubPlace, to_write: bool) -> UserError:
    if status == 404:
        return _not_shown(repo)
    if status == 401:
        return UserError(f"{endpoint()} does not know you, or your token is no longer valid: {_LOG_IN}")
    if status == 403:
        doing = f"write to {repo}" if to_write else f"read {repo}"
        return UserError(f"your token may not {doing}: give it that right, or take a repository of your own")
    if status == 429:
        return UserError(f"{endpoint()} has had too many requests of you: {_AGAIN}")
    if status >= 500:
        return UserError(f"{endpoint()} has a fault of its own ({status}): {_AGAIN}")
    return UserError(f"{endpoint()} refuses {place} ({one_line(error)})")


def _revisions(place: HubPlace) -> str:
    """Those that a repository has, for a message."""
    try:
        refs = client().list_repo_refs(place.repo, repo_type=place.kind)
    except Exception:
        return ": give a branch, a tag or a commit of it"
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    return f": it has {', '.join(names[:_LONGEST])}{', …' if len(names) > _LONGEST else ''}, and its commits"
