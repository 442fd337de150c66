//! Good files, which a test changes.

use crate::config::{Config, Mistake, Mistakes, changes, load};
use crate::model::Utc;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

pub(in crate::config) const TOLLGATE: &str = r#"listen: 127.0.0.1:8080
upstream: {endpoints: [http://127.0.0.1:8000]}
catalog: catalog.yaml
accounts: accounts.yaml
ledger: {path: ledger.db}
"#;

pub(in crate::config) const CATALOG: &str = r#"time_zone: Asia/Shanghai
currency: CNY
services: [bda]
versions: ["2020-03-24"]
groups:
  portrait:
    title: 人像分割
    regions: [ap-beijing]
    actions:
      Segment: {route: POST /v1/segment}
      Custom: {}
    per_call:
      qps: 20
      free_calls: 1000
      tiers: [{from: 0, price: "0.01"}, {from: 100, price: "0.009"}]
      packs: [{calls: 10000, price: "88"}, {calls: 20000, price: "170"}]
      pack_months: 12
      notice_below: 15%
    qps: {prices: [{from: 1, month: "880", day: "48"}, {from: 10, month: "780", day: "40"}]}
  video:
    title: Video
    actions: {Create: {}}
    free: {qps_per_action: 20}
"#;

pub(in crate::config) const ACCOUNTS: &str = r#"accounts:
  "1":
    name: One
    keys:
      - {secret_id: AKID1, secret_key: hush}
      - {api_key_sha256: 00000000000000000000000000000000000000000000000000000000000000aa}
    payments: [{order: T-1, at: 2026-11-01T00:00:00+08:00, amount: "500"}]
    services:
      portrait:
        opened: 2026-11-01T00:00:00+08:00
        mode: qps
        packs: [{order: P-1, calls: 10000, count: 2, delivered: 2024-02-29T10:00:00+08:00, paid: {cash: "176"}}]
        qps_purchases:
          - {order: Q-1, qps: 10, from: 2026-01-31T12:30:00+08:00, months: 1, paid: {cash: "7800"}}
          - {order: Q-2, qps: 20, from: 2026-01-31T12:30:00+08:00, days: 3, paid: {}}
      video:
        opened: 2026-11-01T00:00:00+08:00
  "2": {name: Two, services: {portrait: {opened: 2026-11-01T00:00:00Z, stopped: arrears}}}
"#;

/// Three files in a directory of their own, and perhaps secrets beside them.
pub(in crate::config) struct Files {
    pub dir: TempDir,
}

impl Files {
    pub(in crate::config) fn good() -> Self {
        let files = Self {
            dir: TempDir::new().unwrap(),
        };
        files.write("tollgate.yaml", TOLLGATE);
        files.write("catalog.yaml", CATALOG);
        files.write("accounts.yaml", ACCOUNTS);
        files
    }

    pub(in crate::config) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Replaces the one place where `from` stands.
    pub(in crate::config) fn change(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.dir.path().join(name)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {name}");
        self.write(name, text.replace(from, to));
    }

    pub(in crate::config) fn load(&self) -> Result<Config, Mistakes> {
        load(&self.dir.path().join("tollgate.yaml"))
    }

    pub(in crate::config) fn shown(&self, mistakes: &[Mistake]) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        mistakes
            .iter()
            .map(|m| m.to_string().replace(&dir, ""))
            .collect()
    }

    /// Every mistake, without the directory.
    pub(in crate::config) fn mistakes(&self) -> Vec<String> {
        match self.load() {
            Ok(_) => Vec::new(),
            Err(mistakes) => self.shown(&mistakes.0),
        }
    }

    pub(in crate::config) fn warnings(&self) -> Vec<String> {
        self.shown(&self.load().unwrap().warnings)
    }
}

pub(in crate::config) fn utc(text: &str) -> Utc {
    Utc(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

/// The shipped files, and an account with every key that they leave out.
pub(in crate::config) struct Shipped {
    pub files: Files,
    pub texts: [(&'static str, String); 2],
}

const EVERY_KEY: &str = r#"
  "every-key":
    name: Every Key
    keys: [{name: every-01, secret_id: AKIDEVERY, secret_key: hush-hush-hush, expires: 2026-12-01T00:00:00+08:00, allowed_addresses: [10.0.0.1/32]}]
    credit_limit: "250"
    adjustments:
      - {id: A-1, at: 2026-11-15T10:00:00+08:00, amount: "-12.50", reason: counted twice, by: Li Wei}
    services:
      portrait-segmentation:
        opened: 2026-01-01T00:00:00+08:00
        mode: qps
        stopped: violation
        packs:
          - {order: P-9, calls: 100000, count: 3, delivered: 2026-11-02T10:00:00+08:00, origin: promotion, refundable: false, refunded: 2026-11-03T10:00:00+08:00, paid: {cash: "1", income: "2", gift: "3", deduction: "4", voucher: "5"}}
          - {order: P-10, calls: 10000, delivered: 2026-11-02T10:00:00+08:00, refund_days: 30, refund_refused: {reason: ordered and returned, by: Wang Fang, at: 2026-11-04T10:00:00+08:00}, paid: {cash: "80"}, discount: {reason: a spring offer}}
        qps_purchases:
          - {order: Q-9, qps: 10, from: 2026-01-01T00:00:00+08:00, days: 3660, paid: {income: "1", gift: "2", deduction: "3"}, discount: {reason: a trial}}
    licences:
      - {order: L-9, package: com.example.camera, from: 2026-11-02T10:00:00+08:00, years: 2, paid: {cash: "15000"}, discount: {reason: two years}}
    licence_keys:
      - {sha256: 00000000000000000000000000000000000000000000000000000000000000bb, packages: [com.example.camera], expires: 2027-11-01T00:00:00+08:00}
"#;

impl Shipped {
    pub(in crate::config) fn new() -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let files = Files::good();
        let read = |name: &str| fs::read_to_string(shipped.join(name)).unwrap();
        files.write("tollgate.yaml", read("tollgate.yaml"));
        let catalog = read("catalog.yaml").replace("host_aliases: []", "host_aliases: [a.test]");
        let accounts = read("accounts.yaml") + EVERY_KEY;
        let texts = [("catalog.yaml", catalog), ("accounts.yaml", accounts)];
        for (name, text) in &texts {
            files.write(name, text);
        }
        Self { files, texts }
    }

    /// The sentences about one change; `None` when the changed file is refused.
    pub(in crate::config) fn changes(&self, name: &str, text: &str) -> Option<Vec<String>> {
        let old = self.files.load().unwrap_or_else(|e| panic!("{e}"));
        self.files.write(name, text);
        let new = self.files.load();
        let (_, original) = self.texts.iter().find(|(n, _)| *n == name).unwrap();
        self.files.write(name, original);
        Some(changes(
            &old.catalog,
            &old.accounts,
            &new.ok()?,
            utc("2026-11-24T00:00:00+08:00"),
        ))
    }

    pub(in crate::config) fn said(&self, name: &str, from: &str, to: &str) -> Vec<String> {
        let (_, text) = self.texts.iter().find(|(n, _)| *n == name).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {name}");
        let said = self.changes(name, &text.replace(from, to));
        said.unwrap_or_else(|| panic!("{from:?} -> {to:?} is refused"))
    }
}
