"""A shop of four pages in FastAPI: it keeps the click id of its visitors and reports what they buy.

Run it beside `make run`, with the postback URL that `make run` prints (up to its question mark):

    pip install fastapi uvicorn postbackd-client
    POSTBACK_URL=http://127.0.0.1:8080/p/KEY uvicorn fastapi_shop:app --port 5000

Then open http://127.0.0.1:5000/?click_id=ID with the id of a click, and buy the shoes.  README.md beside this shop
says how the tracker sends its visitors here.
"""

from __future__ import annotations

import os
import secrets
from html import escape
from pathlib import Path
from typing import Annotated, Optional

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

from postbackd_client import Client
from postbackd_client.capture import Capture
from postbackd_client.capture.starlette import CaptureMiddleware, click_id

PRICE, CURRENCY = "49.90", "EUR"

# A shop of yours has one secret that stays: with a new one at each start every cookie is forgotten.
SECRET = os.environ.get("SHOP_SECRET") or secrets.token_hex(32)

client = Client(os.environ["POSTBACK_URL"], spool=Path(os.environ.get("SPOOL", "shop-spool")))
app = FastAPI()
# secure=False because this example is tried out over plain http.  A shop of yours leaves it out.
app.add_middleware(CaptureMiddleware, capture=Capture(SECRET, secure=False))

ClickId = Annotated[Optional[str], Depends(click_id)]


@app.get("/", response_class=HTMLResponse)
def landing() -> str:
    """Wherever a visitor lands first, the id is kept: no page has to do anything for it."""
    return '<h1>Shoes</h1><p><a href="/product">Have a look</a></p>'


@app.get("/product", response_class=HTMLResponse)
def product() -> str:
    return f'<h1>The blue ones</h1><form method="post" action="/checkout"><button>{PRICE} {CURRENCY}</button></form>'


@app.post("/checkout")
def checkout(found: ClickId) -> RedirectResponse:
    order = f"A-{secrets.token_hex(4)}"  # a shop of yours stores the order here
    if found:
        client.conversion(found, type="sale", value=PRICE, currency=CURRENCY, transaction_id=order)
    return RedirectResponse(f"/thanks/{order}", status_code=303)


@app.get("/thanks/{order}", response_class=HTMLResponse)
def thanks(order: str) -> str:
    return f"<h1>Thank you</h1><p>Your order is {escape(order)}.</p>"
