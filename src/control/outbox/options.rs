//! The settings of the outbox, as the room of NATS knows them.

use crate::config::{Endpoint, OutboxLogin, OutboxSettings, Settings};
use crate::control::replica::replica_name;
use crate::nats::{NatsAddress, NatsCertificate, NatsLogin, NatsOptions, StreamOptions};

/// How NATS is reached.
pub(in crate::control) fn nats_options(
    written: &OutboxSettings,
    settings: &Settings,
) -> NatsOptions {
    let server = |server: &Endpoint| NatsAddress {
        host: server.host.clone(),
        port: server.port,
    };
    NatsOptions {
        servers: written.servers.iter().map(server).collect(),
        login: match &written.login {
            OutboxLogin::Nobody => NatsLogin::Nobody,
            OutboxLogin::User { username, password } => NatsLogin::User {
                username: username.clone(),
                password: password.clone(),
            },
            OutboxLogin::Credentials(text) => NatsLogin::Credentials(text.clone()),
            OutboxLogin::NkeySeed(seed) => NatsLogin::NkeySeed(seed.clone()),
        },
        tls: written.tls,
        ca: written.ca.clone(),
        certificate: written.certificate.as_ref().map(|shown| NatsCertificate {
            chain: shown.chain.clone(),
            key: shown.key.clone(),
        }),
        name: format!("tollgate {}", replica_name(settings)),
    }
}

/// What the stream must be.
pub(in crate::control) fn stream_options(written: &OutboxSettings) -> StreamOptions {
    StreamOptions {
        stream: written.stream.clone(),
        max_bytes: i64::try_from(written.max_bytes).unwrap_or(i64::MAX),
        replicas: written.replicas,
    }
}
