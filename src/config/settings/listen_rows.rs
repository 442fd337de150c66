//! The rows of the public listener in the table of settings.

use crate::config::settings::setting::{Bounds, Change, Setting, Unwritten};

pub(super) const LISTEN: Setting = Setting {
    key: "listen",
    unwritten: Unwritten::Refused("127.0.0.1:8080"),
    bounds: Bounds::Text("IP:PORT or `unix:/PATH`, or a list of them"),
    change: Change::AtRestart(|s| s.listen.to_string()),
    does: "The public listener. Beyond loopback it needs `tls`, or `behind_tls: true`: keys would travel in clear text. `[::]` takes IPv4 too.",
};

pub(super) const PROXY_PROTOCOL: Setting = Setting {
    key: "proxy_protocol",
    unwritten: Unwritten::Is("false"),
    bounds: Bounds::Text("`true`, `false`"),
    change: Change::AtRestart(|s| s.proxy_protocol.to_string()),
    does: "Each connection of `trusted_proxies` begins with a header of the PROXY protocol, version 1 or 2, which names its client.",
};

pub(super) const HEALTH_PATH: Setting = Setting {
    key: "health_path",
    unwritten: Unwritten::Nothing,
    bounds: Bounds::Text("a path that begins with `/`"),
    change: Change::AtRestart(|s| s.health_path.clone().unwrap_or("none".to_owned())),
    does: "GET and HEAD of this path on the public listener need no credential: 200 while calls are accepted, else 503.",
};
