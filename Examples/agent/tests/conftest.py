# conftest.py
# Gives each test the agent's modules and a price list of its own.
# Read ../api.py before it.
import json
import shutil
import sys
from pathlib import Path

import pytest

AGENT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(AGENT))

import api  # noqa: E402
import testing  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402
from pricing import PriceFile  # noqa: E402

if not any(getattr(route, "path", None) == "/ws" for route in api.app.routes):
    api.app.include_router(testing.router)


@pytest.fixture
def price_path(tmp_path, monkeypatch):
    """A copy of the price list that the agent reads for this test only."""
    path = tmp_path / "prices.json"
    shutil.copy(AGENT / "prices.json", path)
    monkeypatch.setattr(api, "prices", PriceFile(path))
    monkeypatch.delenv("PANELIN_API_KEY", raising=False)
    return path


@pytest.fixture
def client(price_path):
    with TestClient(api.app) as client:
        yield client


@pytest.fixture
def good_prices():
    return json.loads((AGENT / "prices.json").read_text())
