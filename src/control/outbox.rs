//! Stub.
use crate::config::{OutboxSettings, Settings};
use crate::model::Utc;
use crate::nats::{NatsLogin, NatsOptions, StreamOptions};
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
pub(in crate::control) fn nats_options(_: &OutboxSettings, _: &Settings) -> NatsOptions {
    NatsOptions {
        servers: Vec::new(),
        login: NatsLogin::Nobody,
        tls: false,
        ca: None,
        name: String::new(),
    }
}
pub(in crate::control) fn stream_options(_: &OutboxSettings) -> StreamOptions {
    StreamOptions {
        stream: String::new(),
        max_bytes: 0,
        replicas: 1,
    }
}
