//! The rows of the section `outbox.nats` in the table of settings.
//!
//! Must never show a secret.

use crate::config::Settings;
use crate::config::settings::setting::{Bounds, Change, SECRET, Setting, Unwritten, secret};
use crate::config::settings::{OutboxLogin, OutboxSettings};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// How a setting of the outbox is told; "none" without one.
fn of_outbox(settings: &Settings, told: fn(&OutboxSettings) -> String) -> String {
    settings.outbox.as_ref().map_or("none".to_owned(), told)
}

pub(super) const SERVERS: Setting = Setting {
    key: "outbox.nats.servers",
    unwritten: Unwritten::Refused("[\"nats://127.0.0.1:4222\"]"),
    bounds: Bounds::Text("a list of `nats://HOST:PORT`"),
    change: Change::AtRestart(|s| {
        of_outbox(s, |outbox| {
            let servers: Vec<String> = outbox.servers.iter().map(ToString::to_string).collect();
            servers.join(", ")
        })
    }),
    does: "The NATS servers (JetStream, 2.9 or later) by which records go to `tollgate collect`. Without the section `outbox` they stay in this gate's ledger.",
};

pub(super) const USERNAME: Setting = Setting {
    key: "outbox.nats.username",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("a name"),
    change: Change::AtRestart(|s| {
        of_outbox(s, |outbox| match &outbox.login {
            OutboxLogin::User { username, .. } => username.clone(),
            _ => "none".to_owned(),
        })
    }),
    does: "The user at NATS, with `password`.",
};

pub(super) const PASSWORD: Setting = Setting {
    key: "outbox.nats.password",
    unwritten: Unwritten::Nothing,
    bounds: SECRET,
    change: Change::Secret(|s| match s.outbox.as_ref().map(|outbox| &outbox.login) {
        Some(OutboxLogin::User { password, .. }) => secret(Some(password)),
        _ => Vec::new(),
    }),
    does: "The password of the user.",
};

pub(super) const CREDENTIALS: Setting = Setting {
    key: "outbox.nats.credentials",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("`{file: PATH}` or `{env: NAME}`"),
    change: Change::Secret(|s| match s.outbox.as_ref().map(|outbox| &outbox.login) {
        Some(OutboxLogin::Credentials(text)) => secret(Some(text)),
        _ => Vec::new(),
    }),
    does: "A credentials file of NATS (a JWT and the seed of its key), in place of a user.",
};

pub(super) const NKEY: Setting = Setting {
    key: "outbox.nats.nkey",
    unwritten: Unwritten::Nothing,
    bounds: SECRET,
    change: Change::Secret(|s| match s.outbox.as_ref().map(|outbox| &outbox.login) {
        Some(OutboxLogin::NkeySeed(seed)) => secret(Some(seed)),
        _ => Vec::new(),
    }),
    does: "The seed of a user's key (`SU..`), in place of a user.",
};

pub(super) const TLS: Setting = Setting {
    key: "outbox.nats.tls",
    unwritten: Unwritten::Is("false"),
    bounds: Bounds::Text("`true`, `false`"),
    change: Change::AtRestart(|s| of_outbox(s, |outbox| outbox.tls.to_string())),
    does: "Speaks TLS to NATS.",
};

pub(super) const CA: Setting = Setting {
    key: "outbox.nats.ca",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("a path"),
    change: Change::PartlyTold(
        |s| {
            of_outbox(s, |outbox| match outbox.ca {
                Some(_) => "a file".to_owned(),
                None => "none".to_owned(),
            })
        },
        |s| {
            of_outbox(s, |outbox| {
                String::from_utf8_lossy(outbox.ca.as_deref().unwrap_or_default()).into_owned()
            })
        },
    ),
    does: "Certificates in PEM of which one must have signed NATS's; without it those that the machine trusts.",
};

pub(super) const CERTIFICATE: Setting = Setting {
    key: "outbox.nats.certificate",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("a path"),
    change: Change::PartlyTold(
        |s| {
            of_outbox(s, |outbox| match outbox.certificate {
                Some(_) => "a file".to_owned(),
                None => "none".to_owned(),
            })
        },
        |s| {
            of_outbox(s, |outbox| {
                let chain = outbox.certificate.as_ref().map(|shown| &*shown.chain);
                String::from_utf8_lossy(chain.unwrap_or_default()).into_owned()
            })
        },
    ),
    does: "The certificate in PEM that is shown to a NATS which wants one (`verify: true` there), with those that signed it.",
};

pub(super) const KEY: Setting = Setting {
    key: "outbox.nats.key",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("`{file: PATH}` or `{env: NAME}`"),
    change: Change::Secret(|s| {
        let shown = s.outbox.as_ref().and_then(|it| it.certificate.as_ref());
        secret(shown.map(|shown| &shown.key))
    }),
    does: "The key of `certificate`, in PEM.",
};

pub(super) const STREAM: Setting = Setting {
    key: "outbox.nats.stream",
    unwritten: Unwritten::Is("TOLLGATE_RECORDS"),
    bounds: Bounds::Text("letters, digits, `-` and `_`"),
    change: Change::AtRestart(|s| of_outbox(s, |outbox| outbox.stream.clone())),
    does: "The name of the stream. It is made when it is not there, and refused when it is otherwise.",
};

pub(super) const MAX_BYTES: Setting = Setting {
    key: "outbox.nats.max_bytes",
    unwritten: Unwritten::Is("10GiB"),
    bounds: Bounds::Size(MIB..=TIB),
    change: Change::AtRestart(|s| of_outbox(s, |outbox| outbox.max_bytes.to_string())),
    does: "The most bytes of the stream. When it is full, records wait in the gates' ledgers.",
};

pub(super) const REPLICAS: Setting = Setting {
    key: "outbox.nats.replicas",
    unwritten: Unwritten::Is("1"),
    bounds: Bounds::Count(1..=5),
    change: Change::AtRestart(|s| of_outbox(s, |outbox| outbox.replicas.to_string())),
    does: "The servers of a cluster that keep each message: 1, 3 or 5.",
};
