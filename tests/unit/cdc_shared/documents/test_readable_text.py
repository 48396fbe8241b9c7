"""What a `text` column shows of odd values."""

import pytest

from cdc_shared.documents.bson_values import repeats_a_name
from cdc_shared.documents.extended_json import parse_document
from cdc_shared.documents.readable_text import readable_text

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "value",
    [
        '{"b":1,"b":2}',
        '[[{"a":{"b":1,"b":2}}]]',
        '{"$code":"f","$scope":{"b":1,"b":2}}',
        '{"$code":"f","$scope":{"a":{"b":1,"b":2}}}',
    ],
)
def test_both_members_of_one_name_are_shown_wherever_they_stand(value: str) -> None:
    document = parse_document(f'{{"v":{value},"w":{{"$code":"f","$scope":{{"b":1}}}}}}')
    assert isinstance(document, dict)
    assert repeats_a_name(document["v"])
    assert not repeats_a_name(document["w"])
    shown = readable_text(document["v"])
    assert shown.replace('{"$numberInt":"1"}', "1").replace('{"$numberInt":"2"}', "2") == value
