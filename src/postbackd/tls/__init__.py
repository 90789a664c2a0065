"""Certificates: how they are obtained from an authority, kept, and shown to whoever connects.

Decisions (when to renew, the next step of an order, how long to pause) are in ``core.certificates`` and
``core.acme_steps``; where documents are kept is the business of ``store.shelf``.
"""
