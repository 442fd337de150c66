//! The keys of `upstream`, as rows of the table of settings. Those of `upstreams` have the same.

use crate::config::settings::setting::{Bounds, Change, Setting, Unwritten};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const HUNDRED_MS: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

pub(super) const ENDPOINTS: Setting = Setting {
    key: "upstream.endpoints",
    unwritten: Unwritten::Refused("[\"http://127.0.0.1:8000\"]"),
    bounds: Bounds::Text("a list of `http://HOST:PORT` or `https://HOST:PORT`, at most 64"),
    change: Change::AtReload,
    does: "Where admitted calls go whose group and action name no upstream. Each address of each is a server of its own.",
};
pub(super) const CONNECT_TIMEOUT: Setting = Setting {
    key: "upstream.connect_timeout",
    unwritten: Unwritten::Is("1s"),
    bounds: Bounds::Time(MS..=HOUR),
    change: Change::AtReload,
    does: "A connection takes at most so long; so does the first look-up of a name.",
};
pub(super) const RESPONSE_TIMEOUT: Setting = Setting {
    key: "upstream.response_timeout",
    unwritten: Unwritten::Is("50s"),
    bounds: Bounds::Time(MS..=HOUR),
    change: Change::AtReload,
    does: "The upstream may take so long until the head of its answer; shorter than `limits.request_timeout`.",
};
pub(super) const IDLE_TIMEOUT: Setting = Setting {
    key: "upstream.idle_timeout",
    unwritten: Unwritten::Is("30s"),
    bounds: Bounds::Time(MS..=DAY),
    change: Change::AtReload,
    does: "For so long a connection is kept for the next call; write less than the upstream itself waits.",
};
pub(super) const MAX_AGE: Setting = Setting {
    key: "upstream.max_age",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Time(SECOND..=YEAR),
    change: Change::AtReload,
    does: "Older connections are not used again.",
};
pub(super) const MAX_IN_FLIGHT: Setting = Setting {
    key: "upstream.max_in_flight",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Count(1..=1_000_000),
    change: Change::AtReload,
    does: "The most calls that the upstream has at once. The next one is refused with 503 before it is admitted, and spends nothing. Absent: `limits.connections`. All upstreams together: `limits.connections`, whatever is written.",
};
pub(super) const SLOW_START: Setting = Setting {
    key: "upstream.slow_start",
    unwritten: Unwritten::Is("10s"),
    bounds: Bounds::Time(Duration::ZERO..=HOUR),
    change: Change::AtReload,
    does: "A server that comes back gets a tenth of its share, and its whole share after so long.",
};
pub(super) const HEALTH_PATH: Setting = Setting {
    key: "upstream.health.path",
    unwritten: Unwritten::Refused("/healthz"),
    bounds: Bounds::Text("a path that begins with `/`"),
    change: Change::AtReload,
    does: "Each server is asked for it; 2xx and 3xx are good. Without the section `health` none is asked.",
};
pub(super) const HEALTH_INTERVAL: Setting = Setting {
    key: "upstream.health.interval",
    unwritten: Unwritten::Is("2s"),
    bounds: Bounds::Time(HUNDRED_MS..=HOUR),
    change: Change::AtReload,
    does: "How often.",
};
pub(super) const HEALTH_TIMEOUT: Setting = Setting {
    key: "upstream.health.timeout",
    unwritten: Unwritten::Is("1s"),
    bounds: Bounds::Time(MS..=MINUTE),
    change: Change::AtReload,
    does: "An answer takes at most so long.",
};
pub(super) const HEALTHY_AFTER: Setting = Setting {
    key: "upstream.health.healthy_after",
    unwritten: Unwritten::Is("2"),
    bounds: Bounds::Count(1..=100),
    change: Change::AtReload,
    does: "So many good answers in a row bring a server back that was taken out.",
};
pub(super) const UNHEALTHY_AFTER: Setting = Setting {
    key: "upstream.health.unhealthy_after",
    unwritten: Unwritten::Is("3"),
    bounds: Bounds::Count(1..=100),
    change: Change::AtReload,
    does: "So many bad answers in a row take a server out.",
};
pub(super) const TLS_CA: Setting = Setting {
    key: "upstream.tls.ca",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("a path"),
    change: Change::AtReload,
    does: "Of https:// endpoints: certificates in PEM of which one must have signed the server's; without it those that the machine trusts.",
};
pub(super) const TLS_SERVER_NAME: Setting = Setting {
    key: "upstream.tls.server_name",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("a host name"),
    change: Change::AtReload,
    does: "The name that the server's certificate must have, and that it is asked for (SNI); without it HOST.",
};
pub(super) const TLS_CERTIFICATE: Setting = Setting {
    key: "upstream.tls.certificate",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("a path"),
    change: Change::AtReload,
    does: "The certificate in PEM, with those that signed it, for a server that asks who this gate is.",
};
pub(super) const TLS_KEY: Setting = Setting {
    key: "upstream.tls.key",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("`{file: PATH}` or `{env: NAME}`"),
    change: Change::AtReload,
    does: "Its key in PEM, which others may not read.",
};
pub(super) const UPSTREAMS: Setting = Setting {
    key: "upstreams",
    unwritten: Unwritten::Is("{}"),
    bounds: Bounds::Text("a map of names, each with the keys of `upstream`"),
    change: Change::AtReload,
    does: "Other upstreams, which a group or an action of the catalogue names by `upstream:`. A key that is absent has the default that it has in `upstream`; nothing is inherited.",
};
