"""Downloading TFDS data sets and writing them as ArrayRecord: the only user of TensorFlow."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cnnjax.data import tfds_source
from cnnjax.data.alone import alone
from cnnjax.files import expanded
from cnnjax.types import UserError

_NOT_TFDS = ("folder", "imagenet", "npz", "records", "wds")


def is_of_tfds(name: str) -> bool:
    """Whether a name, as for `open_dataset`, is that of a TFDS data set."""
    return name != "digits" and name.partition(":")[0] not in _NOT_TFDS


def prepare(name: str, *, data_dir: str | os.PathLike[str] | None = None,
            manual_dir: str | os.PathLike[str] | None = None,
            log: Callable[[str], None] = print) -> Path:
    """Downloads a TFDS data set and writes it as ArrayRecord, which training reads.

    A set that is there already is left alone; one that is there as TFRecord gets ArrayRecord
    files beside those.

    Args:
      name: as for `open_dataset`; for what is no TFDS data set there is nothing to do.
      data_dir: where to; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      manual_dir: a folder with files that were downloaded by hand, under their original names.
        They are checked against the checksums that TFDS knows, and not written to.
      log: called with lines for the user.

    Returns:
      The folder of the data set.

    Raises:
      UserError: if TensorFlow is missing, TFDS does not know the name, a file cannot be
        downloaded, one has a wrong checksum, or another process prepares the data set.
    """
    path = name.partition(":")[2]
    if not is_of_tfds(name):
        log(f"{name} needs no preparation.")
        return expanded(path) if path else Path(__file__).parent
    root = tfds_source.data_root(data_dir)
    folder = tfds_source.find_prepared(name, data_dir)
    if folder is None:
        tfds_source.check_known(name)
    formats = tfds_source.file_formats(folder) if folder else set()
    if "array_record" in formats:
        log(f"{name} is prepared already: {folder}")
        return folder
    _import_tensorflow()
    with _alone(name, root):
        folder = tfds_source.find_prepared(name, data_dir)  # Another may just have written it.
        formats = tfds_source.file_formats(folder) if folder else set()
        if not formats:
            folder = _download_and_prepare(name, root, manual_dir, log)
        elif "array_record" not in formats:
            from cnnjax.data.convert import convert_to_array_record
            convert_to_array_record(folder, log)
    size = sum(f.stat().st_size for f in folder.glob("*array_record*"))
    log(f"{name} is prepared: {folder}, {size / 2**20:,.1f} MiB")
    return folder


@contextlib.contextmanager
def _alone(name: str, root: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            lock = root / f".{tfds_source.TfdsName.parse(name).name}.lock"
            stack.enter_context(alone(lock, f"{name} to {root}"))
        except OSError as error:
            raise _not_writable(root, error) from error
        yield


def _not_writable(root: Path, error: OSError) -> UserError:
    return UserError(f"{root} cannot be written ({error.strerror}): name another directory with "
                     "--config.data.data_dir=DIR.")


def _import_tensorflow() -> None:
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        raise UserError("Preparing a TFDS data set needs TensorFlow (training does not):\n"
                        "  pip install tensorflow-cpu\n"
                        "or, from the repository, pip install -e '.[prepare]'. It may be done on "
                        "another machine, and the data_dir copied.") from None


def _download_and_prepare(name: str, root: Path, manual_dir: str | os.PathLike[str] | None,
                          log: Callable[[str], None]) -> Path:
    import tensorflow_datasets as tfds

    manual = expanded(manual_dir) if manual_dir else None
    if manual and not manual.is_dir():
        raise UserError(f"There is no folder {manual.absolute()}: --config.data.manual_dir names "
                        "the folder with the files that were downloaded by hand.")
    builder = _make_builder(name, root)
    urls = {info.filename: url for url, info in (builder.url_infos or {}).items() if info.filename}
    absent = {file: url for file, url in urls.items() if not (manual and (manual / file).exists())}
    downloads = root / "downloads"
    if urls and len(absent) == len(urls) and not (downloads / builder.name).exists():
        _check_network(name, absent)
    log(f"Preparing {name} in {builder.data_dir}"
        + (f", with the files of {manual}" if manual else ""))
    if manual and urls:
        log(f"  {len(urls) - len(absent)} of {len(urls)} files are there"
            + (f"; not: {', '.join(list(absent)[:5])}" if absent else ""))
    # TFDS names what it extracts after the file alone, so that train-images-idx3-ubyte.gz of mnist
    # would be taken for the one of fashion_mnist.
    extracted = downloads / "extracted" / builder.info.full_name.replace("/", "-")
    with _user_errors(name, builder, absent):
        builder.download_and_prepare(
            download_dir=downloads, download_config=tfds.download.DownloadConfig(
                manual_dir=manual, extract_dir=extracted, try_download_gcs=False))
    shutil.rmtree(extracted, ignore_errors=True)
    for split, info in builder.info.splits.items():
        log(f"  {split}: {info.num_examples:,} examples")
    return Path(builder.data_dir)


def _make_builder(name: str, root: Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=root, file_format="array_record")
    except OSError as error:
        raise _not_writable(root, error) from error
    except (ValueError, AssertionError, RuntimeError) as error:
        raise UserError(f"TFDS {tfds.__version__} has no {name!r}: {str(error).strip()}") from error


@contextlib.contextmanager
def _user_errors(name: str, builder: Any, absent: dict[str, str]) -> Iterator[None]:
    """Turns what the user can mend into a UserError; the rest is a failure of the program."""
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, extractor

    try:
        yield
    except (requests.RequestException, tfds.download.DownloadError, ConnectionError) as error:
        raise UserError(f"{name} cannot be downloaded: {error}\n" + _by_hand(absent)) from error
    except (download_manager.NonMatchingChecksumError, extractor.ExtractError) as error:
        raise UserError(f"A file of {name} is damaged or not the one that TFDS knows. Delete it, "
                        f"and download it again.\n{error}") from error
    except AssertionError as error:
        if not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise
        raise UserError(
            f"{name} has to be downloaded by hand, because its owners ask for a registration:\n"
            f"{textwrap.indent(textwrap.dedent(builder.MANUAL_DOWNLOAD_INSTRUCTIONS), '  ')}\n"
            "Then name the folder (manual_dir) with --config.data.manual_dir=DIR.") from error
    except ImportError as error:
        raise UserError(f"Preparing {name} needs a package more: pip install {error.name}"
                        ) from error
    except (OSError, RuntimeError) as error:  # Of a full disk ArrayRecord raises the second.
        said = str(error).splitlines()[0] if str(error) else ""
        if isinstance(error, RuntimeError) and os.strerror(errno.ENOSPC) not in said:
            raise
        raise UserError(f"{name} cannot be written to {builder.data_dir}: {said}. Make room, or "
                        "name another directory with --config.data.data_dir=DIR.") from error


def _check_network(name: str, files: dict[str, str]) -> None:
    """Raises a UserError if no host can be found: TFDS itself would try for three minutes."""
    if urllib.request.getproxies():
        return  # The proxy finds the hosts, not this machine.
    hosts = {urllib.parse.urlsplit(url).hostname for url in files.values()}
    for host in hosts:
        try:
            socket.getaddrinfo(host, None)
            return
        except OSError:
            continue
    raise UserError(f"{name} cannot be downloaded: this machine does not find the host "
                    f"{', '.join(sorted(map(str, hosts))[:3])}.\n" + _by_hand(files))


def _by_hand(files: dict[str, str]) -> str:
    listing = "\n".join(f"  {url}" for url in list(files.values())[:10])
    more = f"\n  and {len(files) - 10} more" if len(files) > 10 else ""
    return (f"Download by hand, elsewhere if need be, into one folder, without renaming:\n{listing}"
            f"{more}\nThen run the same command with --config.data.manual_dir=DIR.")
