# pricing.py
# What a quote costs, and whether the price list can be trusted.
# No web in here: read this first, then api.py.
"""Quotes for insulated panels in decimal arithmetic, from a price list on disk."""

import json
import math
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from pathlib import Path

CENT = Decimal("0.01")


class PriceListError(Exception):
    """The price list cannot be used; the message says why."""


class UnknownProduct(Exception):
    """No product of the list has this id."""


class TooLong(Exception):
    """A panel of this length is not made."""


@dataclass(frozen=True)
class Product:
    id: str
    name: str
    effective_width_m: Decimal
    price_per_m2: Decimal
    max_length_m: Decimal
    in_stock: bool


@dataclass(frozen=True)
class Quote:
    product: Product
    panels_needed: int
    area_m2: Decimal
    subtotal: Decimal
    discount: Decimal
    tax: Decimal
    total: Decimal


@dataclass(frozen=True)
class PriceList:
    currency: str
    tax_percent: Decimal
    products: dict[str, Product]

    def quote(self, product_id: str, length_m: Decimal, width_m: Decimal, discount_percent: Decimal) -> Quote:
        """A quote; every amount is rounded half up to the cent before it is used further, as on the paper."""
        product = self.products.get(product_id)
        if product is None:
            raise UnknownProduct(f"unknown product {product_id!r}; GET /products lists them")
        if length_m > product.max_length_m:
            raise TooLong(f"length_m {length_m} is beyond the {product.max_length_m} m that {product_id} is made in")
        panels = math.ceil(width_m / product.effective_width_m)
        area = (panels * product.effective_width_m * length_m).quantize(CENT, ROUND_HALF_UP)
        subtotal = (area * product.price_per_m2).quantize(CENT, ROUND_HALF_UP)
        discount = (subtotal * discount_percent / 100).quantize(CENT, ROUND_HALF_UP)
        net = subtotal - discount
        tax = (net * self.tax_percent / 100).quantize(CENT, ROUND_HALF_UP)
        return Quote(product, panels, area, subtotal, discount, tax, net + tax)


def parse(text: str) -> PriceList:
    """The price list in this JSON text; raises PriceListError."""
    try:
        raw = json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise PriceListError(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise PriceListError("not an object")
    currency = raw.get("currency")
    if not isinstance(currency, str) or len(currency) != 3:
        raise PriceListError(f"currency is {currency!r}, not three letters")
    tax_percent = _number(raw, "tax_percent", "price list", low=Decimal(0), high=Decimal(100))
    entries = raw.get("products")
    if not isinstance(entries, list) or not entries:
        raise PriceListError("products is empty or not a list")
    products: dict[str, Product] = {}
    for position, entry in enumerate(entries, start=1):
        product = _product(entry, f"product {position}")
        if product.id in products:
            raise PriceListError(f"product {product.id!r} appears twice")
        products[product.id] = product
    return PriceList(currency, tax_percent, products)


def _product(entry: object, where: str) -> Product:
    if not isinstance(entry, dict):
        raise PriceListError(f"{where} is not an object")
    for key in ("id", "name"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise PriceListError(f"{where} has no {key}")
    where = f"product {entry['id']!r}"
    in_stock = entry.get("in_stock", True)
    if not isinstance(in_stock, bool):
        raise PriceListError(f"{where}: in_stock is {in_stock!r}, not true or false")
    positive = Decimal("0.01")
    return Product(
        id=entry["id"],
        name=entry["name"],
        effective_width_m=_number(entry, "effective_width_m", where, low=positive, high=Decimal(10)),
        price_per_m2=_number(entry, "price_per_m2", where, low=positive, high=Decimal(100_000)),
        max_length_m=_number(entry, "max_length_m", where, low=positive, high=Decimal(100)),
        in_stock=in_stock,
    )


def _number(entry: dict, key: str, where: str, low: Decimal, high: Decimal) -> Decimal:
    value = entry.get(key)
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
            raise InvalidOperation
        number = Decimal(value)
    except InvalidOperation:
        raise PriceListError(f"{where}: {key} is {value!r}, not a number") from None
    # A comparison with NaN raises; is_finite comes first.
    if not number.is_finite() or not low <= number <= high:
        raise PriceListError(f"{where}: {key} is {value!r}, not between {low} and {high}")
    return number


class PriceFile:
    """The price list of a file, read again when the file changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._list: PriceList | None = None
        self._reason = "not read yet"

    def current(self) -> PriceList:
        """The list as the file has it now; a bad file gives PriceListError, never yesterday's prices."""
        try:
            status = self.path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._list, self._reason = None, "not read"
                self._list = parse(self.path.read_text(encoding="utf-8"))
                self._seen = seen
        except OSError as error:
            self._seen, self._list, self._reason = None, None, f"{error.strerror}"
        except UnicodeDecodeError:
            self._list, self._reason = None, "not UTF-8"
        except PriceListError as error:
            self._seen, self._list, self._reason = seen, None, str(error)
        if self._list is None:
            raise PriceListError(f"cannot use the price list {self.path.name}: {self._reason}")
        return self._list
