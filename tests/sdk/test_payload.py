"""Payloads by annotation, and results."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aj_sdk.errors import PayloadError, UsageError
from aj_sdk.payload import decode_payload, encode_payload, encode_result, payload_reader


@dataclass
class Address:
    city: str
    tags: list[str] = field(default_factory=list)


@dataclass
class Order:
    number: int
    address: Address | None = None


class Letter(TypedDict):
    to: str


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Item(pydantic.BaseModel):
    price: int
    parts: list["Item"] = []


@pydantic.dataclasses.dataclass
class Coin:
    cents: int


@dataclass
class Basket:
    items: list[Item]


class Tree(msgspec.Struct):
    children: list["Tree"] = []


class Colour(enum.Enum):
    RED = "red"


class Plain:
    pass


class Broken:
    @property
    def __pydantic_validator__(self) -> None:
        """Look like a model."""

    def model_dump(self, mode: str) -> Any:
        raise KeyError


@pytest.mark.parametrize(
    ("annotation", "data", "value"),
    [
        (dict, b'{"a":1}', {"a": 1}),
        (dict[str, int], b'{"a":1}', {"a": 1}),
        (list, b"[1]", [1]),
        (str, b'"hi"', "hi"),
        (int, b"7", 7),
        (float, b"7", 7.0),
        (bool, b"true", True),
        (Any, b'{"a":[null]}', {"a": [None]}),
        (object, b"7", 7),
        (dict | None, None, None),
        (None, None, None),
        (Literal["a", "b"], b'"b"', "b"),
        (Colour, b'"red"', Colour.RED),
        (Annotated[int, msgspec.Meta(gt=3)], b"4", 4),
        (Order, b'{"number":1,"address":{"city":"Bern","unknown":0}}', Order(1, Address("Bern"))),
        (list[Order], b'[{"number":1}]', [Order(1)]),
        (Letter, b'{"to":"a@example.net"}', {"to": "a@example.net"}),
        (Point, b'{"x":1}', Point(1)),
        (Tree, b'{"children":[{}]}', Tree([Tree()])),
        (Item, b'{"price":"1"}', Item(price=1)),
        (list[Item], b'[{"price":1}]', [Item(price=1)]),
        (Item | None, None, None),
        (Coin, b'{"cents":5}', Coin(5)),
        (Basket, b'{"items":[{"price":1}]}', Basket([Item(price=1)])),
    ],
)
def test_a_payload_is_read_as_its_annotation_says(annotation: Any, data: bytes | None, value: Any) -> None:
    read = payload_reader(annotation)(data)

    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("annotation", "data", "value"),
    [
        (bytes, b"\xff{", b"\xff{"),
        (bytes, None, b""),
        (bytearray, b"\xff", bytearray(b"\xff")),
        (memoryview, b"\xff", memoryview(b"\xff")),
        (bytes | None, None, None),
        (bytes | None, b"", b""),
    ],
)
def test_raw_bytes_are_not_decoded(annotation: Any, data: bytes | None, value: Any) -> None:
    assert payload_reader(annotation)(data) == value


def test_raw_json_text_is_kept_as_it_is() -> None:
    assert bytes(payload_reader(msgspec.Raw)(b'{ "a" : 1 }')) == b'{ "a" : 1 }'


@pytest.mark.parametrize(
    ("annotation", "data", "path"),
    [
        (Order, b'{"number":"x"}', "$.number"),
        (Order, b'{"number":1,"address":{"city":7}}', "$.address.city"),
        (Letter, b'{"to":1}', "$.to"),
        (Point, b'{"x":1.5}', "$.x"),
        (list[Point], b'[{"x":1},{"x":null}]', "$[1].x"),
        (Item, b'{"price":1,"parts":[{"price":"many"}]}', "$.parts[0].price"),
        (Item, b"{}", "$.price"),
        (Basket, b'{"items":[{"price":[]}]}', "$.items[0].price"),
    ],
)
def test_the_failing_field_is_named(annotation: Any, data: bytes, path: str) -> None:
    with pytest.raises(PayloadError, match="payload at ") as caught:
        payload_reader(annotation)(data)

    assert f"payload at {path}: " in str(caught.value)


@pytest.mark.parametrize("annotation", [dict, Order, Item, Point, str])
@pytest.mark.parametrize("data", [None, b"", b"null", b"[", b"\xff", b"[" * 100_000, b'"\\ud800"', b"[1] x"])
def test_what_does_not_fit_is_a_payload_error(annotation: Any, data: bytes | None) -> None:
    with pytest.raises(PayloadError, match=r"^payload"):
        payload_reader(annotation)(data)


@pytest.mark.parametrize("data", [b"[" * 100_000, b"\xff", b'"\xff"', b"nul"])
def test_what_is_not_json_is_a_payload_error_whatever_the_annotation(data: bytes) -> None:
    with pytest.raises(PayloadError, match=r"^payload"):
        payload_reader(object)(data)


def test_a_missing_required_field_is_named_in_the_text() -> None:
    with pytest.raises(PayloadError, match="missing required field `number`"):
        payload_reader(Order)(b"{}")


@pytest.mark.parametrize(
    "annotation",
    [Plain, list[Plain], Plain | None, dict[str, Plain], Iterable[int], Callable[[], int], "text", 3, Point | Order],
)
def test_a_type_that_json_can_not_hold_is_refused_at_once(annotation: Any) -> None:
    with pytest.raises(UsageError, match="a payload can't be read as"):
        payload_reader(annotation)


def test_a_class_with_an_annotation_that_is_not_defined_is_refused() -> None:
    @dataclass
    class Loose:
        part: "NotDefined"  # type: ignore[name-defined]  # noqa: F821 - on purpose

    with pytest.raises(UsageError, match="NotDefined"):
        payload_reader(Loose)


def test_a_model_with_an_annotation_that_is_not_defined_is_refused() -> None:
    class Loose(pydantic.BaseModel):
        part: "NotDefined"  # type: ignore[name-defined]  # noqa: F821 - on purpose

    with pytest.raises(UsageError, match="Loose"):
        payload_reader(Loose)


def test_an_error_of_the_class_itself_is_not_hidden() -> None:
    @dataclass
    class Strict:
        number: int

        def __post_init__(self) -> None:
            raise KeyError(self.number)

    with pytest.raises(KeyError):
        decode_payload(b'{"number":1}', Strict)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, None),
        (b"raw", b"raw"),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"raw"), b"raw"),
        ("text", b'"text"'),
        ({"a": [1, None]}, b'{"a":[1,null]}'),
        (Order(1), b'{"number":1,"address":null}'),
        (Point(1), b'{"x":1,"y":0}'),
        ([Item(price=1)], b'[{"price":1,"parts":[]}]'),
        (Coin(5), b'{"cents":5}'),
        (Colour.RED, b'"red"'),
    ],
)
def test_a_payload_is_json_unless_it_is_bytes(value: Any, encoded: bytes | None) -> None:
    assert encode_payload(value) == encoded


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, b""),
        (b"\xff", b"\xff"),
        (bytearray(b"raw"), b"raw"),
        (memoryview(b"abcd")[::2], b"ac"),
        ("grüße", "grüße".encode()),
        (0, b"0"),
        (False, b"false"),
        ({"a": 1}, b'{"a":1}'),
        (Item(price=1), b'{"price":1,"parts":[]}'),
        (Order(1), b'{"number":1,"address":null}'),
        ((1, 2), b"[1,2]"),
    ],
)
def test_a_result_is_bytes_text_or_json(value: Any, encoded: bytes) -> None:
    assert encode_result(value) == encoded


def _endless() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


@pytest.mark.parametrize("value", [Plain(), {(1, 2): 3}, ["\ud800"], _endless(), Broken(), {"deep": Plain()}])
def test_what_has_no_json_form_is_a_payload_error(value: Any) -> None:
    with pytest.raises(PayloadError, match=f"the payload of type {type(value).__name__} can't be encoded as JSON: "):
        encode_payload(value)
    with pytest.raises(PayloadError, match=f"the result of type {type(value).__name__} can't be encoded as JSON: "):
        encode_result(value)


def test_text_that_is_not_unicode_is_a_payload_error() -> None:
    with pytest.raises(PayloadError, match="can't be encoded as UTF-8"):
        encode_result("\ud800")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_JSON.filter(lambda value: value is not None))
def test_json_survives_the_way_through_a_payload(value: Any) -> None:
    assert payload_reader(Any)(encode_payload(value)) == value


@given(st.binary())
def test_any_bytes_are_read_or_refused_as_a_payload(data: bytes) -> None:
    for annotation in (Any, dict, Order, Item, list[int], str):
        try:
            payload_reader(annotation)(data)
        except PayloadError:
            continue
