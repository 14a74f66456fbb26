"""Files for the fuzz of readers: random bytes, random pieces of files, tables and JSON lines that are nearly valid."""

import csv
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile import ANY_TEXT
from hypothesis import strategies as st

MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
PIECES = st.sampled_from(
    [
        *(
            b"text,label\n",
            b"text\tlabel\r\n",
            b"label;text;id\n",
            b"text\n",
            b"good,1\n",
            b"bad\t0\n",
            b'"a ""b""",1\n',
        ),
        *(b'"', b'""', b",", b"\t", b";", b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"NA", b"null", b"nan", b"1.0", b"-1"),
        *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"caf\xe9", b"\xf0\x9f\x91\xa9", b"\xe2\x80\xa8", b"\x1a"),
        *(
            b'{"text": "a", "label": 1}\n',
            b'{"text": "\\ud800"}\n',
            b"{",
            b"}",
            b"[",
            b"\\",
            b'{"a":1,"a":2}\n',
            b"NaN",
        ),
        *(b"PAR1", b"ARROW1", b"\x1f\x8b", b"1e999", b"1e39"),
    ]
)
CELLS = st.one_of(
    ANY_TEXT,
    st.text('ab",;\t\n\r', max_size=8),
    st.sampled_from(["0", "1", "1.0", "2", "", "nan", "-0", "1e39", "0.3", "0.30000000000000004"]),
)


@dataclass(frozen=True)
class File:
    """A file to read: its name, its bytes, and how it is asked for."""

    name: str
    content: bytes
    options: dict[str, Any]

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        path.write_bytes(self.content)
        return path

    def lines(self) -> list[str]:
        """The physical lines, found by other means than the reader's."""
        plain = gzip.decompress(self.content) if self.content.startswith(b"\x1f\x8b") else self.content
        charset = self.options.get("charset", "utf-8")
        if charset == "utf-8":
            charset = next((name for mark, name in MARKS.items() if plain.startswith(mark)), "utf-8-sig")
        text = plain.decode(charset, "surrogatepass" if charset.startswith("utf") else "strict")
        end = "\n" if "\n" in text or "\r" not in text else "\r"
        return [f"{line}{end}" for line in text.removesuffix(end).split(end)]


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Rows of cells, some of them ragged, some quoted well and some not."""
    delimiter, end = draw(st.sampled_from(",\t;")), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    header = draw(st.sampled_from([("text", "label"), ("id", "text", "label"), ("label", "text", "text"), ("text",)]))
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=draw(st.sampled_from([0, 1])))
    writer.writerow(header)
    for _ in range(draw(st.integers(0, 8))):
        row = draw(st.lists(CELLS, min_size=len(header), max_size=len(header) + draw(st.integers(0, 1))))
        if draw(st.booleans()):
            writer.writerow(row)
        else:
            text.write(delimiter.join(row) + end)
    return text.getvalue().encode(draw(st.sampled_from(["utf-8"] * 4 + ["utf-16", "utf-8-sig"])), "surrogatepass")


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    """Objects, near objects and other lines."""
    value = st.recursive(
        CELLS | st.none() | st.booleans() | st.integers() | st.floats(), lambda inner: st.lists(inner, max_size=2)
    )
    row = st.dictionaries(st.sampled_from(["text", "label", "id"]) | ANY_TEXT, value, max_size=4)
    lines = draw(st.lists(row.map(json.dumps) | ANY_TEXT, max_size=10))
    first = ['{"text": "a", "label": 1}'] if draw(st.booleans()) else []
    return "\n".join([*first, *lines]).encode("utf-8", "surrogatepass")


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "format": st.sampled_from(["csv", "tsv", "jsonl"]),
        "quoting": st.sampled_from(["csv", "none"]),
        "charset": st.sampled_from(["latin-1", "utf-16", "shift_jis", "idna"]),
        "columns": st.just(["text", "label"]),
    },
)
CONTENT = st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=25).map(b"".join), tables(), json_lines())
FILES = st.builds(File, st.just("b.jsonl"), json_lines(), st.just({})) | st.builds(
    File,
    st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a", "a.txt.gz"]),
    CONTENT | CONTENT.map(lambda content: gzip.compress(content, mtime=0)),
    st.just({}) | OPTIONS,
)
