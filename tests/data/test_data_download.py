"""Downloads from mirrors on this machine: a dead one, a lying one, a good one, and the cache."""

import hashlib
import http.server
import os
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from data.make_files import one_sentence, write_idx_set

from deepkit.data import DataError, download, mnist, sets

pooch = pytest.importorskip("pooch")
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A server of tmp_path/www that counts requests, a cache of its own, no proxies."""
    (tmp_path / "www").mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path / "www")

        def log_message(self, *_):
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("DEEPKIT_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    yield f"http://127.0.0.1:{server.server_port}/", requests
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def dead():
    """An address where nobody listens."""
    with socket.socket() as claimed:
        claimed.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{claimed.getsockname()[1]}/"


def source_of(folder, *mirrors):
    sums = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}
    return download.Source(sums, mirrors)


def test_the_mirrors_are_tried_in_turn_and_the_cache_is_used_again(
    tmp_path, monkeypatch, served, dead
):
    url, requests = served
    parts = write_idx_set(tmp_path / "www" / "good")
    write_idx_set(tmp_path / "www" / "lying", train=29)
    source = source_of(
        tmp_path / "www" / "good", dead, url + "none/", url + "lying/", url + "good/"
    )
    monkeypatch.setattr(sets.download, "MNIST", source)
    images, labels = mnist()
    np.testing.assert_array_equal(images[..., 0], parts["train"][0])
    np.testing.assert_array_equal(labels, parts["train"][1])
    folder = tmp_path / "cache" / "deepkit" / "mnist"
    assert sorted(p.name for p in folder.iterdir()) == sorted(source.md5)  # no leftovers
    count = len(requests)
    assert count > 0
    np.testing.assert_array_equal(mnist(split="test")[0][..., 0], parts["test"][0])
    assert len(requests) == count
    # a file that was damaged in the cache is fetched again
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    np.testing.assert_array_equal(mnist()[0][..., 0], parts["train"][0])
    assert len(requests) > count


def test_when_every_mirror_fails_one_sentence_tells_how(tmp_path, monkeypatch, served, dead):
    url, _ = served
    write_idx_set(tmp_path / "good")
    write_idx_set(tmp_path / "www" / "lying", train=29, test=11)
    source = source_of(tmp_path / "good", dead, url + "none/", url + "lying/")
    monkeypatch.setattr(sets.download, "MNIST", source)
    with pytest.raises(DataError) as error:
        mnist()
    text = one_sentence(error)
    file = "t10k-images-idx3-ubyte.gz"
    assert text.startswith(f"mnist: {file} could not be downloaded: {dead} is out of reach (")
    assert f"{url}none/ refused (404" in text
    assert f"{url}lying/ sent a file whose MD5 is not {source.md5[file]}" in text
    assert text.endswith("name a folder that has the files, as root or in DEEPKIT_DATA")
    assert list((tmp_path / "cache").rglob("*.gz")) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch, served):
    url, _ = served
    write_idx_set(tmp_path / "www" / "good")
    monkeypatch.setattr(sets.download, "MNIST", source_of(tmp_path / "www" / "good", url + "good/"))
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(DataError) as error:
        mnist()
    folder = tmp_path / "cache" / "deepkit" / "mnist"
    assert one_sentence(error).startswith(f"mnist: the cache {folder} cannot be written (")


@pytest.mark.parametrize("package", ["pooch", "requests"])
def test_it_says_what_to_install(monkeypatch, package):
    monkeypatch.delenv("DEEPKIT_DATA", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError) as error:
        mnist()
    needed = "needs the extra 'data', which is the packages pooch and requests (pip install pooch"
    assert needed in one_sentence(error)
    assert " the `data` extra (pooch, requests) downloads" in README.read_text()


def test_every_published_file_has_an_md5_and_several_mirrors():
    for source in (download.MNIST, download.FASHION_MNIST, download.CIFAR10):
        assert len(source.mirrors) >= 2
        assert all(mirror.startswith("http") and mirror.endswith("/") for mirror in source.mirrors)
        assert all(len(bytes.fromhex(md5)) == 16 for md5 in source.md5.values())
