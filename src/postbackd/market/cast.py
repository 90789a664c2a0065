"""Who takes part: traffic sources, networks, offers with their landing pages, campaigns, devices.

Traffic sources are real ones, with the macros of their presets; every host is under ``.example``, so that nothing of
this can ever reach anybody.  Networks, whose faults are planted, are invented; each runs on a platform that is real.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Device(Struct, frozen=True):
    """What a visitor looks with."""

    name: str
    browser: str
    weight: float
    blocks: float
    """Share of the pixels that never load."""
    converts: float
    """How well, beside the average."""


class SourceRole(Struct, frozen=True, kw_only=True):
    """A traffic source."""

    name: str
    preset: str | None
    target_url: str
    """Where it takes conversions, with our macros."""
    places: int
    """How many placements it sells."""
    programs: float
    """Share of its clicks that programs make: they say so, or fetch ahead."""
    fresh_s: int = 0
    refuses: float = 0.004
    """Share of our messages that it answers with an error that is final."""
    stumbles: float = 0.01
    """Share that fails for the moment."""


class NetworkRole(Struct, frozen=True, kw_only=True):
    """An affiliate network."""

    name: str
    preset: str
    currency: str = "USD"
    dedup: str = "ignore"
    macro: str
    """Its macro for the click id: what arrives when it is not filled."""
    reviews: bool = False
    """Conversions arrive as pending and are decided days later."""
    reverses: float = 0.0
    """Share of the approved conversions that are taken back."""
    names_transactions: bool = True
    says_time: bool = False
    pixel: bool = False
    lag_s: tuple[float, float] = (3, 45)
    """From the sale to the postback, least and most."""
    repeats: float = 0.02
    """Share of the postbacks that it sends again though they were answered."""
    posts: bool = False
    """Whether it sends forms by POST."""
    habit: str = "singular"
    """How it tries again (``habits``)."""


class OfferRole(Struct, frozen=True, kw_only=True):
    """An offer."""

    name: str
    network: str
    url: str
    type: str
    value_micros: int
    currency: str
    spread: float = 0.0
    """How much values differ; 0: a fixed payout."""
    rate: float
    """Conversions a visit."""
    after_min: float
    """Half of the conversions come sooner."""
    window_days: int = 30

    @property
    def host(self) -> str:
        """The landing page's."""
        return self.url.split("/")[2]


class CampaignRole(Struct, frozen=True, kw_only=True):
    """A campaign."""

    name: str
    slug: str
    source: str
    offers: Mapping[str, int]
    """Offer -> weight."""
    countries: Mapping[str, float]
    share: float
    """Of all visits, beside the others."""
    cost_micros: int
    """Of a visit, on average."""
    offset_h: int = 0
    """Of its visitors' clocks from UTC."""
    from_day: int = 0
    """The day of the month on which it started."""


DEVICES = (
    Device("android", "chrome", 0.46, 0.06, 0.9),
    Device("ios", "safari", 0.24, 0.18, 1.2),
    Device("desktop", "chrome", 0.20, 0.22, 1.1),
    Device("desktop", "firefox", 0.05, 0.55, 1.0),
    Device("tablet", "safari", 0.05, 0.15, 1.0),
)

SOURCES = (
    SourceRole(
        name="PropellerAds", preset="propellerads", places=40, programs=0.03,
        target_url="https://propellerads.example/conversion?visitor_id={source_click_id}&payout={value}&goal={goal}",
    ),
    SourceRole(
        name="Taboola", preset="taboola", places=25, programs=0.008,
        target_url="https://taboola.example/actions?click-id={source_click_id}&revenue={value}&currency={currency}",
    ),
    SourceRole(
        name="MGID", preset="mgid", places=30, programs=0.012,
        target_url="https://mgid.example/postback?c={source_click_id}&e={goal}&r={value}",
    ),
    SourceRole(
        name="TikTok Ads", preset="tiktok", places=6, programs=0.006, fresh_s=9 * 86_400,
        target_url="https://tiktok.example/track?callback={source_click_id}&value={value}&currency={currency}",
    ),
    SourceRole(
        name="PopAds", preset="popads", places=60, programs=0.05, refuses=0.02,
        target_url="https://popads.example/conversion?id={source_click_id}&value={value}",
    ),
    SourceRole(
        name="Newsletter", preset=None, places=5, programs=0.02,
        target_url="https://mail.example/hooks/conversion?visit={source_click_id}&value={value}&type={goal}",
    ),
)  # fmt: skip

NETWORKS = (
    NetworkRole(
        name="Northwind Media",
        preset="everflow",
        habit="everflow",
        macro="{sub1}",
        pixel=True,
        lag_s=(3, 30),
        reverses=0.03,
    ),
    NetworkRole(
        name="Bluepeak", preset="tune", habit="appsflyer", macro="{aff_sub}", pixel=True, lag_s=(3, 20)
    ),
    NetworkRole(
        name="Cobalt Leads",
        preset="affise",
        posts=True,
        habit="affise",
        currency="EUR",
        macro="{sub1}",
        reviews=True,
        says_time=True,
    ),
    NetworkRole(name="Fjord Offers", preset="cake", currency="EUR", macro="#s2#", lag_s=(5, 90)),
    NetworkRole(
        name="Harbor CPA", preset="trackier", habit="branch", currency="GBP", macro="{p1}", reverses=0.05
    ),
    NetworkRole(name="Juniper Games", preset="clickdealer", habit="appmetrica", macro="#s2#", lag_s=(3, 60)),
    NetworkRole(
        name="Kestrel Pay", preset="adcombo", habit="involve", currency="GBP", macro="{subacc4}", reviews=True
    ),
    NetworkRole(
        name="Marlin Apps",
        preset="maxbounty",
        posts=True,
        habit="digistore",
        macro="#S2#",
        dedup="hold",
        names_transactions=False,
        repeats=0.04,
    ),
)

OFFERS = (
    OfferRole(
        name="FitPlan trial", network="Northwind Media", url="https://go.brightpath.example/fit?sub1={click_id}",
        type="sale", value_micros=6_400_000, currency="USD", spread=0.25, rate=0.045, after_min=26,
    ),
    OfferRole(
        name="SleepWell box", network="Northwind Media", url="https://sleepwell.example/box?sub1={click_id}",
        type="sale", value_micros=9_500_000, currency="USD", spread=0.3, rate=0.035, after_min=34,
    ),
    OfferRole(
        name="VPN yearly", network="Bluepeak", url="https://tunnelfox.example/plans?aff_sub={click_id}",
        type="sale", value_micros=3_200_000, currency="USD", rate=0.05, after_min=14,
    ),
    OfferRole(
        name="Solar quote", network="Cobalt Leads", url="https://sonnenrechner.example/start?sub1={click_id}",
        type="lead", value_micros=4_500_000, currency="EUR", rate=0.09, after_min=7,
    ),
    OfferRole(
        name="Car insurance", network="Cobalt Leads", url="https://vergleich.example/auto?sub1={click_id}",
        type="lead", value_micros=3_000_000, currency="EUR", rate=0.11, after_min=9, window_days=7,
    ),
    OfferRole(
        name="Nordic dating", network="Fjord Offers", url="https://hygge.example/join?s2={click_id}",
        type="signup", value_micros=1_600_000, currency="EUR", rate=0.10, after_min=4,
    ),
    OfferRole(
        name="Broadband switch", network="Harbor CPA", url="https://switchwise.example/?p1={click_id}",
        type="sale", value_micros=8_000_000, currency="GBP", spread=0.2, rate=0.04, after_min=40,
    ),
    OfferRole(
        name="Castle Siege", network="Juniper Games", url="https://castlesiege.example/play?s2={click_id}",
        type="install", value_micros=750_000, currency="USD", rate=0.12, after_min=3,
    ),
    OfferRole(
        name="Travel card", network="Kestrel Pay", url="https://roamcard.example/apply?subacc4={click_id}",
        type="deposit", value_micros=4_800_000, currency="GBP", rate=0.07, after_min=55,
    ),
    OfferRole(
        name="Photo cleaner", network="Marlin Apps", url="https://tidyphotos.example/get?S2={click_id}",
        type="install", value_micros=60_000_000, currency="JPY", rate=0.11, after_min=2,
    ),
)  # fmt: skip

CAMPAIGNS = (
    CampaignRole(
        name="Fit US push", slug="fit-us", source="PropellerAds", offers={"FitPlan trial": 3, "SleepWell box": 1},
        countries={"US": 0.8, "CA": 0.2}, share=16, cost_micros=190_000, offset_h=-6,
    ),
    CampaignRole(
        name="Sleep US native", slug="sleep-us", source="Taboola", offers={"SleepWell box": 1},
        countries={"US": 0.9, "CA": 0.1}, share=9, cost_micros=240_000, offset_h=-6,
    ),
    CampaignRole(
        name="VPN worldwide", slug="vpn-ww", source="PopAds", offers={"VPN yearly": 1},
        countries={"US": 0.3, "GB": 0.2, "DE": 0.2, "IN": 0.2, "BR": 0.1}, share=18, cost_micros=90_000,
    ),
    CampaignRole(
        name="VPN creators", slug="vpn-creators", source="TikTok Ads", offers={"VPN yearly": 1},
        countries={"US": 0.5, "GB": 0.3, "AU": 0.2}, share=7, cost_micros=130_000, offset_h=-5, from_day=8,
    ),
    CampaignRole(
        name="Solar DACH", slug="solar-dach", source="MGID", offers={"Solar quote": 1},
        countries={"DE": 0.7, "AT": 0.2, "CH": 0.1}, share=9, cost_micros=270_000, offset_h=1,
    ),
    CampaignRole(
        name="Insurance DE", slug="auto-de", source="Taboola", offers={"Car insurance": 1},
        countries={"DE": 1.0}, share=8, cost_micros=240_000, offset_h=1,
    ),
    CampaignRole(
        name="Dating Nordics", slug="dating-nordics", source="PropellerAds", offers={"Nordic dating": 1},
        countries={"SE": 0.4, "NO": 0.2, "DK": 0.2, "FI": 0.2}, share=10, cost_micros=120_000, offset_h=1,
    ),
    CampaignRole(
        name="Broadband UK", slug="broadband-uk", source="MGID", offers={"Broadband switch": 1},
        countries={"GB": 1.0}, share=7, cost_micros=310_000,
    ),
    CampaignRole(
        name="Castle Siege pops", slug="castle-pops", source="PopAds", offers={"Castle Siege": 1},
        countries={"BR": 0.4, "MX": 0.3, "AR": 0.3}, share=9, cost_micros=60_000, offset_h=-3,
    ),
    CampaignRole(
        name="Travel card UK", slug="card-uk", source="TikTok Ads", offers={"Travel card": 1},
        countries={"GB": 0.8, "IE": 0.2}, share=8, cost_micros=250_000,
    ),
    CampaignRole(
        name="Photo cleaner JP", slug="photo-jp", source="MGID", offers={"Photo cleaner": 1},
        countries={"JP": 1.0}, share=6, cost_micros=30_000, offset_h=9,
    ),
    CampaignRole(
        name="Readers' picks", slug="readers", source="Newsletter", offers={"SleepWell box": 2, "Broadband switch": 1},
        countries={"US": 0.5, "GB": 0.5}, share=10, cost_micros=0,
    ),
)  # fmt: skip
