//! A grant: what a device carries to work offline (R19), a JWT that EdDSA signs (RFC 8037).
//!
//! Owns its claims and its times. Must never hold longer than the licence.

use crate::config::LicenceTerms;
use crate::licence::{Licence, LicenceKeys};
use crate::model::{AccountId, Package, Utc};
use serde::Serialize;
use std::time::Duration;

/// A device's clock may be so far behind.
const CLOCK_BEHIND: i64 = 300;

/// Whom a grant is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GrantFor<'g> {
    /// The account that has the licence.
    pub account: &'g AccountId,
    /// The app.
    pub package: &'g Package,
    /// The device, as its app names it.
    pub device: &'g str,
}

/// A signed grant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Grant {
    /// The JWT.
    pub token: String,
    /// The instant at which it ends.
    pub expires: Utc,
    /// From then on the next one is given out.
    pub renew_after: Utc,
}

/// Why no grant is signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Ungranted {
    /// No key signs.
    NoKey,
    /// The second in which the licence ends has begun.
    Ended,
    /// The key cannot be used.
    Failed(String),
}

/// The claims. Times are seconds since the Unix epoch.
#[derive(Serialize)]
struct Claims<'g> {
    iss: &'g str,
    sub: &'g str,
    device: &'g str,
    account: &'g str,
    kind: &'static str,
    iat: i64,
    nbf: i64,
    exp: i64,
    licensed_until: i64,
}

/// The begin of the period that `now` lies in, and its length: half of the time of a grant.
fn period(now: Utc, grant: Duration) -> (i64, i64) {
    let length = i64::try_from(grant.as_secs() / 2)
        .unwrap_or(i64::MAX)
        .max(1);
    let begin = now.seconds().div_euclid(length).saturating_mul(length);
    (begin, length)
}

impl Grant {
    /// The grant of the period that `now` lies in: the same one whoever asks, however often.
    ///
    /// # Errors
    /// Why none is signed.
    pub(crate) fn sign(
        keys: &LicenceKeys,
        terms: &LicenceTerms,
        licence: &Licence,
        of: GrantFor<'_>,
        now: Utc,
    ) -> Result<Self, Ungranted> {
        let (begin, length) = period(now, terms.grant);
        let issued = begin.max(licence.from.seconds());
        let until = licence.until.seconds();
        let whole = i64::try_from(terms.grant.as_secs()).unwrap_or(i64::MAX);
        let expires = begin.saturating_add(whole).min(until);
        // A licence may end within a second, and a grant ends at a whole one.
        let left = expires - now.seconds();
        if left <= 0 {
            return Err(Ungranted::Ended);
        }
        // Near the end of a licence a device may ask more often, for it may be renewed.
        let middle = issued + (expires - issued) / 2;
        let renew_after = match (begin + length).min(middle) {
            due if due <= now.seconds() => now.seconds() + left / 2,
            due => due,
        };
        let claims = Claims {
            iss: &terms.issuer,
            sub: of.package.as_str(),
            device: of.device,
            account: of.account.as_str(),
            kind: licence.kind.as_str(),
            iat: issued,
            nbf: issued - CLOCK_BEHIND,
            exp: expires,
            licensed_until: until,
        };
        let at = |second: i64| Utc(second.saturating_mul(1_000_000));
        let token = keys.sign(&claims).ok_or(Ungranted::NoKey)?;
        Ok(Self {
            token: token.map_err(Ungranted::Failed)?,
            expires: at(expires),
            renew_after: at(renew_after),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::licence::keys::tests::terms;
    use crate::model::LicenceKind;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::Value;

    const DAY: i64 = 86_400;

    fn at(second: i64) -> Utc {
        Utc(second * 1_000_000)
    }

    fn sign(seed: u8, device: &str, span: (i64, i64), now: i64) -> Grant {
        let in_us = |second: i64| second * 1_000_000;
        signed(seed, device, (in_us(span.0), in_us(span.1)), in_us(now)).unwrap()
    }

    fn signed(
        seed: u8,
        device: &str,
        (from, until): (i64, i64),
        now: i64,
    ) -> Result<Grant, Ungranted> {
        let terms = terms(Some([seed; 32]), &[]);
        let keys = LicenceKeys::new(&terms).unwrap();
        let licence = Licence {
            kind: LicenceKind::Formal,
            from: Utc(from),
            until: Utc(until),
        };
        let of = GrantFor {
            account: &AccountId::new("a").unwrap(),
            package: &Package::new("com.example.a").unwrap(),
            device,
        };
        Grant::sign(&keys, &terms, &licence, of, Utc(now))
    }

    fn claims(grant: &Grant) -> Value {
        let part = grant.token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn the_same_package_device_and_period_give_the_same_grant_and_no_other_does() {
        // A period of half a week begins here.
        let (begin, length) = (302_400 * 6_000, 302_400);
        let year = (0, begin + 365 * DAY);
        let first = sign(1, "d1", year, begin);
        assert_eq!(sign(1, "d1", year, begin + length - 1), first);
        assert_ne!(sign(1, "d1", year, begin + length).token, first.token);
        assert_ne!(sign(1, "d2", year, begin).token, first.token);
        assert_ne!(sign(2, "d1", year, begin).token, first.token);
        assert_eq!(first.expires, at(begin + 7 * DAY));
        assert_eq!(first.renew_after, at(begin + length));
    }

    #[test]
    fn a_device_is_told_to_ask_before_its_grant_ends_also_at_the_end_of_the_licence() {
        let (begin, length) = (302_400 * 6_000, 302_400);
        for (from, until) in [
            (0, begin + 365 * DAY),
            (0, begin + length),
            (begin + 100, begin + length + 100),
            (begin + length - 200, begin + 365 * DAY),
        ] {
            for now in [begin + 150, begin + length - 100, begin + length - 2] {
                let now = now.max(from);
                let grant = sign(1, "d", (from, until), now);
                assert!(grant.renew_after < grant.expires, "{from} {until} {now}");
                assert!(grant.renew_after.seconds() >= now, "{from} {until} {now}");
            }
        }
    }

    #[test]
    fn in_the_second_in_which_its_licence_ends_no_grant_is_signed_that_has_ended() {
        let end = 302_400 * 6_000 * 1_000_000 + 700_000;
        let asked = |before_us: i64| signed(1, "d", (0, end), end - before_us);
        assert_eq!(asked(500_000), Err(Ungranted::Ended));
        let last = asked(1_000_000).unwrap();
        assert!(last.expires > Utc(end - 1_000_000) && last.expires <= Utc(end));
    }

    #[test]
    fn a_grant_never_holds_longer_than_its_licence_and_begins_with_it() {
        let now = 302_400 * 6_000 + 1_000;
        let grant = sign(1, "d", (now - 10, now + 20), now);
        let claims = claims(&grant);
        assert_eq!(claims["exp"], now + 20);
        assert_eq!(claims["iat"], now - 10);
        assert_eq!(claims["nbf"], now - 10 - CLOCK_BEHIND);
        assert_eq!(claims["sub"], "com.example.a");
        assert_eq!(claims["kind"], "formal");
    }
}
