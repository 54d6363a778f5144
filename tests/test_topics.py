"""Topic files: what is wrong in one is said with the file, the key and what is allowed."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline_lib.errors import ConfigError
from pipeline_lib.topics import FIELD_TYPES, load_topic

JSON = """
name = "clicks"
codec = "json"
id_field = "id"
[event_time]
field = "at"
format = "ms"
[fields]
"""


def declare(folder: Path, text: str, name: str = "clicks") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_json_topic(tmp_path: Path) -> None:
    declare(tmp_path, JSON + "\n".join(f'f_{kind} = "{kind}"' for kind in FIELD_TYPES) + '\nid = "string"')
    topic = load_topic(tmp_path, "clicks")
    assert topic.make_codec().schema() == [(f"f_{kind}", arrow) for kind, arrow in FIELD_TYPES.items()] + [
        ("id", pa.string())
    ]
    assert topic.quality.max_quarantined_share == 0.01


def test_the_topics_of_the_repository_load() -> None:
    folder = Path(__file__).parents[1] / "conf" / "topics"
    for path in folder.glob("*.toml"):
        load_topic(folder, path.stem).make_codec()


def test_an_undeclared_topic_is_told_the_declared_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="declared: none"):
        load_topic(tmp_path, "clicks")
    declare(tmp_path, 'name = "b"\ncodec = "raw"', "b")
    declare(tmp_path, 'name = "a"\ncodec = "raw"', "a")
    with pytest.raises(ConfigError, match=r"'clicks' is not declared: no file .*clicks\.toml; declared: a, b$"):
        load_topic(tmp_path, "clicks")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "other"\ncodec = "raw"', "name = 'other': the file's own name is 'clicks'"),
        ('name = "clicks"\ncodec = "avro"', "codec = 'avro': .*'raw', 'json' or 'optimizely-event-batch'"),
        ('name = "clicks"', "codec: missing"),
        ('name = "clicks"\ncodec = "raw"\ncolour = 1', "colour: unknown key; allowed here: name, codec, "),
        (JSON + 'id = "varchar"', "fields.id = 'varchar': .*'bigint'"),
        (
            JSON.replace("format", "fromat") + 'id = "string"',
            "event_time.fromat: unknown key; allowed here: field, format$",
        ),
        (JSON.replace('"ms"', '"us"') + 'id = "string"', "event_time.format = 'us': .*'iso8601'"),
        (JSON, "codec json needs"),
        (JSON.replace('"json"', '"raw"') + 'id = "string"', "codec raw fixes its fields"),
        ('name = "clicks"\ncodec = "raw"\nquality = {max_quarantined_share = 1.5}', "max_quarantined_share = 1.5: .*1"),
        ('name = "cli cks"\ncodec = "raw"', "name = 'cli cks'"),
        ('name = "clicks"\ncodec = ', "Invalid value"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = declare(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(str(path)) + ": .*" + message):
        load_topic(tmp_path, "clicks").make_codec()


def test_an_id_that_is_no_field_is_refused(tmp_path: Path) -> None:
    declare(tmp_path, JSON + 'other = "string"')
    with pytest.raises(ConfigError, match="id field 'id' is not among"):
        load_topic(tmp_path, "clicks").make_codec()


def test_names_that_are_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "topics").mkdir()
    declare(tmp_path, 'name = "clicks"\ncodec = "raw"')
    for name in ("../clicks", ".", "..", ""):
        with pytest.raises(ConfigError):
            load_topic(tmp_path / "topics", name)
