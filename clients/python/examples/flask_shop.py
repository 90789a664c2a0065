"""A shop of four pages in Flask: it keeps the click id of its visitors and reports what they buy.

Run it beside `make run`, with the postback URL that `make run` prints (up to its question mark):

    pip install flask postbackd-client
    POSTBACK_URL=http://127.0.0.1:8080/p/KEY flask --app flask_shop run --port 5000

Then open http://127.0.0.1:5000/?click_id=ID with the id of a click, and buy the shoes.  README.md beside this shop
says how the tracker sends its visitors here.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from flask import Flask, redirect, session, url_for
from werkzeug.wrappers import Response

from postbackd_client import Client
from postbackd_client.capture import Capture
from postbackd_client.capture.flask import CaptureMiddleware, click_id

PRICE, CURRENCY = "49.90", "EUR"

app = Flask(__name__)
# A shop of yours has one secret that stays: with a new one at each start every cookie is forgotten.
app.secret_key = os.environ.get("SHOP_SECRET") or secrets.token_hex(32)

client = Client(os.environ["POSTBACK_URL"], spool=Path(os.environ.get("SPOOL", "shop-spool")))
# secure=False because this example is tried out over plain http.  A shop of yours leaves it out.
CaptureMiddleware(app, Capture(app.secret_key, secure=False))


@app.get("/")
def landing() -> str:
    """Wherever a visitor lands first, the id is kept: no page has to do anything for it."""
    return '<h1>Shoes</h1><p><a href="/product">Have a look</a></p>'


@app.get("/product")
def product() -> str:
    return f'<h1>The blue ones</h1><form method="post" action="/checkout"><button>{PRICE} {CURRENCY}</button></form>'


@app.post("/checkout")
def checkout() -> Response:
    order = f"A-{secrets.token_hex(4)}"  # a shop of yours stores the order here
    found = click_id()
    if found:
        client.conversion(found, type="sale", value=PRICE, currency=CURRENCY, transaction_id=order)
    session["order"] = order
    return redirect(url_for("thanks"))


@app.get("/thanks")
def thanks() -> str:
    return f"<h1>Thank you</h1><p>Your order is {session.get('order', 'not placed yet')}.</p>"
