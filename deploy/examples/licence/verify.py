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


def keys_of(path):
    """The Ed25519 keys of a set, by their id. Others are not looked at."""
    with open(path, encoding="utf-8") as file:
        jwks = json.load(file)["keys"]
    ed25519 = [key for key in jwks if key.get("kty") == "OKP" and key.get("crv") == "Ed25519"]
    return {key["kid"]: jwt.PyJWK(key, algorithm="EdDSA") for key in ed25519}


def verify(grant, keys, package, device, issuer, now=None):
    """The claims of a grant that holds at `now` for this app on this device; else Refused."""
    now = time.time() if now is None else now
    try:
        header = jwt.get_unverified_header(grant)
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
    except jwt.PyJWTError as error:
        raise Refused(str(error)) from error
    if canonical(grant) != grant:
        raise Refused("it is not written as it was signed")
    if not (isinstance(claims["exp"], int) and isinstance(claims["nbf"], int)):
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


def main(words):
    if len(words) == 2 and words[0] == "--jws":
        with open(words[1], encoding="utf-8") as file:
            keys = [jwt.PyJWK(key, algorithm="EdDSA") for key in json.load(file)["keys"]]
        for line in sys.stdin:
            print(jwt.PyJWS().decode(line.strip(), keys[0], algorithms=["EdDSA"]).decode())
        return
    path, package, device, issuer = words[:4]
    now = int(words[4]) if len(words) > 4 else None
    keys = keys_of(path)
    for line in sys.stdin:
        try:
            claims = verify(line.rstrip("\n"), keys, package, device, issuer, now)
            print(f"valid until {claims['exp']}")
        except Refused as why:
            print(f"refused: {why}")


if __name__ == "__main__":
    main(sys.argv[1:])
