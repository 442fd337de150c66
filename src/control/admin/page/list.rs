//! One page of the list of accounts.

use crate::control::admin::accounts::services;
use crate::control::admin::app::{Admin, App, problem};
use crate::control::admin::page::rows::{MOST_ROWS, Only, ROWS, SEARCHED, Sort, Wanted, rows};
use crate::control::admin::page::tally::Tally;
use crate::control::admin::query::{Parameters, flag, parameters};
use crate::model::{Stop, run_low_priority};
use crate::proxy::admission::{Limiters, Now};
use crate::proxy::policy::{KnownAccount, Policy};
use axum::Json;
use axum::extract::State as Extracted;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What a row tells of a limiter: not why, which the page of the account tells.
const SHOWN: [&str; 9] = [
    "action",
    "mode",
    "quota_qps",
    "in_use",
    "stopped",
    "opened",
    "admitted",
    "throttled",
    "refused",
];

pub(in crate::control::admin) async fn list(Extracted(admin): App, query: Parameters) -> Response {
    let wanted = match wanted(query) {
        Ok(wanted) => wanted,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    // Behind the calls: a search looks at all accounts.
    let listed = move || run_low_priority(|| listed(&admin, &wanted));
    match tokio::task::spawn_blocking(listed).await {
        Ok(listed) => Json(listed).into_response(),
        Err(error) => {
            tracing::error!(%error, "the list of accounts failed in a way it never should");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "it failed; see the log")
        }
    }
}

fn listed(admin: &Admin, wanted: &Wanted) -> Value {
    let shared = &admin.shared;
    let policy = shared.policy.load_full();
    let tally = wanted
        .needs_tally()
        .then(|| admin.page.tally.of_now(shared, &policy));
    let now = Now::read(&shared.clock);
    page(&policy, &shared.limiters, tally.as_deref(), wanted, now)
}

fn page(
    policy: &Policy,
    limiters: &Limiters,
    tally: Option<&Tally>,
    wanted: &Wanted,
    now: Now,
) -> Value {
    let page = rows(policy, limiters, tally, wanted);
    let shown = page.shown.into_iter();
    let shown = shown.map(|account| row(policy, limiters, account, now));
    json!({
        "accounts": policy.accounts().len(),
        "found": page.found,
        "looked_at": page.looked_at,
        "offset": wanted.offset,
        "rows": shown.collect::<Vec<Value>>(),
    })
}

fn row(policy: &Policy, limiters: &Limiters, account: &KnownAccount, now: Now) -> Value {
    let mut by_group = services(policy, account, limiters, now);
    for described in by_group.values_mut().flatten() {
        if let Some(described) = described.as_object_mut() {
            described.retain(|name, _| SHOWN.contains(&name.as_str()));
        }
    }
    let stops = account.services.iter().map(|of| of.stopped);
    let by_files = stops.into_iter().any(|stop| stop == Some(Stop::Arrears));
    json!({
        "id": account.id,
        "name": account.name,
        "in_arrears": by_files || limiters.is_in_arrears(&account.id),
        "services": by_group,
    })
}

fn wanted(query: Parameters) -> Result<Wanted, String> {
    let names = ["search", "only", "sort", "descending", "offset", "rows"];
    let [search, only, sort, descending, offset, most] = parameters(query, names)?;
    let search = search.unwrap_or_default().trim().to_lowercase();
    if search.chars().count() > SEARCHED {
        return Err(format!("search: at most {SEARCHED} characters"));
    }
    let number = |name: &str, value: Option<String>, or: usize| match value {
        None => Ok(or),
        Some(value) => value.parse().map_err(|_| format!("{name}: write a number")),
    };
    let most = number("rows", most, ROWS)?;
    if !(1..=MOST_ROWS).contains(&most) {
        return Err(format!("rows: from 1 to {MOST_ROWS}"));
    }
    Ok(Wanted {
        search,
        only: Only::parse(only.as_deref().unwrap_or_default())
            .ok_or("only: all, called, throttled, stopped, arrears, per_call, qps or free")?,
        sort: match sort.as_deref() {
            None => Sort::default(),
            Some(sort) => {
                Sort::parse(sort).ok_or("sort: id, name, admitted, throttled, refused or used")?
            }
        },
        is_descending: flag("descending", descending)?,
        offset: number("offset", offset, 0)?,
        rows: most,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::metrics::Metrics;
    use crate::model::{AccountId, Clock, Mode};
    use crate::proxy::upstream::Upstreams;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    const MANY: usize = 100_000;

    /// So many accounts, half of them by the call and half by QPS, `Name 0` to the last.
    fn many() -> Policy {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
        let config = config::load(&path).unwrap();
        let sample = |nth: usize| {
            let mut account = config.accounts[nth % 2].clone();
            account.id = AccountId::new(&format!("a{nth:06}")).unwrap();
            account.name = format!("Name {nth}");
            account.keys = Box::default();
            account
        };
        let accounts = (0..MANY).map(sample).collect();
        let metrics = Metrics::new(1);
        let upstreams = Upstreams::new(&config.settings, 1, &Clock::default());
        Policy::build(1, Arc::new(config.catalog), accounts, upstreams, &metrics)
    }

    /// Calls of the nth account at its limiter.
    fn call(policy: &Policy, limiters: &Limiters, nth: usize, counts: [u64; 3]) {
        let account = &policy.accounts().as_slice()[nth];
        let operation = policy.by_action("SegmentPortraitPic").unwrap();
        let limiter = policy.limiter(account, operation, limiters).unwrap();
        let of = &limiter.counts;
        for (count, calls) in [&of.admitted, &of.throttled, &of.refused]
            .into_iter()
            .zip(counts)
        {
            count.fetch_add(calls, Ordering::Relaxed);
        }
    }

    fn ids(page: &Value) -> Vec<&str> {
        let rows = page["rows"].as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap()).collect()
    }

    #[test]
    fn of_a_hundred_thousand_accounts_a_page_is_small_and_most_pages_look_at_no_other() {
        let (policy, limiters) = (many(), Limiters::default());
        for nth in 0..2_000 {
            call(
                &policy,
                &limiters,
                nth * 50,
                [nth as u64, (nth % 7) as u64, 0],
            );
        }
        call(&policy, &limiters, 77_777, [1, 9_000, 2]);
        let now = Now::read(&Clock::default());
        let tally = Tally::count(&limiters, &policy, now);
        let asked = |wanted: Wanted| page(&policy, &limiters, Some(&tally), &wanted, now);
        let wanted = || Wanted {
            rows: MOST_ROWS,
            ..Wanted::default()
        };

        let first = asked(wanted());
        assert_eq!(
            (&first["found"], &first["looked_at"]),
            (&json!(MANY), &json!(100))
        );
        assert_eq!((ids(&first).len(), ids(&first)[99]), (100, "a000099"));
        assert!(
            first.to_string().len() < 128 * 1024,
            "{}",
            first.to_string().len()
        );
        let last = asked(Wanted {
            offset: MANY - 3,
            ..wanted()
        });
        assert_eq!((ids(&last).len(), &last["looked_at"]), (3, &json!(3)));
        let beyond = asked(Wanted {
            offset: usize::MAX,
            sort: Sort::Name,
            ..wanted()
        });
        assert_eq!((ids(&beyond).len(), &beyond["found"]), (0, &json!(MANY)));

        // What needs the others looks at each once, and shows no more.
        let most = asked(Wanted {
            sort: Sort::Throttled,
            is_descending: true,
            ..wanted()
        });
        assert_eq!((ids(&most).len(), ids(&most)[0]), (100, "a077777"));
        assert_eq!(
            (ids(&most)[1], &most["looked_at"]),
            ("a000300", &json!(MANY))
        );
        let called = asked(Wanted {
            only: Only::Called,
            rows: 10,
            ..wanted()
        });
        assert_eq!((ids(&called).len(), &called["found"]), (10, &json!(2_000)));
        let named = asked(Wanted {
            search: "name 7777".to_owned(),
            ..wanted()
        });
        assert_eq!((ids(&named)[0], &named["found"]), ("a007777", &json!(11)));
        let by_name = asked(Wanted {
            sort: Sort::Name,
            is_descending: true,
            rows: 2,
            ..wanted()
        });
        assert_eq!(ids(&by_name), ["a099999", "a099998"]);
        let by_qps = asked(Wanted {
            only: Only::In(Mode::Qps),
            rows: 1,
            ..wanted()
        });
        assert_eq!(
            (ids(&by_qps)[0], &by_qps["found"]),
            ("a000001", &json!(MANY / 2))
        );
    }

    #[test]
    fn only_accounts_that_are_stopped_are_found_when_these_are_asked_for() {
        let (policy, limiters) = (many(), Limiters::default());
        let stopped = AccountId::new("a000042").unwrap();
        limiters.set_arrears([stopped].into());
        let now = Now::read(&Clock::default());
        for only in [Only::Stopped, Only::Arrears] {
            let wanted = Wanted {
                only,
                rows: 5,
                ..Wanted::default()
            };
            assert!(!wanted.needs_tally());
            let found = page(&policy, &limiters, None, &wanted, now);
            assert_eq!(ids(&found), ["a000042"], "{only:?}");
            assert_eq!(found["rows"][0]["in_arrears"], true);
        }
    }
}
