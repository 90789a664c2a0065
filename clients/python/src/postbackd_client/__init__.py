"""Reports conversions to postbackd, or to any other tracker, without losing one and without delaying anybody.

from postbackd_client import Client

client = Client("https://track.example.com/p/KEY", spool="/var/lib/shop/postbacks")
client.conversion(click_id, type="sale", value="12.50", currency="USD", transaction_id="A-1001")
"""

from __future__ import annotations

from postbackd_client.answers import Outcome
from postbackd_client.client import Client
from postbackd_client.endpoint import EndpointError, Tracker
from postbackd_client.payload import Conversion, PayloadError
from postbackd_client.presets import preset
from postbackd_client.schedule import Schedule
from postbackd_client.spool import Limits
from postbackd_client.statistics import Health, Statistics
from postbackd_client.version import VERSION

__version__ = VERSION

__all__ = [
    "Client",
    "Conversion",
    "EndpointError",
    "Health",
    "Limits",
    "Outcome",
    "PayloadError",
    "Schedule",
    "Statistics",
    "Tracker",
    "__version__",
    "preset",
]
