"""Laws of the one reader of tables."""

import json
import sys
import zipfile
from pathlib import Path

import pytest

from configs.errors import DataError
from ensemble.data.files import open_files
from ensemble.data.tables import open_inner_table, open_table

ROWS = [{"path": "a.png", "label": "fröhlich"}, {"path": "b.png", "label": "sad"}]


def read(path: Path) -> list[dict[str, str]]:
    return [row for _, row in open_table(path).rows()]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_rows_do_not_depend_on_delimiter_line_end_and_encoding(tmp_path, delimiter, end, encoding):
    lines = [delimiter.join(row.values()) for row in ROWS]
    text = end.join([delimiter.join(("Path ", "LABEL")), *lines])

    assert read(write(tmp_path / "t.csv", text, encoding)) == ROWS


def test_the_first_line_of_excel_is_not_the_header(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("sep=;\npath;label\na.png;happy\n")
    table = open_table(path)

    assert table.columns == ("path", "label")
    assert [row for _, row in table.rows()] == [{"path": "a.png", "label": "happy"}]


def test_all_formats_give_the_same_rows(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    write(tmp_path / "t.csv", "path,label\na.png,fröhlich\nb.png,sad")
    write(tmp_path / "t.tsv", "path\tlabel\na.png\tfröhlich\nb.png\tsad")
    write(tmp_path / "t.txt", "path;label\na.png;fröhlich\nb.png;sad")
    write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, ROWS)))

    for path in tmp_path.iterdir():
        assert read(path) == ROWS, path.name


def test_a_table_in_an_archive_is_read_alike(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "t.parquet")
    write(tmp_path / "t.csv", "path,label\na.png,fröhlich\nb.png,sad")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for name in ("t.csv", "t.parquet"):
            archive.write(tmp_path / name, name)
    files = open_files([tmp_path / "d.zip"])

    for name in files.names():
        assert [row for _, row in open_inner_table(files, name).rows()] == ROWS


def test_quoted_cells_keep_delimiters_quotes_and_line_breaks(tmp_path):
    path = write(tmp_path / "t.csv", 'a,b\n"1, or\n""2""\n\n3",x\n"",y\n')

    assert read(path) == [{"a": '1, or\n"2"\n\n3', "b": "x"}, {"a": "", "b": "y"}]


def test_a_cell_may_hold_the_pixels_of_a_large_image(tmp_path):
    pixels = " ".join(["255"] * 224 * 224)

    assert read(write(tmp_path / "t.csv", f"emotion,pixels\n3,{pixels}\n")) == [
        {"emotion": "3", "pixels": pixels}
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (['1.png,sad,"dark', "2.png,sad,", "3.png,sad,"], "row that begins in line 3"),
        (['1.png,sad,"dark', "2.png,sad,", '3.png,sad,hand"'], "opens in line 3 .*line 5"),
        (['"1.png,sad,dark', '2.png,sad",'], "opens in line 3 .* closes in line 4"),
        (['1.png,sad,"dark" hair'], "row that begins in line 3"),
        (["1.png,sad,dark, hand"], "Line 3 of 't.csv' has 4 cells, its header has 3"),
    ],
)
def test_no_row_is_swallowed_or_cut(tmp_path, rows, message):
    path = write(tmp_path / "t.csv", "\n".join(["path,label,note", "0.png,sad,", *rows]))

    with pytest.raises(DataError, match=message):
        read(path)


def test_empty_cells_at_the_end_of_a_row_may_be_missing_or_too_many(tmp_path):
    path = write(tmp_path / "t.csv", "a,b,c\n1,2\n3,4,5,,\n,,,\n")

    assert read(path) == [{"a": "1", "b": "2", "c": ""}, {"a": "3", "b": "4", "c": "5"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [("t.csv", "path,label,Label\n1.png,sad,happy\n"), ("t.jsonl", '{"a": 1, "a": 2}')],
)
def test_a_column_that_occurs_twice_is_an_error(tmp_path, name, text):
    with pytest.raises(DataError, match=r"column '(label|a)' more than once"):
        read(write(tmp_path / name, text))


def test_lines_of_json_have_the_keys_of_the_first(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"a": 1, "b": null}\n\n{"a": 2}\n')

    assert read(path) == [{"a": "1", "b": ""}, {"a": "2", "b": ""}]
    with pytest.raises(DataError, match=r"t\.jsonl:2' has the key 'b'"):
        read(write(path, '{"a": 1}\n{"b": 2}\n'))
    with pytest.raises(DataError, match=r"t\.jsonl:1' is not valid JSON"):
        read(write(path, "{'a': 1}\n"))


@pytest.mark.parametrize(
    ("header", "meanings"),
    [
        (
            "subDirectory_filePath,face_x,expression,valence",
            ("subdirectory_filepath", "expression"),
        ),
        ("File Name;Category;Set", ("file name", "category")),
        ("Usage,Image name,EMOTION", ("image name", "emotion")),
        ("file_name,label", ("file_name", "label")),
    ],
)
def test_usual_names_of_columns_are_known(tmp_path, header, meanings):
    table = open_table(write(tmp_path / "t.csv", header))

    assert (table.meanings["path"], table.meanings["label"]) == meanings


def test_class_numbers_in_parquet_become_their_names(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    features = {"label": {"names": ["happy", "sad"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = arrow.table({"image": [{"bytes": b"1", "path": None}], "label": [1]})
    parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")

    ((number, values),) = open_table(tmp_path / "t.parquet").values()

    assert (number, values) == (1, {"image": {"bytes": b"1", "path": None}, "label": "sad"})


def test_parquet_without_its_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(DataError, match="Install the extra `parquet`"):
        open_table(write(tmp_path / "t.parquet", "PAR1"))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_a_corrupt_table_is_one_sentence(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"path,label\n\xff\xfe\xfa,\n")

    with pytest.raises(DataError, match=name):
        read(path)
