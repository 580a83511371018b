"""The page and the picture: whole, self-contained, escaped, and written or not at all."""

import html.parser
import os
import re

import keras
import pytest

from keras_dnn_extras import GradientNormMonitor, training_report
from keras_dnn_extras.reports.markup import element, with_code

NAN, INF = float("nan"), float("inf")
EVIL = "<script>alert('1')</script>"
LOGS = {
    "loss": [3.0, NAN, INF],
    "val_loss": [2.0, 2.5, 2.2],
    EVIL: [1.0, 2.0, 3.0],
    "$x_1$": [1.0, 2.0, 3.0],
    "_hidden": [1.0, 2.0, 3.0],
    "learning_rate": [0.1, 0.1, 0.01],
    "gradient_norm": [1.0, 2.0, 3.0],
    "clipped_fraction": [0.0, 0.5, 1.0],
    f"gradient_norm/{EVIL}": [1.0, 0.0, INF],
    'gradient_norm/a`b"&': [1e-9, NAN, 1e5],
    "gradient_norm/$y_2$": [1e-2, 1e-2, 1e-2],
}


class Page(html.parser.HTMLParser):
    """Collects names, links, texts and open elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.tags, self.texts, self.open = [], [], [], [], []
        self.attributes = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self.ids += [value for name, value in attributes if name == "id"]
        self.links += [value for name, value in attributes if name in ("href", "src", "xlink:href")]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    pytest.importorskip("matplotlib")
    path = tmp_path_factory.mktemp("report") / "report.html"
    monitor = GradientNormMonitor()
    monitor.history = {"gradient_norm": [1.0], "clipped_gradient_norm": [1.0]}
    assert training_report(LOGS, path, title=EVIL, baseline={"val_loss": [9.0]}, monitor=monitor) == path
    return path.read_text(encoding="utf-8")


def test_the_page_has_each_section_that_has_data_and_says_why_others_are_not_there(text):
    page = Page(text)
    sections = ["summary", "metrics", "rates", "gradients", "clipping", "findings", "baseline"]
    assert [name for name in page.ids if re.fullmatch("[a-z]+", name)] == sections
    shown = "".join(page.texts)
    assert "Uncertainty and calibration (no prediction was passed)" in shown
    assert "Diagnosis (no diagnosis was passed)" in shown


def test_the_page_is_well_formed_and_its_links_lead_within_it(text):
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    within = [link for link in page.links if link.startswith("#")]
    assert {link[1:] for link in within} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []


def test_the_page_loads_nothing_and_runs_nothing(text):
    page = Page(text)
    assert "script" not in page.tags
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    assert [name for name, _ in page.attributes if name.startswith("on")] == []
    assert any(
        name == "content" and value.startswith("default-src 'none'") for name, value in page.attributes
    )


def test_names_are_shown_as_they_are(text):
    page = Page(text)
    for name in (EVIL, "$x_1$", "$y_2$", "_hidden", 'a`b"&'):
        assert any(name in shown for shown in page.texts)


def test_the_page_is_made_for_phones_paper_and_readers_who_do_not_see(text):
    assert 'name="viewport" content="width=device-width' in text
    assert "@media print" in text
    assert "@media (max-width" in text
    assert '<html lang="en">' in text
    pictures = re.findall(r'role="img" aria-label="([^"]+)"', text)
    assert len(pictures) == text.count("<svg ") == text.count("<figure>")
    assert all(len(description) > 20 for description in pictures)


def test_the_same_logs_give_the_same_page(tmp_path, text):
    paths = [training_report(LOGS, tmp_path / f"{name}.html") for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("metrics", [0, 300])
def test_a_page_is_small(metrics, tmp_path):
    epochs = 100
    history = {"loss": [1.0] * epochs, **{f"metric_{i}": [float(i)] * epochs for i in range(metrics)}}
    history |= {f"gradient_norm/dense_{i}": [10.0**-i] * epochs for i in range(20)}
    assert training_report(history, tmp_path / "report.html").stat().st_size < 500_000


def test_one_epoch_is_enough(tmp_path):
    history = {"loss": [1.0], "val_loss": [2.0], "learning_rate": [0.1], "gradient_norm/a": [0.0]}
    assert "1 of 1" in training_report(history, tmp_path / "r.htm").read_text(encoding="utf-8")


def test_a_history_a_dict_and_a_file_give_the_same_pictures(tmp_path):
    logs = {"accuracy": [0.5, 0.75], "loss": [2.0, 1.0]}
    history = keras.callbacks.History()
    history.epoch, history.history = [0, 1], logs
    (tmp_path / "h.csv").write_text("epoch,accuracy,loss\n0,0.5,2.0\n1,0.75,1.0\n")
    pages = [
        training_report(source, tmp_path / f"{place}.html", title="same").read_text(encoding="utf-8")
        for place, source in enumerate([history, logs, str(tmp_path / "h.csv")])
    ]
    assert pages[0] == pages[1] == pages[2].replace("<li>from <code>h.csv</code></li>", "")


def test_the_model_tells_its_size_and_the_order_of_its_layers(tmp_path):
    layers = [keras.layers.Dense(2, name="zebra"), keras.layers.Dense(1, name="ant")]
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    model.compile("sgd", "mse")
    (tmp_path / "h.csv").write_text("epoch,gradient_norm/ant,gradient_norm/zebra,loss\n0,1,1,1\n")
    text = training_report(tmp_path / "h.csv", tmp_path / "r.html", model=model).read_text(encoding="utf-8")
    assert "Training report: net" in text
    assert "11 weights" in text  # 3 * 2 + 2 + 2 * 1 + 1
    assert "SGD" in text
    assert text.index(">zebra<") < text.index(">ant<")


def test_a_png_is_a_picture(tmp_path):
    path = training_report(LOGS, tmp_path / "report.PNG", title="$x$")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_settings_of_matplotlib_are_neither_used_nor_changed(tmp_path, pyplot):
    plain = training_report({"loss": [1.0]}, tmp_path / "a.html").read_bytes()
    with pyplot.rc_context({"axes.facecolor": "red", "text.usetex": True, "lines.linewidth": 9}):
        assert training_report({"loss": [1.0]}, tmp_path / "b.html").read_bytes() == plain
        assert pyplot.rcParams["axes.facecolor"] == "red"
    assert pyplot.get_fignums() == []


# -- files -----------------------------------------------------------------------------------------


def test_a_failure_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("before")

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        training_report({"loss": [1.0]}, path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "report.html"
    link.symlink_to(tmp_path / "real" / "page.html")
    training_report({"loss": [1.0]}, str(link))
    assert link.is_symlink()
    assert "Summary" in (tmp_path / "real" / "page.html").read_text(encoding="utf-8")


def test_a_file_may_be_read_by_whoever_may_read_others(tmp_path):
    (tmp_path / "other").write_text("")
    path = training_report({"loss": [1.0]}, tmp_path / "report.html")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("path", "error", "match"),
    [
        (3, TypeError, r"Expected `path` to be a string or a path. Received: path=3"),
        ("report.pdf", ValueError, r"end in \.html, \.htm, \.png. Received: path='report.pdf'"),
        ("report", ValueError, "end in"),
        ("none/report.html", FileNotFoundError, "no folder 'none'"),
        ("folder.html", IsADirectoryError, "it is a folder"),
    ],
)
def test_a_path_that_cannot_be_is_refused(path, error, match, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(error, match=match):
        training_report({"loss": [1.0]}, path)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"history": {}}, ValueError, "no epoch in `history`"),
        ({"baseline": {"loss": []}}, ValueError, "no epoch in `baseline`"),
        ({"model": "net"}, TypeError, "model"),
        ({"monitor": keras.callbacks.History()}, TypeError, "`GradientNormMonitor`"),
        ({"scheduler": keras.callbacks.EarlyStopping()}, TypeError, "a learning-rate callback"),
        ({"prediction": [0.5]}, TypeError, "`MCPrediction`"),
        ({"y_true": [0]}, ValueError, "Pass both, or none"),
        ({"diagnosis": ["bad"]}, TypeError, "a sequence of findings"),
        ({"diagnosis": {"KD1": "bad"}}, TypeError, "a sequence of findings"),
        ({"title": 3}, TypeError, "Expected `title` to be a string"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(arguments, error, match, tmp_path):
    with pytest.raises(error, match=match):
        training_report(**{"history": {"loss": [1.0]}, "path": tmp_path / "r.html"} | arguments)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_dnn_extras._plotting.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"`training_report`.*pip install matplotlib"):
        training_report({"loss": [1.0]}, tmp_path / "r.html")


# -- markup ----------------------------------------------------------------------------------------


def test_text_and_attributes_are_escaped_and_markup_is_not():
    inside = element("b", "<&")
    assert element("p", inside, "\"'>", class_='"x') == (
        '<p class="&quot;x"><b>&lt;&amp;</b>&quot;&#x27;&gt;</p>'
    )


def test_backticks_make_code_where_they_are_pairs():
    assert with_code("a `<b>` c") == "a <code>&lt;b&gt;</code> c"
    assert with_code("one ` alone <") == "one ` alone &lt;"


@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_text_that_utf_8_does_not_have_is_escaped(suffix, tmp_path):
    path = training_report({"loss": [1]}, tmp_path / f"r{suffix}", title="a\udcff")
    assert suffix == ".png" or "<title>a\\udcff</title>" in path.read_text(encoding="utf-8")
