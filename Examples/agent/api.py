# api.py
# The agent's web face: health, readiness, products and quotes.
# Read pricing.py before it; testing.py has what exists for tests only.
"""Quoting agent for insulated panels. `uvicorn api:app` serves it."""

import hmac
import os
import secrets
import time
from decimal import Decimal
from pathlib import Path

from fastapi import FastAPI, Header, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from pricing import PriceFile, PriceList, PriceListError, TooLong, UnknownProduct

VERSION = "2.0.0"

prices = PriceFile(Path(os.environ.get("AGENT_PRICES") or Path(__file__).with_name("prices.json")))
app = FastAPI(title="Panelin agent", version=VERSION)


class QuoteRequest(BaseModel):
    # A misspelt field would silently be a quote without discount.
    model_config = ConfigDict(extra="forbid")

    product_id: str = Field(min_length=1, max_length=100)
    length_m: Decimal = Field(gt=0, le=50)
    width_m: Decimal = Field(gt=0, le=1000)
    discount_percent: Decimal = Field(default=Decimal(0), ge=0, le=30)


class QuoteAnswer(BaseModel):
    # Amounts are rounded to the cent already, so a JSON number shows them exactly.
    quotation_id: str
    product_id: str
    currency: str
    panels_needed: int
    area_m2: float
    unit_price: float
    subtotal: float
    discount: float
    tax: float
    total_usd: float


def price_list() -> PriceList:
    """The current prices, or 503: without prices there is nothing to say."""
    try:
        return prices.current()
    except PriceListError as error:
        raise HTTPException(503, str(error), headers={"Retry-After": "5"}) from None


def check_key(given: str | None) -> None:
    """With PANELIN_API_KEY set, quotes need it; compared in constant time, never logged."""
    wanted = os.environ.get("PANELIN_API_KEY")
    if wanted and not hmac.compare_digest((given or "").encode(), wanted.encode()):
        raise HTTPException(401, "X-API-Key is missing or wrong")


# The handlers are coroutines on purpose: a thread pool for a microsecond of arithmetic costs more than it saves.
@app.get("/")
async def about() -> dict[str, object]:
    return {"service": "panelin-agent", "version": VERSION, "revision": os.environ.get("K_REVISION")}


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.get("/ready")
async def ready(response: Response) -> dict[str, object]:
    response.headers["Cache-Control"] = "no-store"
    try:
        products = len(prices.current().products)
    except PriceListError as error:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
        return {"status": "not ready", "reason": str(error)}
    return {"status": "ready", "reason": None, "products": products}


@app.get("/products")
async def products() -> dict[str, object]:
    current = price_list()
    return {
        "currency": current.currency,
        "products": [
            {
                "id": product.id,
                "name": product.name,
                "price_per_m2": float(product.price_per_m2),
                "max_length_m": float(product.max_length_m),
                "in_stock": product.in_stock,
            }
            for product in current.products.values()
        ],
    }


@app.post("/quotes")
async def quotes(request: QuoteRequest, x_api_key: str | None = Header(default=None)) -> QuoteAnswer:
    check_key(x_api_key)
    current = price_list()
    try:
        quote = current.quote(request.product_id, request.length_m, request.width_m, request.discount_percent)
    except UnknownProduct as error:
        raise HTTPException(400, str(error)) from None
    except TooLong as error:
        raise HTTPException(422, str(error)) from None
    return QuoteAnswer(
        quotation_id=f"QT-{time.strftime('%Y%m%d', time.gmtime())}-{secrets.token_hex(4)}",
        product_id=quote.product.id,
        currency=current.currency,
        panels_needed=quote.panels_needed,
        area_m2=float(quote.area_m2),
        unit_price=float(quote.product.price_per_m2),
        subtotal=float(quote.subtotal),
        discount=float(quote.discount),
        tax=float(quote.tax),
        total_usd=float(quote.total),
    )


if os.environ.get("AGENT_TESTING") == "1":
    from testing import router

    app.include_router(router)
