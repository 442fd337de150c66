//! The keys of `tls` and `admin.tls`, for the table.

use crate::config::settings::setting::{Bounds, Change, Setting, Unwritten};

/// A list of certificates.
const CERTIFICATES: Bounds = Bounds::Text(
    "a list of `{cert: FILE, key: {file: FILE}}`, both in PEM, the own certificate first",
);

/// How a section that is there or not is told.
fn switch(is_on: bool) -> String {
    (if is_on { "TLS" } else { "plain HTTP" }).to_owned()
}

/// Of the public listener.
pub(super) const CALLS: Setting = Setting {
    key: "tls.certificates",
    unwritten: Unwritten::Refused("[{cert: tls/gate.pem, key: {file: tls/gate.key}}]"),
    bounds: CERTIFICATES,
    change: Change::AtReloadOf(|s| switch(s.tls.is_some())),
    does: "The public listener speaks TLS (1.2 or 1.3, HTTP/1.1 and HTTP/2) and shows one of these by the name that its client asks for, else the first.",
};

/// Of the admin listener.
pub(super) const ADMIN: Setting = Setting {
    key: "admin.tls.certificates",
    unwritten: Unwritten::Refused("[{cert: tls/admin.pem, key: {file: tls/admin.key}}]"),
    bounds: CERTIFICATES,
    change: Change::AtReloadOf(|s| switch(s.admin.tls.is_some())),
    does: "The admin listener speaks TLS and shows one of these.",
};
