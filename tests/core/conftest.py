"""Settings of Hypothesis: a busy machine must not fail a test that is about results, not about time."""

from hypothesis import HealthCheck, settings

settings.register_profile("core", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("core")
