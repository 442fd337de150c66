//! `tollgate.yaml`: how this gate runs.
//!
//! Owns its keys and defaults. Must never hold anything about what is sold or to whom.

use crate::config::reader::{Item, quoted};
use crate::words::Durability;
use ipnet::{IpNet, Ipv4Net};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// The whole of `tollgate.yaml`, save the names of the other two files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The public listener. Beyond loopback only with [`Self::behind_tls`] (P6).
    pub listen: SocketAddr,
    /// Something in front of this gate speaks TLS.
    pub behind_tls: bool,
    /// Worker threads; `None` is one a core.
    pub workers: Option<NonZeroUsize>,
    /// The admin listener.
    pub admin: AdminSettings,
    /// Where admitted calls go.
    pub upstream: UpstreamSettings,
    /// Where records go.
    pub ledger: LedgerSettings,
    /// The longest a call waits for its start (P2); at most 200 ms.
    pub max_delay: Duration,
    /// How many accounts have metric series of their own; at least 1.
    pub metric_accounts: usize,
    /// Where notices are posted (R14); `None` is nowhere.
    pub notices: Option<NoticeSettings>,
    /// What holds everything finite (P7).
    pub limits: Limits,
    /// Peers whose `X-Forwarded-For` names the real peer.
    pub trusted_proxies: Vec<IpNet>,
}

/// The `admin` section.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Beyond loopback only with a token.
    pub listen: SocketAddr,
    /// What callers of the admin listener must present; not empty.
    pub token: Option<SecretString>,
}

/// The `upstream` section.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// The one server behind this gate.
    pub endpoint: Endpoint,
    /// From dialling to connected; above zero.
    pub connect_timeout: Duration,
    /// From the request's start to the response head; shorter than [`Limits::request_timeout`].
    pub response_timeout: Duration,
    /// How long a connection is kept for the next call; above zero.
    pub idle_timeout: Duration,
    /// How old a connection may become before it is not used again; `None` is any age.
    pub max_age: Option<Duration>,
}

/// A server that speaks plain HTTP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// Not zero.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    /// `host:port`, as a `Host` field spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The `ledger` section.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// Joined to the directory of `tollgate.yaml`.
    pub path: PathBuf,
    /// What an answer waits for.
    pub durability: Durability,
    /// How long raw records are kept; at least a day.
    pub retain_records: Duration,
    /// How long a record may wait for the disk before calls are refused (P7); more than half of
    /// [`Limits::request_timeout`] counts as that half.
    pub stall_after: Duration,
    /// Whether `serve` creates a ledger that is not there.
    pub create: bool,
}

/// The `notices` section.
#[derive(Clone, Debug)]
pub struct NoticeSettings {
    /// Who takes them.
    pub webhook: WebhookUrl,
    /// What it wants to see as `Authorization: Bearer`; visible ASCII.
    pub token: Option<SecretString>,
}

/// An address that notices are posted to. What follows the host is often a secret of the receiver's,
/// so it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    /// `https`, else `http`.
    pub tls: bool,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// Not zero.
    pub port: u16,
    /// Path and query; begins with `/`.
    pub path: String,
}

impl fmt::Display for WebhookUrl {
    /// As far as it may be seen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl WebhookUrl {
    /// `HOST`, or `HOST:PORT` where the port is not the scheme's own: a `Host` field.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        let host = Endpoint {
            host: host.clone(),
            port: *port,
        }
        .to_string();
        let own = if self.tls { ":443" } else { ":80" };
        host.strip_suffix(own).unwrap_or(&host).to_owned()
    }
}

/// The `limits` section.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections on the public listener; at least 1.
    pub connections: usize,
    /// The file does not write [`Self::connections`]: fewer will do when the system allows fewer open files.
    pub connections_adapt: bool,
    /// How long a client's connection may stay without a request; above zero.
    pub idle_timeout: Duration,
    /// How long a stopping gate takes new connections while `/readyz` says 503.
    pub drain_notice: Duration,
    /// Bytes of one request head; 8 KiB to 1 MiB.
    pub header_bytes: usize,
    /// Bytes of one request body; at least 1.
    pub body_bytes: u64,
    /// Bytes of all request bodies in memory; at least eight times [`Self::body_bytes`].
    pub body_memory: u64,
    /// From a request's first byte to the end of its answer's head; above zero.
    pub request_timeout: Duration,
    /// How long a stopping gate waits for calls in flight.
    pub drain: Duration,
}

/// Where the other two files are, as far as it is known.
#[derive(Default)]
pub(in crate::config) struct Paths<'a> {
    pub catalog: Option<Item<'a>>,
    pub accounts: Option<Item<'a>>,
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

pub(in crate::config) fn read(root: Item<'_>) -> (Option<Settings>, Paths<'_>) {
    let Some(mut fields) = root.fields() else {
        return (None, Paths::default());
    };
    let behind_tls = fields.or("behind_tls", false, Item::flag);
    let listen_at = fields.get("listen");
    let listen = fields.required("listen", "127.0.0.1:8080", address);
    if let (Some(item), Some(listen), Some(false)) = (listen_at, listen, behind_tls)
        && !listen.ip().is_loopback()
    {
        item.refuse::<()>(format!(
            "{listen} takes keys in clear text from other machines: listen on 127.0.0.1, or write `behind_tls: true` when TLS ends in front of this gate"
        ));
    }
    let workers = fields.or("workers", None, workers);
    let default = AdminSettings {
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090),
        token: None,
    };
    let admin_at = fields.get("admin");
    let admin = fields.or("admin", default, admin);
    if let (Some(listen), Some(admin)) = (listen, &admin)
        && listen == admin.listen
        && listen.port() != 0
    {
        admin_at.or(listen_at).unwrap_or(root).refuse::<()>(format!(
            "the public listener has {listen} too: give the admin listener a port of its own"
        ));
    }
    let limits_at = fields.get("limits");
    let limits = limits(limits_at);
    let example = "{endpoints: [\"http://127.0.0.1:8000\"]}";
    let request_timeout = limits.as_ref().map(|l| l.request_timeout);
    let upstream_at = fields.get("upstream");
    let upstream = fields.required("upstream", example, |item| upstream(item, request_timeout));
    let own = [
        ("listen", listen),
        ("admin.listen", admin.as_ref().map(|admin| admin.listen)),
    ];
    for (key, listen) in own {
        if let (Some(listen), Some(upstream)) = (listen, &upstream)
            && leads_to(&upstream.endpoint, listen)
        {
            upstream_at.unwrap_or(root).refuse::<()>(format!(
                "{} is this gate's own `{key}`, {listen}, so that each call would come back to it: name the service behind the gate",
                upstream.endpoint
            ));
        }
    }
    let paths = Paths {
        catalog: fields.required("catalog", "catalog.yaml", Some),
        accounts: fields.required("accounts", "accounts.yaml", Some),
    };
    let ledger = fields.required("ledger", "{path: ../var/ledger.db}", ledger);
    let max_delay = fields.or("admission", 50 * MS, |item| {
        let mut fields = item.fields()?;
        let max_delay = fields.or("max_delay", 50 * MS, |i| {
            i.duration(Duration::ZERO..=200 * MS)
        });
        fields.close();
        max_delay
    });
    let metric_accounts = fields.or("metrics", 1000, |item| {
        let mut fields = item.fields()?;
        let accounts = fields.or("accounts", 1000, |i| count(i, 100_000));
        fields.close();
        accounts
    });
    let notices = fields.optional("notices", notices);
    let trusted_proxies = fields.or("trusted_proxies", Vec::new(), |item| item.each(network));
    fields.close();

    let settings = || {
        Some(Settings {
            listen: listen?,
            behind_tls: behind_tls?,
            workers: workers?,
            admin: admin?,
            upstream: upstream?,
            ledger: ledger?,
            max_delay: max_delay?,
            metric_accounts: metric_accounts?,
            notices: notices?,
            limits: limits?,
            trusted_proxies: trusted_proxies?,
        })
    };
    (settings(), paths)
}

fn address(item: Item<'_>) -> Option<SocketAddr> {
    item.parsed("IP:PORT, such as 127.0.0.1:8080", |text| text.parse().ok())
}

fn count(item: Item<'_>, most: u32) -> Option<usize> {
    item.whole32(1..=most).and_then(|n| usize::try_from(n).ok())
}

fn workers(item: Item<'_>) -> Option<Option<NonZeroUsize>> {
    if item.is_text("auto") {
        return Some(None);
    }
    count(item, 1024).map(NonZeroUsize::new)
}

fn admin(item: Item<'_>) -> Option<AdminSettings> {
    let mut fields = item.fields()?;
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
    let listen_at = fields.get("listen");
    let listen = fields.or("listen", default, address);
    let token = fields.optional("token", Item::secret);
    fields.close();
    let (listen, token) = (listen?, token?);
    if token.is_none() && !listen.ip().is_loopback() {
        return listen_at
            .unwrap_or(item)
            .refuse(format!("{listen} is open to other machines: listen on 127.0.0.1, or add `token: {{file: PATH}}`"));
    }
    Some(AdminSettings { listen, token })
}

fn upstream(item: Item<'_>, request_timeout: Option<Duration>) -> Option<UpstreamSettings> {
    let mut fields = item.fields()?;
    let endpoint = fields.required(
        "endpoints",
        "[\"http://127.0.0.1:8000\"]",
        |item| match item.list()?.as_slice() {
            [one] => endpoint(*one),
            [] => item.refuse("is empty: name one, such as http://127.0.0.1:8000"),
            more => item.refuse(format!(
                "{} endpoints: balancing is not built yet; name one",
                more.len()
            )),
        },
    );
    let connect_timeout = fields.or("connect_timeout", SECOND, |i| i.duration(MS..=HOUR));
    let response_at = fields.get("response_timeout");
    let response_timeout = fields.or("response_timeout", 50 * SECOND, |i| i.duration(MS..=HOUR));
    let idle_timeout = fields.or("idle_timeout", 30 * SECOND, |i| i.duration(MS..=DAY));
    let max_age = fields.optional("max_age", |i| i.duration(SECOND..=365 * DAY));
    fields.close();
    if let (Some(response), Some(request)) = (response_timeout, request_timeout)
        && response >= request
    {
        return response_at.unwrap_or(item).refuse(format!(
            "response_timeout ({response:?}) must be shorter than limits.request_timeout ({request:?}), so that a slow upstream is answered for: shorten it"
        ));
    }
    Some(UpstreamSettings {
        endpoint: endpoint?,
        connect_timeout: connect_timeout?,
        response_timeout: response_timeout?,
        idle_timeout: idle_timeout?,
        max_age: max_age?,
    })
}

fn endpoint(item: Item<'_>) -> Option<Endpoint> {
    const WHAT: &str = "http://HOST:PORT, such as http://127.0.0.1:8000";
    let text = item.text()?;
    if text.starts_with("https://") {
        return item.refuse(format!(
            "{}: TLS to the upstream is not built yet; expected {WHAT}",
            quoted(text)
        ));
    }
    let uri = item.parsed(WHAT, |text| text.parse::<http::Uri>().ok())?;
    let plain = uri.scheme_str() == Some("http")
        && uri.authority().is_some_and(|a| !a.as_str().contains('@'));
    if !plain {
        return item.parsed(WHAT, |_| None);
    }
    if !matches!(
        uri.path_and_query().map(|p| p.as_str()),
        None | Some("" | "/")
    ) || text.contains('#')
    {
        return item.refuse(format!(
            "{}: a call keeps its own path; leave out what follows HOST:PORT",
            quoted(text)
        ));
    }
    item.parsed(WHAT, |_| host_and_port(&uri, 80))
        .map(|(host, port)| Endpoint { host, port })
}

/// Whether whoever connects to the endpoint reaches this listener. A name other than `localhost` is not looked up: a name
/// server that is slow must not hold up who reads a file.
fn leads_to(endpoint: &Endpoint, listener: SocketAddr) -> bool {
    const LOOPBACK: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let name = endpoint.host.trim_end_matches('.');
    let short = || Some(IpAddr::V4(short_address(name)?));
    let address = name.parse().ok().or_else(short);
    let addresses = match address.map(|address: IpAddr| address.to_canonical()) {
        // The system takes a connection to the unspecified address for one to itself.
        Some(IpAddr::V4(address)) if address.is_unspecified() => vec![LOOPBACK[0]],
        Some(address) if address.is_unspecified() => LOOPBACK.to_vec(),
        Some(address) => vec![address],
        None if name.eq_ignore_ascii_case("localhost") => LOOPBACK.to_vec(),
        None => Vec::new(),
    };
    let own = listener.ip().to_canonical();
    let is_reached = |address: &IpAddr| match own.is_unspecified() {
        true => (own.is_ipv6() || address.is_ipv4()) && is_of_this_machine(*address),
        false => *address == own,
    };
    endpoint.port == listener.port() && addresses.iter().any(is_reached)
}

/// An address of IPv4 as the system's resolver reads it (`inet_aton`): one to four numbers, decimal, octal or hexadecimal, of
/// which the last fills all bytes that are left.
fn short_address(name: &str) -> Option<Ipv4Addr> {
    let number = |text: &str| {
        let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(digits) => (digits, 16),
            None if text.starts_with('0') => (text, 8),
            None => (text, 10),
        };
        let is_unsigned = !digits.starts_with('+');
        u32::from_str_radix(digits, radix)
            .ok()
            .filter(|_| is_unsigned)
    };
    let mut bytes = name.split('.').map(number).collect::<Option<Vec<u32>>>()?;
    let last = bytes.pop()?;
    let left = 32_u32.checked_sub(8 * u32::try_from(bytes.len()).ok()?)?;
    if left == 0 || bytes.iter().any(|byte| *byte > 255) || u64::from(last) >> left > 0 {
        return None;
    }
    let first = bytes.iter().fold(0, |sum, byte| sum << 8 | byte);
    let address = first.checked_shl(left).unwrap_or(0) | last;
    Some(Ipv4Addr::from_bits(address))
}

/// Whether an address is this machine's own: then a socket that connects to it has it, too. Nothing is sent.
fn is_of_this_machine(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    address.is_loopback() || connected.is_ok_and(|own| own.ip() == address)
}

/// Not `uri.port_u16()`: it is as silent about port 99999 as about none.
fn host_and_port(uri: &http::Uri, default: u16) -> Option<(String, u16)> {
    let host = uri.host()?;
    let port = match uri.authority()?.as_str().strip_prefix(host)? {
        "" => default,
        colon_port => colon_port.strip_prefix(':')?.parse().ok()?,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (port != 0 && !host.is_empty()).then(|| (host.to_owned(), port))
}

fn notices(item: Item<'_>) -> Option<NoticeSettings> {
    let mut fields = item.fields()?;
    let webhook = fields.required("webhook", "https://127.0.0.1:8443/notices", webhook);
    let token_at = fields.get("token");
    let token = fields.optional("token", |item| {
        let token = item.secret()?;
        if !token.expose_secret().bytes().all(|b| b.is_ascii_graphic()) {
            return item
                .refuse("a header cannot carry it: use visible ASCII characters without spaces");
        }
        Some(token)
    });
    fields.close();
    let (webhook, token) = (webhook?, token?);
    let near = webhook.host == "localhost"
        || webhook
            .host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    if !webhook.tls && !near && token.is_some() {
        token_at.unwrap_or(item).warn(format!(
            "{webhook} gets the token in clear text: use https, or a relay on this machine"
        ));
    }
    Some(NoticeSettings { webhook, token })
}

/// No message repeats the text: such a URL often holds a secret of the receiver's.
fn webhook(item: Item<'_>) -> Option<WebhookUrl> {
    const WHAT: &str =
        "is not an address to post to: write http://HOST:PORT/PATH or https://HOST:PORT/PATH";
    let text = item.text()?;
    let Ok(uri) = text.parse::<http::Uri>() else {
        return item.refuse(WHAT);
    };
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return item.refuse(WHAT),
    };
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return item.refuse("holds a name or a password: leave out what stands before @, and give the receiver's secret as `token: {file: PATH}`");
    }
    if text.contains('#') {
        return item.refuse("holds a fragment, which is never sent: leave out # and what follows");
    }
    let Some((host, port)) = host_and_port(&uri, if tls { 443 } else { 80 }) else {
        return item.refuse(WHAT);
    };
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    // `http://host?query` has a query without a path.
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(WebhookUrl {
        tls,
        host,
        port,
        path: format!("{slash}{path}"),
    })
}

fn ledger(item: Item<'_>) -> Option<LedgerSettings> {
    let mut fields = item.fields()?;
    let path = fields.required("path", "../var/ledger.db", Item::text);
    let spellings = Durability::ALL
        .iter()
        .map(|d| (d.as_str(), *d))
        .collect::<Vec<_>>();
    let durability = fields.or("durability", Durability::Strict, |i| i.choice(&spellings));
    let retain_records = fields.or("retain_records", 100 * DAY, |i| {
        i.duration(DAY..=36_500 * DAY)
    });
    let stall_after = fields.or("stall_after", 2 * SECOND, |i| {
        i.duration(Duration::from_millis(100)..=60 * SECOND)
    });
    let create = fields.or("when_missing", false, |i| {
        i.choice(&[("create", true), ("refuse", false)])
    });
    fields.close();
    Some(LedgerSettings {
        path: item.source.beside(path?),
        durability: durability?,
        retain_records: retain_records?,
        stall_after: stall_after?,
        create: create?,
    })
}

fn limits(item: Option<Item<'_>>) -> Option<Limits> {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    let default = Limits {
        connections: 10_000,
        connections_adapt: true,
        idle_timeout: 75 * SECOND,
        drain_notice: SECOND,
        header_bytes: 32 << 10,
        body_bytes: 10 * MIB,
        body_memory: 512 * MIB,
        request_timeout: 60 * SECOND,
        drain: 60 * SECOND,
    };
    let Some(item) = item else {
        return Some(default);
    };
    let mut fields = item.fields()?;
    let connections_adapt = fields.get("connections").is_none();
    let connections = fields.or("connections", default.connections, |i| count(i, 1_000_000));
    let idle_timeout = fields.or("idle_timeout", default.idle_timeout, |i| {
        i.duration(SECOND..=DAY)
    });
    let drain_notice = fields.or("drain_notice", default.drain_notice, |i| {
        i.duration(Duration::ZERO..=HOUR)
    });
    // The HTTP server cannot work with a head buffer below 8 KiB.
    let header_bytes = fields.or("header_bytes", default.header_bytes, |i| {
        i.size(8 * KIB..=128 * KIB)
            .and_then(|n| usize::try_from(n).ok())
    });
    let body_bytes = fields.or("body_bytes", default.body_bytes, |i| i.size(1..=1024 * MIB));
    let memory_at = fields.get("body_memory");
    let body_memory = fields.or("body_memory", default.body_memory, |i| i.size(1..=1 << 40));
    let request_timeout = fields.or("request_timeout", default.request_timeout, |i| {
        i.duration(SECOND..=HOUR)
    });
    let drain_at = fields.get("drain");
    let drain = fields.or("drain", default.drain, |i| {
        i.duration(Duration::ZERO..=HOUR)
    });
    fields.close();
    let limits = Limits {
        connections: connections?,
        connections_adapt,
        idle_timeout: idle_timeout?,
        drain_notice: drain_notice?,
        header_bytes: header_bytes?,
        body_bytes: body_bytes?,
        body_memory: body_memory?,
        request_timeout: request_timeout?,
        drain: drain?,
    };
    if limits.body_memory / 8 < limits.body_bytes {
        let least = bytesize::ByteSize(limits.body_bytes.saturating_mul(8));
        return memory_at.unwrap_or(item).refuse(format!(
            "no peer and no credential holds more than 1/8 of body_memory, so the largest body would never fit: write at least {least}, or lower body_bytes"
        ));
    }
    if limits.drain < limits.request_timeout {
        drain_at.unwrap_or(item).warn(format!(
            "drain ({:?}) is shorter than request_timeout ({:?}): a stopping gate may cut calls off",
            limits.drain, limits.request_timeout
        ));
    }
    Some(limits)
}

fn network(item: Item<'_>) -> Option<IpNet> {
    let text = item.text()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return item.refuse(format!(
            "{text} has no prefix length: write {}",
            IpNet::from(ip)
        ));
    }
    let Ok(IpNet::V6(mapped)) = text.parse() else {
        return item.parsed("a network such as 10.0.0.0/8", |text| text.parse().ok());
    };
    let Some(address) = mapped.addr().to_ipv4_mapped() else {
        return Some(mapped.into());
    };
    // Addresses are compared as IPv4 ones, whichever way they came.
    match mapped.prefix_len().checked_sub(MAPPED_BITS) {
        Some(length) => Ipv4Net::new(address, length).ok().map(IpNet::V4),
        None => item.refuse(format!(
            "{text} is no network of IPv4 addresses: write {address}/{}",
            mapped.prefix_len().min(32)
        )),
    }
}

/// The first bits of an IPv6 address that holds an IPv4 one.
const MAPPED_BITS: u8 = 96;
