#!/usr/bin/env python3
"""Verifies grants offline, with PyJWT (pip install -r requirements.txt).

    verify.py JWKS PACKAGE DEVICE ISSUER [NOW] < grants        a grant a line; a verdict a line
    verify.py --jws JWKS < signed                              the payload of what any key of the set signed

JWKS is the file that the gate has at /.well-known/jwks.json. NOW is for tests: seconds since 1970.
"""
import json
import sys
import time

import jwt


class Refused(Exception):
    """The grant does not hold."""


def keys_of(text):
    """The Ed25519 keys of a set, by their id. Others are not looked at."""
    keys = {}
    try:
        for key in json.loads(text)["keys"]:
            if key.get("kty") == "OKP" and key.get("crv") == "Ed25519" and isinstance(key.get("kid"), str):
                try:
                    keys[key["kid"]] = jwt.PyJWK(key, algorithm="EdDSA")
                except jwt.PyJWTError:
                    continue
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused("the set of keys cannot be read") from error
    return keys


def verify(grant, keys, package, device, issuer, now=None):
    """The claims of a grant that holds at `now` for this app on this device; else Refused."""
    now = time.time() if now is None else now
    try:
        header = jwt.get_unverified_header(grant)
        if "crit" in header or "b64" in header:
            raise Refused("its header asks for what is not done here")
        key = keys.get(header.get("kid"))
        if key is None:
            raise Refused("no key of this id is known")
        claims = jwt.decode(
            grant,
            key,
            # Never the algorithm that the grant names: `none`, or HS256 with the public key as its secret.
            algorithms=["EdDSA"],
            issuer=issuer,
            # The times are compared below, by the time that is given.
            options={"require": ["iss", "sub", "exp", "nbf"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
        )
        is_canonical = canonical(grant) == grant
    except jwt.PyJWTError as error:
        raise Refused(str(error)) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused(f"it cannot be read: {error}") from error
    if not is_canonical:
        raise Refused("it is not written as it was signed")
    # A truth value is a number, for Python.
    if type(claims["exp"]) is not int or type(claims["nbf"]) is not int:
        raise Refused("its times are no numbers")
    if now >= claims["exp"]:
        raise Refused("it has ended")
    if now < claims["nbf"]:
        raise Refused("it has not begun; is the clock right?")
    if claims["sub"] != package:
        raise Refused("it is for another package")
    if claims.get("device") != device:
        raise Refused("it is for another device")
    return claims


def canonical(grant):
    """As base64url writes it: the last letter of a part has bits that decoders pass over."""
    parts = [jwt.utils.base64url_decode(part.encode()) for part in grant.split(".")]
    return ".".join(jwt.utils.base64url_encode(part).decode() for part in parts)


def text_of(grant):
    """A grant has letters of ASCII alone."""
    try:
        return grant.decode("ascii")
    except UnicodeDecodeError as error:
        raise Refused("it cannot be read: it is no ASCII") from error


def main(words):
    if len(words) == 2 and words[0] == "--jws":
        with open(words[1], encoding="utf-8") as file:
            keys = [jwt.PyJWK(key, algorithm="EdDSA") for key in json.load(file)["keys"]]
        for line in sys.stdin:
            print(jwt.PyJWS().decode(line.strip(), keys[0], algorithms=["EdDSA"]).decode())
        return
    path, package, device, issuer = words[:4]
    now = int(words[4]) if len(words) > 4 else None
    with open(path, encoding="utf-8") as file:
        keys = keys_of(file.read())
    for line in sys.stdin.buffer:
        try:
            claims = verify(text_of(line.removesuffix(b"\n")), keys, package, device, issuer, now)
            print(f"valid until {claims['exp']}")
        except Refused as why:
            print(f"refused: {why}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as why:
        sys.exit(str(why))
