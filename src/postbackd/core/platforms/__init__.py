"""Platforms that take conversions by an API of their own instead of a postback URL (see ``core.platforms.base``)."""

from __future__ import annotations

from collections.abc import Mapping

from postbackd.core.platforms.base import Platform
from postbackd.core.platforms.google_ads import GoogleAds
from postbackd.core.platforms.google_data_manager import GoogleDataManager
from postbackd.core.platforms.meta import Meta
from postbackd.core.platforms.tiktok import TikTok

PLATFORMS: Mapping[str, Platform] = {
    "meta": Meta(),
    "google_data_manager": GoogleDataManager(),
    "google_ads": GoogleAds(),
    "tiktok": TikTok(),
}
"""Kind of a target -> platform."""
