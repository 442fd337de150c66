#!/usr/bin/env python3
"""A sample of an SDK that works offline, only while its grant is valid.

    offline_sdk.py renew GATE FOLDER PACKAGE DEVICE LICENCE_KEY     asks the gate and keeps the grant
    offline_sdk.py segment FOLDER PACKAGE DEVICE [NOW]              works, without a network, or refuses

In a real SDK the keys of the set are compiled in beside those that are fetched, and `segment` is the work.
"""
import http.client
import json
import os
import pathlib
import sys
import tempfile
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
            jwks = verify.text_of(answer.read())
        wanted = {"package": self.package, "device": self.device, "sdk": VERSION}
        request = urllib.request.Request(
            f"{gate}/v1/licences/authorize",
            data=json.dumps(wanted).encode(),
            headers={"X-Api-Key": licence_key, "Content-Type": "application/json"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            grant = json.load(answer)["grant"]
        # Verified before it takes the place of one that holds. Whoever answers may be no gate.
        self._verified(grant, jwks)
        self._keep({"grant": grant, "jwks": jwks})

    def is_due(self, now=None):
        """Whether less than half of the grant's time is left, so that it should be renewed."""
        claims = self._claims(now)
        now = time.time() if now is None else now
        return now >= (claims["iat"] + claims["exp"]) / 2

    def segment(self, picture, now=None):
        """The work of the SDK."""
        self._claims(now)
        return picture[::-1]

    def _keep(self, kept):
        """In one file, which is whole at any instant: a grant and the keys of another set do not fit."""
        with tempfile.NamedTemporaryFile("w", encoding="ascii", dir=self.folder, delete=False) as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, self.folder / "grant")

    def _claims(self, now=None):
        try:
            kept = json.loads(verify.text_of((self.folder / "grant").read_bytes()))
            grant, jwks = kept["grant"], kept["jwks"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise verify.Refused("what was kept cannot be read") from error
        return self._verified(grant, jwks, now)

    def _verified(self, grant, jwks, now=None):
        return verify.verify(grant, verify.keys_of(jwks), self.package, self.device, ISSUER, now)


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
        try:
            why = json.load(error)["detail"]
        except (ValueError, KeyError, TypeError):
            why = f"status {error.code}"
        print(f"refused by the gate: {why}")
        sys.exit(1)
    except (ValueError, KeyError, TypeError) as error:
        print(f"refused: what answered is no gate: {error!r}")
        sys.exit(1)
    except (verify.Refused, http.client.HTTPException, OSError) as why:
        print(f"refused: {why}")
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
