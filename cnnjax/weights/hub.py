"""Weights from the Hugging Face hub, through the optional package huggingface_hub."""

from __future__ import annotations

import logging
import re
import socket
import urllib.parse
import urllib.request
from pathlib import Path

from cnnjax.types import UserError

_FILES = ("model.safetensors", "pytorch_model.bin")
_PREFIX = re.compile(r"hf[-_]hub:")


def is_id(text: str) -> bool:
    """Whether a text is a hub id: "timm/resnet50.a1_in1k", "hf-hub:owner/name@revision"."""
    if _PREFIX.match(text):
        return True
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w.-]+)?", text) is not None


def download(identifier: str) -> tuple[Path, Path | None]:
    """Returns the weights of a hub repository and its config.json, or None where it has none.

    They are kept in huggingface_hub's cache, and taken from there the next time without asking
    the hub.

    Args:
      identifier: "timm/resnet50.a1_in1k", also with "hf-hub:" before it or "@revision" behind.

    Raises:
      UserError: if huggingface_hub is not installed, the hub cannot be reached, or there is no
        such repository, or it has no weights.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise UserError(f"{identifier} is on the Hugging Face hub, and reading it needs a package "
                        "more: pip install huggingface_hub. Or download its model.safetensors and "
                        "give the path.") from None
    repository, _, revision = _PREFIX.sub("", identifier).partition("@")

    def fetch(file: str, **where: bool) -> Path | None:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, file,
                                                        revision=revision or None, **where))
        except errors.LocalEntryNotFoundError:  # Offline; a subclass of the next.
            raise
        except errors.EntryNotFoundError:
            return None

    for file in _FILES:
        try:
            return fetch(file, local_files_only=True), fetch("config.json", local_files_only=True)
        except errors.LocalEntryNotFoundError:
            continue
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # Or it tells of every retry, twice.
        _check_name(huggingface_hub.constants.ENDPOINT)
        weights = next((path for file in _FILES if (path := fetch(file))), None)
        config = fetch("config.json")
    except errors.RepositoryNotFoundError:
        raise UserError(f"There is no file {identifier}, and no such repository on the Hugging "
                        "Face hub (or none that may be read without a login).") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"The hub repository {repository} has no revision {revision!r}.") from None
    # Whatever the network does: requests' and httpx's errors, time-outs, HTTP 429, offline mode.
    except Exception as error:
        raise UserError(
            f"There is no file {identifier}, and the Hugging Face hub cannot be reached for it "
            f"({type(error).__name__}: {error}). Where there is a network, run hf download "
            f"{repository}, and copy its cache; or give the path of a file.") from None
    finally:
        logger.setLevel(level)
    if weights is None:
        raise UserError(f"The hub repository {repository} has no file {' or '.join(_FILES)}.")
    return weights, config


def _check_name(endpoint: str) -> None:
    """Fails at once where there is no network, of which huggingface_hub makes sure for half a
    minute."""
    if not urllib.request.getproxies():
        socket.getaddrinfo(urllib.parse.urlsplit(endpoint).hostname, 443)
