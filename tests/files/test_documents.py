from __future__ import annotations

import pytest

from melange import InputError
from melange.files.documents import check_schema, read_document, read_documents


def written(tmp_path, text):
    file = tmp_path / "d.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"d.yaml:1:1: it holds no mapping"),
        ("- a\n", r"d.yaml:1:1: it holds no mapping"),
        ("a: [1,\n", r"d.yaml:2:1: not valid YAML"),
        ("a: 1\nb:\n  c: 2\n  c: 3\n", r"d.yaml:4:3: key 'c' occurs twice"),
        ("? [a]\n: 1\n", r"d.yaml:1:3: a key is a list"),
        ("a: 1\n---\nb: 1\n", r"d.yaml:2:1: .*another document"),
        ("a: *b\n", r"d.yaml:1:4: .*undefined alias"),
        ("a: .nan\n", r"d.yaml:1:4: the value is NaN"),
        ("a: 1e999\n", r"d.yaml:1:4: the value is infinite"),
        ("a: 1.0e+999\n", r"d.yaml:1:4: the value is infinite"),
        ("a: " + "9" * 5000, r"d.yaml:1:4: cannot read the text .{0,90}see"),
        ("a: !!python/name:os.system x\n", r"d.yaml:1:4: cannot read the text"),
        ("a: 1\nb: \x01\n", r"d.yaml:2:4: .*control character #x01"),
        (b"a: \xff\xfe\n", r"d.yaml: it is not a text file"),
    ],
)
def test_what_cannot_be_read_names_its_place(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_document(written(tmp_path, text))


def test_a_damaged_json_file_is_called_json(tmp_path):
    file = tmp_path / "d.json"
    file.write_text('{"a": ')
    with pytest.raises(InputError, match=r"d\.json:\d:\d+: not valid JSON"):
        read_document(file)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 200_000 + "]" * 200_000,
        '{"a": ' * 3000 + "1" + "}" * 3000,
        "- " * 5000,
        "a: &a [*a]\n",
        "a: &a {b: *a}\n",
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)),
    ],
    ids=["deep lists", "deep JSON", "deep blocks", "recursive list", "recursive mapping", "alias bomb"],
)
def test_endless_documents_end_in_one_line(tmp_path, text):
    with pytest.raises(InputError, match=r"d\.yaml:\d+:\d+: (nested more than|an alias)") as caught:
        read_document(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_values_as_people_mean_them(tmp_path):
    text = "\ufeffa: 1e3\r\nb: &b 4\r\nc: *b\r\nd: 1:30\r\ne: 010\r\nf: 2026-11\r\ng: '1e3'\r\nh: !!binary aGk=\r\n"
    read = read_document(written(tmp_path, text)).data
    assert read == {"a": 1000.0, "b": 4, "c": 4, "d": "1:30", "e": "010", "f": "2026-11", "g": "1e3", "h": "aGk="}


def test_json_lines_keep_their_line_numbers(tmp_path):
    documents = read_documents(written(tmp_path, '{"a": 1}\n\n{"a":\t2}\n'))
    assert [document.data["a"] for document in documents] == [1, 2]
    assert str(documents[1].error(("a",), "wrong")).endswith("d.yaml:3:7: wrong")
    with pytest.raises(InputError, match=r"d\.yaml:2:\d+: not valid YAML"):
        read_documents(written(tmp_path, '{"a": 1}\n{"a": [}\n'))


SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "edges": {"type": "array", "minItems": 2, "items": {"type": "integer", "exclusiveMinimum": 0}},
        "kind": {"enum": ["mean", "upper_edge"]},
    },
}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: x\nname: y\n", r"d.yaml:1:1: unknown key 'nam' in the document; did you mean 'name'"),
        ("edges: [1, 2]\n", r"d.yaml:1:1: the document lacks the key 'name'"),
        ("name: 5\n", r"d.yaml:1:7: name is 5, not a text"),
        ("name: x\nedges: 3\n", r"d.yaml:2:8: edges is 3, not a list"),
        ("name: x\nedges: [1]\n", r"d.yaml:2:8: edges has 1; give at least 2"),
        ("name: x\nedges: []\n", r"d.yaml:2:8: edges is empty; give at least 2"),
        ("name: x\nedges: [1, 2.5]\n", r"d.yaml:2:12: edges.1 is 2.5, not a whole number"),
        ("name: x\nedges: [1, -2]\n", r"d.yaml:2:12: edges.1 is -2; give a value above 0"),
        ("name: x\nkind: meen\n", r"d.yaml:2:7: kind is the text 'meen'; did you mean 'mean'"),
    ],
)
def test_schema_violations_say_where_what_and_what_to_do(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        check_schema(read_document(written(tmp_path, text)), SCHEMA)
