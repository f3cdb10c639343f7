import pytest

from sdxl_engine.assets.captions import COLUMNS, read_captions, write_captions
from sdxl_engine.errors import AssetError

HEADER = "\t".join(COLUMNS)


def row(identifier, caption):
    return f"{identifier}\t7\t{caption}\t128\t128\tf.png\t"


@pytest.fixture
def file(tmp_path):
    def write(*lines):
        path = tmp_path / "captions.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def test_a_written_file_reads_back(tmp_path):
    texts = ["a red circle", 'a "quoted" word', "one\ttab"]
    write_captions(tmp_path / "c.tsv", texts, 128)
    read = read_captions(tmp_path / "c.tsv")
    assert [caption.text for caption in read] == texts
    assert [caption.id for caption in read] == [0, 1, 2]


def test_quoted_captions_are_read_as_csv(file):
    path = file(HEADER, row(1, '"He said ""stop"" loudly."'))
    assert read_captions(path)[0].text == 'He said "stop" loudly.'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id\timage_id\theight", "1\t2\t3"], "lacks the columns caption, width, file_name, coco_url"),
        ([HEADER, row("x", "a")], "line 2"),
        ([HEADER, row(1, "a"), row(1, "b")], "id 1 twice"),
        ([HEADER], "no rows"),
        ([HEADER, row(1, "")], "empty"),
        ([HEADER, row(1, "a"), row(2, "one\ttab")], "line 3"),
        ([HEADER, row(1, "one\ttab")], "a row has more fields than the header"),
        ([HEADER, "1\t2\tcaption"], "a row has fewer fields than the header"),
        ([HEADER, row(1, '"Stop" signs')], "line 2"),
        ([HEADER, row(1, '"never closed')], "not a TSV"),
        ([""], "lacks the columns"),
    ],
)
def test_a_malformed_file_is_named_with_its_fault(file, lines, message):
    path = file(*lines)
    with pytest.raises(AssetError) as caught:
        read_captions(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_an_asset_error(tmp_path):
    with pytest.raises(AssetError, match="missing"):
        read_captions(tmp_path / "none.tsv")
