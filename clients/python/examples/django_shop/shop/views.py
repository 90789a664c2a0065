"""Landing page, product, checkout, thank-you page."""

from __future__ import annotations

import secrets

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.middleware.csrf import get_token
from django.views.decorators.http import require_POST

from postbackd_client import Client
from postbackd_client.capture.django import click_id

PRICE, CURRENCY = "49.90", "EUR"

client = Client(settings.POSTBACK_URL, spool=settings.SPOOL)


def landing(_request: HttpRequest) -> HttpResponse:
    """Wherever a visitor lands first, the id is kept: no view has to do anything for it."""
    return HttpResponse('<h1>Shoes</h1><p><a href="/product">Have a look</a></p>')


def product(request: HttpRequest) -> HttpResponse:
    token = f'<input type="hidden" name="csrfmiddlewaretoken" value="{get_token(request)}">'
    button = f"<button>{PRICE} {CURRENCY}</button>"
    return HttpResponse(
        f'<h1>The blue ones</h1><form method="post" action="/checkout">{token}{button}</form>'
    )


@require_POST
def checkout(request: HttpRequest) -> HttpResponse:
    order = f"A-{secrets.token_hex(4)}"  # a shop of yours stores the order here
    found = click_id(request)
    if found:
        client.conversion(found, type="sale", value=PRICE, currency=CURRENCY, transaction_id=order)
    return HttpResponseRedirect(f"/thanks/{order}")


def thanks(_request: HttpRequest, order: str) -> HttpResponse:
    return HttpResponse(f"<h1>Thank you</h1><p>Your order is {order}.</p>")
