# test_agent.py
# What the agent promises: exact quotes, honest readiness, clear refusals.
# Read ../api.py and conftest.py before it.
import json
from decimal import Decimal

import pytest

import pricing

GOLDEN = {"product_id": "ISOPANEL_EPS_50mm", "length_m": 6, "width_m": 10, "discount_percent": 5}


def test_the_golden_quote_is_exact_to_the_cent(client):
    answer = client.post("/quotes", json=GOLDEN)
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("quotation_id").startswith("QT-")
    assert body == {
        "product_id": "ISOPANEL_EPS_50mm",
        "currency": "USD",
        "panels_needed": 9,
        "area_m2": 61.56,
        "unit_price": 41.88,
        "subtotal": 2578.13,
        "discount": 128.91,
        "tax": 538.83,
        "total_usd": 2988.05,
    }
    assert '"total_usd":2988.05' in answer.text


def test_a_width_of_whole_panels_needs_no_extra_panel(client):
    assert client.post("/quotes", json=GOLDEN | {"width_m": 11.4}).json()["panels_needed"] == 10
    assert client.post("/quotes", json=GOLDEN | {"width_m": 11.41}).json()["panels_needed"] == 11


def test_an_unknown_product_is_400(client):
    answer = client.post("/quotes", json=GOLDEN | {"product_id": "GOLD_1mm"})
    assert answer.status_code == 400
    assert "GOLD_1mm" in answer.json()["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"length_m": 60}, {"length_m": 14.01}, {"length_m": 0}, {"length_m": -1}, {"length_m": "long"},
        {"length_m": "NaN"}, {"length_m": None}, {"width_m": 1001}, {"width_m": 0}, {"discount_percent": 31},
        {"discount_percent": -1}, {"discount": 5}, {"product_id": ""},
    ],
    ids=str,
)
def test_invalid_input_is_422(client, change):
    assert client.post("/quotes", json=GOLDEN | change).status_code == 422


def test_a_body_that_is_not_json_is_422(client):
    assert client.post("/quotes", content=b"{", headers={"content-type": "application/json"}).status_code == 422


def test_products_lists_the_price_list(client, good_prices):
    body = client.get("/products").json()
    assert [product["id"] for product in body["products"]] == [product["id"] for product in good_prices["products"]]
    assert body["currency"] == "USD"


def test_the_root_says_what_this_is(client):
    assert client.get("/").json()["service"] == "panelin-agent"


def test_health_is_200_whatever_the_price_list_is(client, price_path):
    price_path.unlink()
    assert client.get("/health").status_code == 200


def test_readiness_follows_the_file_both_ways(client, price_path, good_prices):
    assert client.get("/ready").status_code == 200
    price_path.unlink()
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert "prices.json: No such file" in answer.json()["reason"]
    assert client.post("/quotes", json=GOLDEN).status_code == 503
    price_path.write_text(json.dumps(good_prices))
    assert client.get("/ready").json()["status"] == "ready"
    good_prices["products"][0]["price_per_m2"] = "50.00"
    price_path.write_text(json.dumps(good_prices, indent=1))
    assert client.post("/quotes", json=GOLDEN).json()["unit_price"] == 50.0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"currency": None}, "currency is None"),
        ({"tax_percent": "much"}, "tax_percent is 'much', not a number"),
        ({"tax_percent": "NaN"}, "not between"),
        ({"tax_percent": True}, "not a number"),
        ({"products": []}, "products is empty"),
        ({"products": [3]}, "product 1 is not an object"),
        ({"products": [{"id": "A"}]}, "product 1 has no name"),
        ({"products": [{"id": "A", "name": "a", "price_per_m2": "-1", "effective_width_m": "1"}]}, "price_per_m2"),
    ],
    ids=str,
)
def test_a_price_list_that_does_not_validate_is_not_ready(client, price_path, good_prices, change, reason):
    price_path.write_text(json.dumps(good_prices | change))
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert reason in answer.json()["reason"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"currency": "USD"'])
def test_a_price_list_that_does_not_parse_is_not_ready_however_often_asked(client, price_path, content):
    price_path.write_bytes(content)
    assert [client.get("/ready").status_code for _ in range(3)] == [503] * 3


def test_a_product_listed_twice_is_refused(good_prices):
    good_prices["products"].append(good_prices["products"][0])
    with pytest.raises(pricing.PriceListError, match="appears twice"):
        pricing.parse(json.dumps(good_prices))


def test_json_floats_are_read_as_decimals():
    text = ('{"currency":"USD","tax_percent":22,"products":[{"id":"A","name":"a","effective_width_m":1.1,'
            '"price_per_m2":0.10,"max_length_m":5}]}')
    assert pricing.parse(text).products["A"].effective_width_m == Decimal("1.1")


def test_with_a_key_set_only_its_holder_gets_quotes(client, monkeypatch):
    monkeypatch.setenv("PANELIN_API_KEY", "canary-äöü")
    assert client.post("/quotes", json=GOLDEN).status_code == 401
    assert client.post("/quotes", json=GOLDEN, headers={"X-API-Key": "wrong"}).status_code == 401
    monkeypatch.setenv("PANELIN_API_KEY", "canary")
    assert client.post("/quotes", json=GOLDEN, headers={"X-API-Key": "canary"}).status_code == 200
    assert client.get("/ready").status_code == 200


def test_the_slow_endpoint_answers_after_its_time(client):
    assert client.get("/slow?seconds=0").json()["slept"] == 0
    assert client.get("/slow?seconds=601").status_code == 422


def test_the_stream_sends_numbered_events(client):
    answer = client.get("/stream?count=3&seconds=0")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text == "id: 1\ndata: 1\n\nid: 2\ndata: 2\n\nid: 3\ndata: 3\n\n"


def test_the_websocket_echoes_text_and_bytes(client):
    with client.websocket_connect("/ws") as socket:
        socket.send_text("hola")
        assert socket.receive_text() == "hola"
        socket.send_bytes(b"\x00\xff")
        assert socket.receive_bytes() == b"\x00\xff"


def test_the_endpoints_for_tests_are_absent_without_the_flag():
    import os
    import subprocess
    import sys

    from conftest import AGENT

    code = "import api; print(sorted(api.app.openapi()['paths']))"
    environment = {name: value for name, value in os.environ.items() if name != "AGENT_TESTING"}
    shown = subprocess.run([sys.executable, "-c", code], cwd=AGENT, env=environment, capture_output=True, text=True,
                           timeout=60, check=True).stdout
    assert shown.strip() == "['/', '/health', '/products', '/quotes', '/ready']"
