//! `POST /v1/licences/authorize`: a grant for a device of an app, or a trial; `GET /v1/licences`:
//! the account's own licences; `GET /.well-known/jwks.json`: the keys that verify grants (R19).
//!
//! Must never keep a device, nor give a trial to who has not the credential of the account. It
//! cannot know whether the app that asks is the package that it names.

use crate::config::LicenceTerms;
use crate::http::h1::{Answer, RequestHead};
use crate::ledger::LicenceDay;
use crate::licence::{Grant, GrantFor, Licence, Ungranted, Unlicensed, licensed};
use crate::model::{LicenceKind, Local, Package, Utc};
use crate::portal::form::Said;
use crate::portal::front::{Portal, Question, Source};
use crate::portal::licence_counts::day;
use crate::portal::licence_desk::{LicenceDesk, refusal};
use crate::portal::parameters::Parameters;
use crate::proxy::policy::{KnownAccount, Policy};
use crate::proxy::{
    Asked, BadQuestion, LicenceClaimant, LicenceRefusal, OwnRequest, Refusal, Relay,
};
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The most bytes of the name of a device, and of the version of an SDK.
const DEVICE_BYTES: usize = 128;
const SDK_BYTES: usize = 32;
/// Grants are told of the last so many days.
const TOLD: Duration = Duration::from_secs(30 * 86_400);

/// What is asked for a device.
struct Wanted {
    package: Package,
    device: String,
    applies: bool,
}

impl Portal {
    /// The set of public keys. Anybody may have it.
    pub(super) fn jwks(&self) -> Result<Said, Refusal> {
        let policy = self.proxy.shared().policy.load_full();
        let terms = sold(&policy)?;
        let keys = self.desk.keys(&policy, terms)?;
        Ok(Said::json(keys.jwks()))
    }

    /// Answers who asks for a grant; counts who gets none.
    pub(super) async fn authorize(
        &self,
        request: &mut OwnRequest<'_>,
        head: &RequestHead,
        asked: &Asked,
    ) -> Result<Answer<Relay>, Refusal> {
        let said = Box::pin(self.granted(request, head, asked)).await;
        let said = said.inspect_err(|refusal| {
            let metrics = &self.proxy.shared().metrics;
            metrics.licence_refused(refusal.reason());
        })?;
        Ok(said.answer(asked, &request.context.id_text()))
    }

    async fn granted(
        &self,
        request: &mut OwnRequest<'_>,
        head: &RequestHead,
        asked: &Asked,
    ) -> Result<Said, Refusal> {
        let shared = self.proxy.shared();
        // Before the credential, which is public.
        if !self.peers.ask(request.context.peer(), &shared.clock) {
            return Err(LicenceRefusal::TooMany.into());
        }
        let claimant = request.prove_licence(asked).await?;
        let body = request.body().await?;
        let parameters = Parameters::read(asked, head.target.query(), &body);
        let wanted = parameters.and_then(|parameters| wanted(&parameters));
        let wanted = wanted.map_err(Refusal::Question)?;
        if let LicenceClaimant::Key(key) = &claimant {
            if wanted.applies {
                return Err(LicenceRefusal::NeedsAccount.into());
            }
            if !key.is_for(&wanted.package) {
                return Err(LicenceRefusal::OtherPackage.into());
            }
        }
        // The generation in force, which may be newer than the one that proved the account.
        let policy = shared.policy.load_full();
        let account = policy.account(&claimant.account().id).cloned();
        let account = account.ok_or(Refusal::NotOpened)?;
        let terms = sold(&policy)?;
        let (package, applies) = (&wanted.package, wanted.applies);
        let licence = licence_of(&self.desk, &policy, &account, package, applies).await?;
        let now = shared.clock.utc();
        let body = self.signed(&policy, &account, terms, &wanted, &licence, now)?;
        self.desk
            .granted(&account.id, &wanted.package, licence.kind);
        Ok(Said::json(body.to_string()))
    }

    fn signed(
        &self,
        policy: &Policy,
        account: &KnownAccount,
        terms: &LicenceTerms,
        wanted: &Wanted,
        licence: &Licence,
        now: Utc,
    ) -> Result<Value, Refusal> {
        let keys = self.desk.keys(policy, terms)?;
        let of = GrantFor {
            account: &account.id,
            package: &wanted.package,
            device: &wanted.device,
        };
        let grant = Grant::sign(&keys, terms, licence, of, now);
        let grant = grant.map_err(|why| match why {
            Ungranted::NoKey => LicenceRefusal::NotSold.into(),
            Ungranted::Ended => LicenceRefusal::Expired.into(),
            Ungranted::Failed(why) => {
                tracing::error!("a grant cannot be signed: {why}");
                Refusal::CannotAnswer
            }
        })?;
        let local = |at| Local::new(at, &policy.catalog.time_zone);
        Ok(json!({
            "grant": grant.token,
            "package": wanted.package,
            "device": wanted.device,
            "kind": licence.kind.as_str(),
            "expires": local(grant.expires),
            "renew_after": local(grant.renew_after),
            "licensed_until": local(licence.until),
        }))
    }

    /// The account's own licences.
    pub(super) async fn licences(&self, question: &Question<'_>) -> Result<Said, Refusal> {
        let shared = self.proxy.shared();
        let policy = shared.policy.load_full();
        let terms = sold(&policy)?.clone();
        self.desk
            .look(&question.account.id, terms.trial_apps)
            .await?;
        let (desk, zone) = (self.desk.clone(), policy.catalog.time_zone.clone());
        let body = self.read(&question.account, move |source| {
            let Source { books, account } = source;
            let from = day(books.now.before(TOLD), &zone);
            let mut days = books.reader.licence_days(&account.id, &from)?;
            days.extend(desk.untold(&account.id));
            Ok(described(&desk, account, &terms, &zone, (books.now, days)))
        });
        Ok(Said::json(body.await?.to_string()))
    }
}

/// What the account has: its orders and trials, with the grants of each app by day.
pub(crate) fn described(
    desk: &LicenceDesk,
    account: &KnownAccount,
    terms: &LicenceTerms,
    zone: &TimeZone,
    (now, days): (Utc, Vec<LicenceDay>),
) -> Value {
    let (trials, revoked) = desk.of_account(&account.id);
    let lines = lines(desk, account, terms, zone, now);
    let local = |at| Local::new(at, zone);
    let revoked = revoked
        .iter()
        .map(|(package, at, why)| json!({"package": package, "at": local(*at), "why": why}));
    let mut sums: Vec<(String, Package, LicenceKind, u64)> = Vec::new();
    for of in days {
        let same = |(day, package, kind, _): &&mut (String, Package, LicenceKind, u64)| {
            *day == of.day && *package == of.package && *kind == of.kind
        };
        match sums.iter_mut().find(same) {
            Some((.., grants)) => *grants = grants.saturating_add(of.grants),
            None => sums.push((of.day, of.package, of.kind, of.grants)),
        }
    }
    sums.sort();
    let grants = sums.iter().map(|(day, package, kind, grants)| {
        json!({"day": day, "package": package, "kind": kind.as_str(), "grants": grants})
    });
    let used = u32::try_from(trials.len()).unwrap_or(u32::MAX);
    json!({
        "account": account.id,
        "time_zone": zone.iana_name(),
        "trials": {"apps": terms.trial_apps, "used": used, "left": terms.trial_apps.saturating_sub(used)},
        "licences": lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>(),
        "revoked": revoked.collect::<Vec<_>>(),
        "grants": grants.collect::<Vec<_>>(),
    })
}

/// The orders and the trials of the account, each of its app and with a state of its own.
pub(crate) fn lines(
    desk: &LicenceDesk,
    account: &KnownAccount,
    terms: &LicenceTerms,
    zone: &TimeZone,
    now: Utc,
) -> Vec<(Package, Value)> {
    let line = |package: &Package, of: &Licence| {
        let known = desk.known(&account.id, package);
        let facts = known.facts(account, package, terms, zone);
        let state = match facts.state(of, now) {
            Ok(()) => "in_force",
            Err(why) => refusal(why).reason(),
        };
        let local = |at| Local::new(at, zone);
        json!({
            "kind": of.kind.as_str(), "package": package, "from": local(of.from),
            "until": local(of.until), "state": state,
        })
    };
    let formal = account.licences.iter().map(|order| {
        let of = Licence {
            kind: LicenceKind::Formal,
            from: order.from,
            until: order.until,
        };
        let mut line = line(&order.package, &of);
        line["order"] = json!(order.order);
        (order.package.clone(), line)
    });
    let trials = desk.of_account(&account.id).0;
    let tried = trials.iter().map(|trial| {
        let known = desk.known(&account.id, &trial.package);
        let facts = known.facts(account, &trial.package, terms, zone);
        let mut line = line(&trial.package, &facts.trial_of(trial.applied_at));
        line["place"] = json!(trial.place);
        (trial.package.clone(), line)
    });
    formal.chain(tried).collect()
}

/// What is sold of licences.
pub(crate) fn sold(policy: &Policy) -> Result<&LicenceTerms, Refusal> {
    let terms = policy.catalog.licences.as_ref();
    terms.ok_or(Refusal::Licence(LicenceRefusal::NotSold))
}

fn wanted(parameters: &Parameters) -> Result<Wanted, BadQuestion> {
    const ALL: &str = "package, device and sdk";
    let given = |name| parameters.get(name).ok_or(BadQuestion::Missing(name, ALL));
    let plain = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let package = Package::new(given("package")?).ok_or(BadQuestion::Value(
        "package",
        "the package name of an app, such as com.example.camera",
    ))?;
    let device = given("device")?;
    if !plain(device, DEVICE_BYTES) {
        let what = "1 to 128 printable characters of ASCII without a blank";
        return Err(BadQuestion::Value("device", what));
    }
    if !plain(given("sdk")?, SDK_BYTES) {
        let what = "1 to 32 printable characters of ASCII without a blank";
        return Err(BadQuestion::Value("sdk", what));
    }
    let applies = match parameters.get("apply") {
        None => false,
        Some("trial") => true,
        Some(_) => return Err(BadQuestion::Value("apply", "trial")),
    };
    Ok(Wanted {
        package,
        device: device.to_owned(),
        applies,
    })
}

/// The licence of the app, which is applied for first when that is asked.
///
/// # Errors
/// As a customer is told.
pub(crate) async fn licence_of(
    desk: &Arc<LicenceDesk>,
    policy: &Policy,
    account: &KnownAccount,
    package: &Package,
    applies: bool,
) -> Result<Licence, Refusal> {
    let terms = sold(policy)?;
    // No place is taken for a licence without grants.
    if !desk.keys(policy, terms)?.signs() {
        return Err(LicenceRefusal::NotSold.into());
    }
    let zone = &policy.catalog.time_zone;
    let judge = || {
        let known = desk.known(&account.id, package);
        let facts = known.facts(account, package, terms, zone);
        licensed(&facts, package, desk.shared.clock.utc())
    };
    match judge() {
        Ok(licence) => return Ok(licence),
        // An app that had a licence takes no trial.
        Err(Unlicensed::None | Unlicensed::OtherPackage | Unlicensed::NotBegun) => {}
        Err(why) => return Err(refusal(why)),
    }
    match applies {
        true => drop(desk.apply(&account.id, package, terms.trial_apps).await?),
        // Another gate may have given one out.
        false => desk.look(&account.id, terms.trial_apps).await?,
    }
    judge().map_err(refusal)
}
