"""Keeps the click id from the landing page to the checkout.

`Capture` holds the shop's choices; the module of each framework (`wsgi`, `asgi`, `django`, `flask`, `starlette`) has a
`CaptureMiddleware` and a `click_id`.  Nothing here needs a framework: each module imports its own alone.
Nothing here imports the rest of the client either: a shop may capture ids and report its conversions in another way.
"""

from postbackd_client.capture.decisions import AD_CLICK_IDS, NAMES, Capture, Captured, CaptureError
from postbackd_client.capture.landing import append

__all__ = ["AD_CLICK_IDS", "NAMES", "Capture", "CaptureError", "Captured", "append"]
