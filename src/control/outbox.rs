//! Stub.
use crate::config::{OutboxLogin, OutboxSettings, Settings};
use crate::control::replica::replica_name;
use crate::model::Utc;
use crate::nats::{NatsAddress, NatsLogin, NatsOptions, StreamOptions};
pub(in crate::control) const WATERMARKS: &str = "tollgate_watermarks";
pub(in crate::control) const COLLECTED: &str = "tollgate_collected";
pub(in crate::control) struct WatermarkValue {
    pub replica: String,
    pub at: Utc,
    pub seq: u64,
}
impl WatermarkValue {
    pub(in crate::control) fn decode(_: &[u8]) -> Result<Self, String> {
        Err(String::new())
    }
}
pub(in crate::control) fn collected_value(seq: u64) -> Vec<u8> {
    seq.to_string().into()
}
pub(in crate::control) fn nats_options(
    outbox: &OutboxSettings,
    settings: &Settings,
) -> NatsOptions {
    let servers = outbox
        .servers
        .iter()
        .map(|of| NatsAddress {
            host: of.host.clone(),
            port: of.port,
        })
        .collect();
    let login = match &outbox.login {
        OutboxLogin::Nobody => NatsLogin::Nobody,
        _ => NatsLogin::Nobody,
    };
    NatsOptions {
        servers,
        login,
        tls: false,
        ca: None,
        name: replica_name(settings),
    }
}
pub(in crate::control) fn stream_options(of: &OutboxSettings) -> StreamOptions {
    StreamOptions {
        stream: of.stream.clone(),
        max_bytes: of.max_bytes as i64,
        replicas: of.replicas,
    }
}
