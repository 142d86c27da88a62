"""--job=visualize: the page, what it needs and what it says."""

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

import cnnjax
from cnnjax.analysis import fonts
from cnnjax.command_line import main
from cnnjax.jobs import visualize
from cnnjax.jobs.visualize import page as page_lib
from cnnjax.types import Preprocess

TINY = dict(widths=(4, 8))
# Few and small: the whole of it in seconds.
QUICK = ["--config.log.progress=none", "--config.visualize.count=40",
         "--config.visualize.shown=2", "--config.visualize.channels=1",
         "--config.visualize.patches=2", "--config.visualize.ascent=0",
         "--config.visualize.integration=4", "--config.visualize.umap=False",
         "--config.visualize.endpoints=('stage1', 'stage2')"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, root):
    """A workdir that has trained a little on the digits, and has been looked into."""
    folder = tmp_path_factory.mktemp("visualize") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["launch.py", "--config=experiments/simple_cnn.py",
                     "--config.model.widths=(4,8)", "--config.data.image_size=16",
                     "--config.train.steps=30", "--config.log.progress=none",
                     "--config.log.plot=False", "--config.log.tensorboard=False",
                     f"--workdir={folder}"]) == 0
        assert main(["launch.py", "--job=visualize", f"--workdir={folder}", *QUICK]) == 0
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a small CNN on RGB images, of seven classes."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    module = cnnjax.create_model("simple_cnn", 7, **TINY)
    variables = jax.jit(module.init)(jax.random.key(3), np.zeros((1, 16, 16, 3), np.float32))
    cnnjax.save_weights(path, "simple_cnn", variables,
                        preprocess=Preprocess((16, 16), (0.5,) * 3, (0.25,) * 3), **TINY,
                        class_names=[f"<kind {i}>" for i in range(7)])
    return path


def photos(folder, count):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 256, (20, 24, 3), np.uint8))
    return folder


def page(folder):
    return (folder / "visualize" / "index.html").read_text()


class Strict(HTMLParser):
    """Collects what a page asks for, and checks that its tags are closed in order."""

    EMPTY = ("meta", "link", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_has_every_part_and_asks_for_nothing_outside(trained):
    text = page(trained)
    for title in ("1. What it is", "2. What it looks for", "3. Where it looks",
                  "4. What it gets wrong", "5. How it arranges images"):
        assert f"<h2>{title}</h2>" in text
    assert "not known" not in text
    parser = Strict()
    parser.feed(text)
    assert not parser.open
    assert all(source.startswith(("data:", "#")) for source in parser.sources)
    assert len(text) < 10e6


def test_every_figure_of_the_page_is_a_png_beside_it(trained):
    found = {path.stem for path in (trained / "visualize").glob("*.png")}
    assert {"receptive_fields", "filters", "patches_stage1", "feature_maps",
            "evidence", "insertion", "randomization", "confusion", "mistakes", "pca", "cka",
            "translation"} <= found
    for path in (trained / "visualize").glob("*.png"):
        assert cv2.imread(str(path)).std() > 1


def test_the_pictures_of_an_earlier_page_go_when_the_new_one_is_there(tmp_path, monkeypatch):
    def write(*names):
        visualize._write(tmp_path, "t", [], [], [page_lib.Section("a", "A", [
            page_lib.Chart(name, b"png") for name in names])])

    write("a", "b")
    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(page_lib, "render", lambda *_: os.listdir("/nowhere/at/all"))
        write("b", "c")
    assert {path.stem for path in tmp_path.glob("*.png")} == {"a", "b", "c"}
    write("b", "c")
    assert {path.stem for path in tmp_path.glob("*.png")} == {"b", "c"}


def test_a_caption_wider_than_its_tile_has_more_lines_and_a_word_is_cut():
    def lines(caption, side=112):
        return page_lib._wrapped(caption, fonts.for_pillow(caption, 10), side)

    assert lines("for tabby\nit says great white shark, 100%") == [
        "for tabby", "it says great white", "shark, 100%"]
    assert lines("") == [] and lines("a\n\nb") == ["a", "", "b"]
    first, second = lines("1337725712_2eb53cd742.jpg 87%")
    assert first.startswith("1337725712_") and first.endswith("…") and second == "87%"
    assert fonts.for_pillow(first, 10).getlength(first) <= 112
    tile = page_lib.Tile(np.zeros((112, 112, 3), np.uint8), "it says great white shark, 100%")
    heights = [Image.open(io.BytesIO(page_lib.png_of(page_lib.Figure("f", [
        page_lib.Row("", [t])])))).height for t in (dataclasses.replace(tile, caption="bee"), tile)]
    assert heights[1] == heights[0] + 15


def test_a_long_row_of_tiles_is_a_grid_in_its_file():
    def size(count, side, label):
        tiles = [page_lib.Tile(np.zeros((side, side, 3), np.uint8), f"{i}") for i in range(count)]
        figure = page_lib.Figure("f", [page_lib.Row(label, tiles)], side=side)
        return Image.open(io.BytesIO(page_lib.png_of(figure))).size

    width, height = size(64, 56, "")  # As many first filters as are shown.
    assert (width, height) == (16 * 62 + 6, 4 * (size(1, 56, "")[1] - 6) + 6)
    assert size(8, 112, "a") == (8 * 118 + 6, size(1, 112, "a")[1])
    assert size(9, 112, "a")[1] == size(1, 112, "a")[1] + size(1, 112, "")[1] - 6
    assert size(0, 112, "no channel is alive")[0] > 100


def test_the_accuracy_on_the_page_is_that_of_the_images_looked_at(trained, capsys):
    right = re.search(r"right about (\d+) of 40 images of digits, test", page(trained))
    dataset = cnnjax.data.open_dataset("digits").eval
    indices = np.linspace(0, len(dataset) - 1, 40).round().astype(int)
    assert main(["launch.py", "--job=predict", f"--workdir={trained}",
                 "--config.log.progress=none"]) == 0
    rows = (trained / "predictions.csv").read_text().splitlines()[1:]
    said = [row.split(",")[1] for row in rows]
    assert int(right[1]) == sum(said[i] == str(dataset.source[i][1]) for i in indices)


@pytest.mark.slow
def test_a_folder_of_images_has_no_labels_and_the_page_says_so(weights, tmp_path):
    folder = photos(tmp_path / "photos", 3)
    (folder / "broken.png").write_bytes(b"no image")
    words = ["launch.py", "--job=visualize", "--model=simple_cnn", f"--weights={weights}",
             f"--images={folder}", *QUICK, "--config.visualize.ascent=2"]
    out = [tmp_path / name for name in ("a", "b")]
    for workdir in out:
        assert main([*words, f"--workdir={workdir}"]) == 0
    text = page(out[0])
    assert "The true classes of these images are not known" in text
    assert "1 images could not be read" in text and "broken.png" in text
    assert "What it gets wrong" not in text and "4. How it arranges images" in text
    assert "&lt;kind" in text and "<kind" not in text
    assert "made for it" in text and (out[0] / "visualize" / "classes.png").exists()
    # The same files from the same command, to the last byte.
    names = sorted(path.name for path in (out[0] / "visualize").iterdir())
    for name in names:
        assert (out[0] / "visualize" / name).read_bytes() == (
            out[1] / "visualize" / name).read_bytes(), name


@pytest.mark.parametrize(("words", "message"), [
    (["--config.visualize.endpoints=('stage9',)"], "'stage9' is no endpoint"),
    (["--config.visualize.endpoints=('features',)"], "is no map"),
    (["--config.visualize.shown=0"], "visualize.shown is 0; it lies between"),
])
def test_what_cannot_be_shown_is_one_message(trained, words, message, capsys):
    assert main(["launch.py", "--job=visualize", f"--workdir={trained}", *QUICK, *words]) == 2
    assert message in capsys.readouterr().err


def test_one_image_is_too_few(weights, tmp_path, capsys):
    folder = photos(tmp_path / "photos", 1)
    assert main(["launch.py", "--job=visualize", "--model=simple_cnn", f"--weights={weights}",
                 f"--images={folder}", f"--workdir={tmp_path / 'out'}", *QUICK]) == 2
    assert "needs two or more; 1 can be read" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(weights, tmp_path, capsys):
    folder = photos(tmp_path / "photos", 2)
    assert main(["launch.py", "--job=visualize", "--model=simple_cnn", f"--weights={weights}",
                 f"--images={folder}", f"--workdir={tmp_path / 'out'}", "--dry_run"]) == 0
    assert "Would look inside simple_cnn" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_the_page_opens_in_a_browser_without_an_error_or_a_request_and_fits_a_phone(trained,
                                                                                    tmp_path):
    file = (trained / "visualize" / "index.html").resolve()
    assert file.stat().st_size < 10e6
    requests = tmp_path / "requests.json"
    chromium(tmp_path, f"--log-net-log={requests}", "--dump-dom", file.as_uri())
    urls = [event["params"]["url"] for event in json.loads(requests.read_text())["events"]
            if "url" in event.get("params", {})]
    # The browser's own, such as asking for updates, end in a domain of Google's.
    assert not [url for url in urls if not url.startswith(("file:", "data:", "chrome"))
                and not re.match(r"https?://[\w.-]*(google|gvt1)[\w.]*", url)]
    # In a frame as wide as a phone: a window has a least width of its own.
    frame = tmp_path / "phone.html"
    frame.write_text(f'<iframe id="f" src="{file.as_uri()}" width="390" height="800"></iframe>'
                     "<script>onload = () => { const d = document.getElementById('f')"
                     ".contentDocument.documentElement; document.title = 'widths ' + "
                     "d.scrollWidth + ' ' + d.clientWidth; };</script>")
    dom, console = chromium(tmp_path, "--allow-file-access-from-files", "--dump-dom",
                            frame.as_uri())
    scroll, client = map(int, re.search(r"<title>widths (\d+) (\d+)</title>", dom).groups())
    assert scroll <= client <= 390
    assert "CONSOLE" not in console


def chromium(folder, *words):
    """Returns the page as it stands in the end, and what the browser logs."""
    found = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder}/profile",
         *words], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    return found.stdout, found.stderr
