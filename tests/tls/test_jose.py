"""Signatures and names of keys, against the vectors of the specifications."""

from __future__ import annotations

import base64
import hashlib
import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from postbackd.tls.jose import AccountKey, canonical, encode
from tests.tls.scripted import check_signature, decode

# RFC 7515 appendix A.3: the key of the ES256 example, and its signature.
X = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
Y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
D = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
SIGNED = (
    b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxl"
    b"LmNvbS9pc19yb290Ijp0cnVlfQ"
)
SIGNATURE = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"


def key_of_the_example() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(decode(D), "big"), ec.SECP256R1())


def verify(signature: bytes) -> None:
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    key_of_the_example().public_key().verify(der, SIGNED, ec.ECDSA(hashes.SHA256()))


def test_a_key_is_written_as_the_specification_writes_it() -> None:
    assert AccountKey(key_of_the_example()).jwk == {"kty": "EC", "crv": "P-256", "x": X, "y": Y}


def test_the_signature_of_the_specification_verifies_in_the_form_in_which_ours_are_made() -> None:
    verify(decode(SIGNATURE))
    ours = AccountKey(key_of_the_example()).sign_bytes(SIGNED)
    assert len(ours) == 64
    verify(ours)


def test_the_thumbprint_is_that_of_the_names_in_their_order_without_spaces() -> None:
    """RFC 7638 section 3.1 gives the form by an RSA key; for our kind it is these four members."""
    text = f'{{"crv":"P-256","kty":"EC","x":"{X}","y":"{Y}"}}'
    assert canonical(AccountKey(key_of_the_example()).jwk) == text.encode()
    rsa = {
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJE"
        "CPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2Q"
        "vzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6"
        "WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
        "kty": "RSA",
    }
    assert encode(hashlib.sha256(canonical(rsa)).digest()) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_a_request_names_the_key_or_the_account_and_is_signed() -> None:
    key = AccountKey.make()
    first = json.loads(key.sign("https://a.example/new", "n1", {"a": 1}, None))
    later = json.loads(key.sign("https://a.example/order", "n2", None, "https://a.example/who/1"))
    check_signature(key.jwk, first)
    check_signature(key.jwk, later)
    assert json.loads(decode(first["protected"])) == {
        "alg": "ES256", "jwk": key.jwk, "nonce": "n1", "url": "https://a.example/new",
    }  # fmt: skip
    assert json.loads(decode(later["protected"]))["kid"] == "https://a.example/who/1"
    assert later["payload"] == ""


def test_a_key_survives_being_written_and_read() -> None:
    key = AccountKey.make()
    assert AccountKey.read(key.write()).thumbprint == key.thumbprint
    assert key.authorize("token") == f"token.{key.thumbprint}"


def test_base64_has_no_padding_and_no_signs_that_urls_use() -> None:
    data = bytes(range(256))
    assert encode(data) == base64.b64encode(data).decode().replace("+", "-").replace("/", "_").rstrip("=")
