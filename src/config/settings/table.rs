//! Every key of `tollgate.yaml`, told once: default, bounds, what a change of it needs, what it
//! does.
//!
//! The reader takes defaults and bounds from here, the list of what waits for a restart comes from
//! here, and so does the reference in `config/README.md` (`make reference`). Must never name a key
//! that the reader does not accept.

use crate::config::Settings;
use crate::config::settings::setting::{Bounds, Change, SECRET, Setting, Unwritten, secret};
use crate::config::settings::{StoreSettings, StoreTopology};
use crate::config::settings::{access_log_rows, listen_rows, outbox_rows, tls_rows, upstream_rows};
use crate::config::yaml::{self, Node, Places};
use crate::model::{LONGEST_BUDGET, LONGEST_DELAY};
use secrecy::ExposeSecret;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

/// The key of a section; of the whole file when its name is empty.
pub(in crate::config) fn find(section: &str, key: &str) -> Option<&'static Setting> {
    let is_it = |setting: &&Setting| {
        setting.key.rsplit_once('.').unwrap_or(("", setting.key)) == (section, key)
    };
    TABLE.iter().find(is_it)
}

/// What an absent key is read as; `None` when it is required or is nothing.
pub(in crate::config) fn default(setting: &Setting) -> Option<&'static Node> {
    static DEFAULTS: LazyLock<Vec<(&'static str, Node)>> = LazyLock::new(|| {
        let parsed = |setting: &'static Setting| match setting.unwritten {
            Unwritten::Is(text) => yaml::parse(Path::new(""), text.as_bytes(), Places::Skipped)
                .ok()
                .map(|node| (setting.key, node)),
            Unwritten::Refused(_) | Unwritten::Nothing => None,
        };
        TABLE.iter().filter_map(parsed).collect()
    });
    let found = DEFAULTS.iter().find(|(key, _)| *key == setting.key);
    found.map(|(_, node)| node)
}

/// The reference of the keys of `tollgate.yaml`, as a table in Markdown.
pub fn reference() -> String {
    let mut page =
        "| Key | Default | Values | A change waits for a | What it does |\n|---|---|---|---|---|\n"
            .to_owned();
    for setting in TABLE {
        let default = match setting.unwritten {
            Unwritten::Refused(_) => "required".to_owned(),
            Unwritten::Is(text) => format!("`{text}`"),
            Unwritten::Nothing => "none".to_owned(),
        };
        let when = if setting.change.needs_restart() {
            "restart"
        } else {
            "reload"
        };
        let Setting {
            key, bounds, does, ..
        } = setting;
        page.push_str(&format!(
            "| `{key}` | {default} | {bounds} | {when} | {does} |\n"
        ));
    }
    page
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const CENTURY: Duration = Duration::from_secs(36_500 * 86_400);
const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// How a setting of the store is told; "none" without a store.
fn of_store(settings: &Settings, told: fn(&StoreSettings) -> String) -> String {
    settings.store.as_ref().map_or("none".to_owned(), told)
}

/// In the order of the reference.
pub(in crate::config) static TABLE: &[Setting] = &[
    listen_rows::LISTEN,
    Setting {
        key: "behind_tls",
        unwritten: Unwritten::Is("false"),
        bounds: Bounds::Text("`true`, `false`"),
        change: Change::AtRestart(|s| s.behind_tls.to_string()),
        does: "Says that TLS ends in front of this gate.",
    },
    tls_rows::CALLS,
    Setting {
        key: "workers",
        unwritten: Unwritten::Is("auto"),
        bounds: Bounds::Count(1..=1024),
        change: Change::AtRestart(|s| s.workers.map_or("auto".to_owned(), |n| n.to_string())),
        does: "Threads for calls; `auto` is one a core.",
    },
    Setting {
        key: "admin.listen",
        unwritten: Unwritten::Is("127.0.0.1:9090"),
        bounds: Bounds::Text("IP:PORT"),
        change: Change::AtRestart(|s| s.admin.listen.to_string()),
        does: "The listener for health, metrics, queries and reload.",
    },
    Setting {
        key: "admin.token",
        unwritten: Unwritten::Nothing,
        bounds: SECRET,
        change: Change::Secret(|s| {
            let token = s.admin.token.iter();
            token
                .map(|token| token.expose_secret().as_bytes())
                .collect()
        }),
        does: "What its clients must send; required beyond loopback.",
    },
    tls_rows::ADMIN,
    upstream_rows::ENDPOINTS,
    upstream_rows::CONNECT_TIMEOUT,
    upstream_rows::RESPONSE_TIMEOUT,
    upstream_rows::IDLE_TIMEOUT,
    upstream_rows::MAX_AGE,
    upstream_rows::MAX_IN_FLIGHT,
    upstream_rows::SLOW_START,
    upstream_rows::HEALTH_PATH,
    upstream_rows::HEALTH_INTERVAL,
    upstream_rows::HEALTH_TIMEOUT,
    upstream_rows::HEALTHY_AFTER,
    upstream_rows::UNHEALTHY_AFTER,
    upstream_rows::TLS_CA,
    upstream_rows::TLS_SERVER_NAME,
    upstream_rows::TLS_CERTIFICATE,
    upstream_rows::TLS_KEY,
    upstream_rows::UPSTREAMS,
    Setting {
        key: "catalog",
        unwritten: Unwritten::Refused("catalog.yaml"),
        bounds: Bounds::Text("a path"),
        change: Change::AtReload,
        does: "The file of what is sold.",
    },
    Setting {
        key: "accounts",
        unwritten: Unwritten::Refused("accounts.yaml"),
        bounds: Bounds::Text("a path"),
        change: Change::AtReload,
        does: "The file of who bought it, or a directory of such files.",
    },
    Setting {
        key: "ledger.path",
        unwritten: Unwritten::Refused("../var/ledger.db"),
        bounds: Bounds::Text("a path"),
        change: Change::AtRestart(|s| s.ledger.path.display().to_string()),
        does: "The ledger, on a local disk, never NFS.",
    },
    Setting {
        key: "ledger.durability",
        unwritten: Unwritten::Is("strict"),
        bounds: Bounds::Text("`strict`, `relaxed`"),
        change: Change::AtRestart(|s| s.ledger.durability.to_string()),
        does: "`relaxed`: answers do not wait for the disk, and a crash may lose 100 ms, or as long as the disk has not answered by then.",
    },
    Setting {
        key: "ledger.retain_records",
        unwritten: Unwritten::Is("100d"),
        bounds: Bounds::Time(DAY..=CENTURY),
        change: Change::AtRestart(|s| format!("{:?}", s.ledger.retain_records)),
        does: "Single records are kept so long; hourly totals, statements and seals stay.",
    },
    Setting {
        key: "ledger.stall_after",
        unwritten: Unwritten::Is("2s"),
        bounds: Bounds::Time(Duration::from_millis(100)..=MINUTE),
        change: Change::AtRestart(|s| format!("{:?}", s.ledger.stall_after)),
        does: "When a record waits longer for the disk, calls are refused until the disk answers.",
    },
    Setting {
        key: "ledger.when_missing",
        unwritten: Unwritten::Is("refuse"),
        bounds: Bounds::Text("`refuse`, `create`"),
        change: Change::AtRestart(|s| if s.ledger.create { "create" } else { "refuse" }.to_owned()),
        does: "`create` makes a ledger that is not there; for a trial and for the first start.",
    },
    Setting {
        key: "admission.max_delay",
        unwritten: Unwritten::Is("50ms"),
        bounds: Bounds::Time(Duration::ZERO..=LONGEST_DELAY),
        change: Change::AtRestart(|s| format!("{:?}", s.max_delay)),
        does: "The longest that a call waits for its turn.",
    },
    Setting {
        key: "admission.store.redis.nodes",
        unwritten: Unwritten::Refused("[\"127.0.0.1:6379\"]"),
        bounds: Bounds::Text("a list of HOST:PORT"),
        change: Change::AtRestart(|s| {
            of_store(s, |store| {
                let nodes: Vec<String> = store.nodes.iter().map(ToString::to_string).collect();
                nodes.join(", ")
            })
        }),
        does: "The Redis or Valkey that keeps the windows of all replicas; with `sentinel` the sentinels, with `cluster` some nodes. Without the section `admission.store` this gate decides alone.",
    },
    Setting {
        key: "admission.store.redis.sentinel",
        unwritten: Unwritten::Nothing,
        bounds: Bounds::Text("a name"),
        change: Change::AtRestart(|s| {
            of_store(s, |store| match &store.topology {
                StoreTopology::Sentinel { primary, .. } => primary.clone(),
                StoreTopology::Single | StoreTopology::Cluster => "none".to_owned(),
            })
        }),
        does: "The name under which the sentinels watch the primary.",
    },
    Setting {
        key: "admission.store.redis.sentinel_username",
        unwritten: Unwritten::Nothing,
        bounds: Bounds::Text("a name"),
        change: Change::AtRestart(|s| {
            of_store(s, |store| match &store.topology {
                StoreTopology::Sentinel { username, .. } => username.clone().unwrap_or_default(),
                StoreTopology::Single | StoreTopology::Cluster => String::new(),
            })
        }),
        does: "The user at the sentinels, when they have an ACL.",
    },
    Setting {
        key: "admission.store.redis.sentinel_password",
        unwritten: Unwritten::Nothing,
        bounds: SECRET,
        change: Change::Secret(|s| match s.store.as_ref().map(|store| &store.topology) {
            Some(StoreTopology::Sentinel { password, .. }) => secret(password.as_ref()),
            _ => Vec::new(),
        }),
        does: "The password of the sentinels, when they have one.",
    },
    Setting {
        key: "admission.store.redis.cluster",
        unwritten: Unwritten::Is("false"),
        bounds: Bounds::Text("`true`, `false`"),
        change: Change::AtRestart(|s| {
            of_store(s, |store| {
                matches!(store.topology, StoreTopology::Cluster).to_string()
            })
        }),
        does: "The store is a Cluster.",
    },
    Setting {
        key: "admission.store.redis.tls",
        unwritten: Unwritten::Is("false"),
        bounds: Bounds::Text("`true`, `false`"),
        change: Change::AtRestart(|s| of_store(s, |store| store.tls.to_string())),
        does: "Speaks TLS to the nodes and the sentinels.",
    },
    Setting {
        key: "admission.store.redis.ca",
        unwritten: Unwritten::Nothing,
        bounds: Bounds::Text("a path"),
        change: Change::PartlyTold(
            |s| {
                of_store(s, |store| match store.ca {
                    Some(_) => "a file".to_owned(),
                    None => "none".to_owned(),
                })
            },
            |s| {
                of_store(s, |store| {
                    String::from_utf8_lossy(store.ca.as_deref().unwrap_or_default()).into_owned()
                })
            },
        ),
        does: "Certificates in PEM of which one must have signed the store's; without it those that the machine trusts.",
    },
    Setting {
        key: "admission.store.redis.username",
        unwritten: Unwritten::Nothing,
        bounds: Bounds::Text("a name"),
        change: Change::AtRestart(|s| {
            of_store(s, |store| store.username.clone().unwrap_or_default())
        }),
        does: "The user of the store's ACL; without it the default user.",
    },
    Setting {
        key: "admission.store.redis.password",
        unwritten: Unwritten::Nothing,
        bounds: SECRET,
        change: Change::Secret(|s| {
            secret(s.store.as_ref().and_then(|store| store.password.as_ref()))
        }),
        does: "The password of the user.",
    },
    Setting {
        key: "admission.store.redis.database",
        unwritten: Unwritten::Is("0"),
        bounds: Bounds::Count(0..=65_535),
        change: Change::AtRestart(|s| of_store(s, |store| store.database.to_string())),
        does: "The number of the database.",
    },
    Setting {
        key: "admission.store.redis.budget",
        unwritten: Unwritten::Is("5ms"),
        bounds: Bounds::Time(MS..=LONGEST_BUDGET),
        change: Change::AtRestart(|s| of_store(s, |store| format!("{:?}", store.budget))),
        does: "An answer of the store that takes longer is void. The cap at the upstream is looser by it.",
    },
    outbox_rows::SERVERS,
    outbox_rows::USERNAME,
    outbox_rows::PASSWORD,
    outbox_rows::CREDENTIALS,
    outbox_rows::NKEY,
    outbox_rows::TLS,
    outbox_rows::CA,
    outbox_rows::CERTIFICATE,
    outbox_rows::KEY,
    outbox_rows::STREAM,
    outbox_rows::MAX_BYTES,
    outbox_rows::REPLICAS,
    Setting {
        key: "replica",
        unwritten: Unwritten::Nothing,
        bounds: Bounds::Text("a name"),
        change: Change::AtRestart(|s| s.replica.clone().unwrap_or_default()),
        does: "The name of this gate in records and at the store; without it the machine's host name.",
    },
    access_log_rows::TO,
    access_log_rows::OF,
    access_log_rows::SAMPLE,
    Setting {
        key: "metrics.accounts",
        unwritten: Unwritten::Is("1000"),
        bounds: Bounds::Count(1..=100_000),
        change: Change::AtRestart(|s| s.metric_accounts.to_string()),
        does: "So many of the busiest accounts have series of their own.",
    },
    Setting {
        key: "events.webhook",
        unwritten: Unwritten::Refused("https://127.0.0.1:8443/events"),
        bounds: Bounds::Text("`https://HOST:PORT/PATH`; `http` to this machine only"),
        change: Change::PartlyTold(
            |s| {
                let events = s.events.as_ref();
                events.map_or("none".to_owned(), |e| e.webhook.to_string())
            },
            |s| {
                let events = s.events.as_ref();
                events.map_or(String::new(), |e| e.webhook.path.clone())
            },
        ),
        does: "Where an event is posted as JSON; without the section `events`, nowhere.",
    },
    Setting {
        key: "events.secret",
        unwritten: Unwritten::Refused("{file: secrets/events.secret}"),
        bounds: Bounds::Text(
            "`whsec_` and base64, as text, `{file: PATH}` or `{env: NAME}`; a list of two during a rotation",
        ),
        change: Change::Secret(|s| {
            let keys = s.events.iter().flat_map(|events| &events.secrets);
            keys.map(ExposeSecret::expose_secret).collect()
        }),
        does: "Signs events as the Standard Webhooks specification says.",
    },
    Setting {
        key: "events.balance_below",
        unwritten: Unwritten::Nothing,
        bounds: Bounds::Text("an amount above zero, such as `\"100\"`"),
        change: Change::AtRestart(|s| {
            let amount = s.events.as_ref().and_then(|e| e.balance_below);
            amount.map_or("none".to_owned(), |amount| amount.to_string())
        }),
        does: "When a balance falls below it, `balance.low` is raised, once until it was there again.",
    },
    Setting {
        key: "events.pack_expiring",
        unwritten: Unwritten::Nothing,
        bounds: Bounds::Time(HOUR..=YEAR),
        change: Change::AtRestart(|s| {
            let before = s.events.as_ref().and_then(|e| e.pack_expiring);
            before.map_or("none".to_owned(), |before| format!("{before:?}"))
        }),
        does: "So long before an order with calls left ends, `pack.expiring` is raised.",
    },
    Setting {
        key: "events.quota_ending",
        unwritten: Unwritten::Is("7d"),
        bounds: Bounds::Time(HOUR..=YEAR),
        change: Change::AtRestart(|s| {
            let before = s.events.as_ref().map(|e| e.quota_ending);
            before.map_or("none".to_owned(), |before| format!("{before:?}"))
        }),
        does: "So long before bought quota ends that nothing follows, `quota.ending` is raised.",
    },
    Setting {
        key: "limits.connections",
        unwritten: Unwritten::Is("10000"),
        bounds: Bounds::Count(1..=1_000_000),
        change: Change::AtRestart(|s| s.limits.connections.to_string()),
        does: "Connections of clients. Not written: fewer when the system allows fewer open files.",
    },
    Setting {
        key: "limits.idle_timeout",
        unwritten: Unwritten::Is("75s"),
        bounds: Bounds::Time(SECOND..=DAY),
        change: Change::AtRestart(|s| format!("{:?}", s.limits.idle_timeout)),
        does: "A client's connection may stay so long without a request.",
    },
    Setting {
        key: "limits.drain_notice",
        unwritten: Unwritten::Is("1s"),
        bounds: Bounds::Time(Duration::ZERO..=HOUR),
        change: Change::AtRestart(|s| format!("{:?}", s.limits.drain_notice)),
        does: "A stopping gate still takes new connections for so long.",
    },
    Setting {
        key: "limits.header_bytes",
        unwritten: Unwritten::Is("32KiB"),
        // The HTTP server cannot work with a head buffer below 8 KiB.
        bounds: Bounds::Size(8 * KIB..=128 * KIB),
        change: Change::AtRestart(|s| s.limits.header_bytes.to_string()),
        does: "The most bytes of a head.",
    },
    Setting {
        key: "limits.body_bytes",
        unwritten: Unwritten::Is("10MiB"),
        bounds: Bounds::Size(1..=GIB),
        change: Change::AtRestart(|s| s.limits.body_bytes.to_string()),
        does: "The most bytes of a body.",
    },
    Setting {
        key: "limits.body_memory",
        unwritten: Unwritten::Is("512MiB"),
        bounds: Bounds::Size(1..=TIB),
        change: Change::AtRestart(|s| s.limits.body_memory.to_string()),
        does: "The most bytes of all bodies in memory; at least eight times `body_bytes`.",
    },
    Setting {
        key: "limits.request_timeout",
        unwritten: Unwritten::Is("60s"),
        bounds: Bounds::Time(SECOND..=HOUR),
        change: Change::AtRestart(|s| format!("{:?}", s.limits.request_timeout)),
        does: "From the first byte of a request to the head of its answer.",
    },
    Setting {
        key: "limits.drain",
        unwritten: Unwritten::Is("60s"),
        bounds: Bounds::Time(Duration::ZERO..=HOUR),
        change: Change::AtRestart(|s| format!("{:?}", s.limits.drain)),
        does: "A stopping gate waits for its calls for so long.",
    },
    Setting {
        key: "trusted_proxies",
        unwritten: Unwritten::Is("[]"),
        bounds: Bounds::Text("a list of networks"),
        change: Change::AtRestart(|s| {
            let proxies: Vec<String> = s.trusted_proxies.iter().map(ToString::to_string).collect();
            format!("[{}]", proxies.join(", "))
        }),
        does: "The proxies whose `X-Forwarded-For` names the real peer. A client on a Unix socket is 127.0.0.1.",
    },
    listen_rows::PROXY_PROTOCOL,
    listen_rows::HEALTH_PATH,
];
