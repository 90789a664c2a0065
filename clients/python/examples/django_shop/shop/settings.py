"""The settings of the shop: what is postbackd's are the two places that say so."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

# A shop of yours has one secret that stays: with a new one at each start every cookie is forgotten.
SECRET_KEY = os.environ.get("SHOP_SECRET") or secrets.token_hex(32)
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"
USE_TZ = True
TIME_ZONE = "UTC"

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "postbackd_client.capture.django.CaptureMiddleware",  # postbackd: takes the click id, keeps it in a cookie
]

# postbackd: what Capture takes.  secure=False because this example is tried out over plain http; a shop of yours needs
# this setting only where it wants something else than the defaults.
POSTBACKD_CAPTURE = {"secure": False}

POSTBACK_URL = os.environ["POSTBACK_URL"]
SPOOL = Path(os.environ.get("SPOOL", "shop-spool"))
