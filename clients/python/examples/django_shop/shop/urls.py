"""The pages of the shop."""

from __future__ import annotations

from django.urls import path

from shop import views

urlpatterns = [
    path("", views.landing),
    path("product", views.product),
    path("checkout", views.checkout),
    path("thanks/<slug:order>", views.thanks),
]
