#!/usr/bin/env python3
"""A sample of an SDK that works offline, only while its grant is valid.

    offline_sdk.py renew GATE FOLDER PACKAGE DEVICE LICENCE_KEY     asks the gate and keeps the grant
    offline_sdk.py segment FOLDER PACKAGE DEVICE [NOW]              works, without a network, or refuses

In a real SDK the keys of the set are compiled in beside those that are fetched, and `segment` is the work.
"""
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

import verify

VERSION = "1.0.0"
ISSUER = "tollgate"


class OfflineSdk:
    """Does its work while the grant in `folder` holds for this app on this device."""

    def __init__(self, folder, package, device):
        self.folder = pathlib.Path(folder)
        self.package, self.device = package, device

    def renew(self, gate, licence_key):
        """Asks for a grant. To be called when there is a network and `is_due`; what is kept holds on if it fails."""
        with urllib.request.urlopen(f"{gate}/.well-known/jwks.json", timeout=10) as answer:
            (self.folder / "jwks.json").write_bytes(answer.read())
        wanted = {"package": self.package, "device": self.device, "sdk": VERSION}
        request = urllib.request.Request(
            f"{gate}/v1/licences/authorize",
            data=json.dumps(wanted).encode(),
            headers={"X-Api-Key": licence_key, "Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            grant = json.load(answer)["grant"]
        # Verified before it takes the place of one that holds.
        self._verified(grant)
        (self.folder / "grant").write_text(grant, encoding="ascii")

    def is_due(self, now=None):
        """Whether less than half of the grant's time is left, so that it should be renewed."""
        claims = self._claims(now)
        now = time.time() if now is None else now
        return now >= (claims["iat"] + claims["exp"]) / 2

    def segment(self, picture, now=None):
        """The work of the SDK."""
        self._claims(now)
        return picture[::-1]

    def _claims(self, now=None):
        return self._verified((self.folder / "grant").read_text(encoding="ascii"), now)

    def _verified(self, grant, now=None):
        keys = verify.keys_of(self.folder / "jwks.json")
        return verify.verify(grant, keys, self.package, self.device, ISSUER, now)


def main(words):
    try:
        if words[0] == "renew":
            gate, folder, package, device, licence_key = words[1:]
            OfflineSdk(folder, package, device).renew(gate, licence_key)
            print("renewed")
        else:
            folder, package, device = words[1:4]
            now = int(words[4]) if len(words) > 4 else None
            print(OfflineSdk(folder, package, device).segment("picture", now))
    except urllib.error.HTTPError as error:
        print(f"refused by the gate: {json.load(error)['detail']}")
        sys.exit(1)
    except (verify.Refused, OSError) as why:
        print(f"refused: {why}")
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
