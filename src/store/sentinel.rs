//! The sentinels, and which node they call the primary.
//!
//! Owns the connections to them. Must never believe one sentinel against a newer word of another.

use crate::model::Host;
use crate::store::dial::{Dialer, Login, NoConnection, Wire};
use crate::store::options::{NodeAddress, StoreOptions, Topology};
use futures_util::future::join_all;
use redis::{Value, cmd, from_redis_value};
use std::collections::BTreeMap;

/// The sentinels of one runtime.
pub(crate) struct Sentinels {
    master: String,
    login: Login,
    all: Vec<Sentinel>,
}

struct Sentinel {
    node: NodeAddress,
    host: Host,
    wire: Option<Wire>,
}

/// Why no primary is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPrimary {
    /// None of them could be asked; the first one's trouble.
    #[error("sentinel {0}: {1}")]
    NoSentinel(NodeAddress, NoConnection),
    /// Those that answer do not know the name.
    #[error("no sentinel knows the master {0:?}")]
    UnknownMaster(String),
    /// There are none.
    #[error("no sentinel is configured")]
    None,
}

/// What one sentinel said.
enum Word {
    /// The primary, and the age of this knowledge: a higher one is younger.
    Primary(u64, NodeAddress),
    Unknown,
}

impl Sentinels {
    /// Opens nothing yet.
    pub(crate) fn new(options: &StoreOptions) -> Self {
        let master = match &options.topology {
            Topology::Sentinel { master, .. } => master.clone(),
            Topology::Single | Topology::Cluster => String::new(),
        };
        let sentinel = |node: &NodeAddress| Sentinel {
            host: Host::new(node.host.clone(), node.port),
            node: node.clone(),
            wire: None,
        };
        Self {
            master,
            login: Login::to_sentinels(options),
            all: options.nodes.iter().map(sentinel).collect(),
        }
    }

    /// Asks all at once: the youngest word counts, and among equals that of the most.
    ///
    /// # Errors
    /// Nobody knows it.
    pub(crate) async fn primary(&mut self, dialer: &Dialer) -> Result<NodeAddress, NoPrimary> {
        let (master, login) = (self.master.as_str(), &self.login);
        let words = self.all.iter_mut().map(|sentinel| async move {
            let word = sentinel.word(dialer, login, master).await;
            if word.is_err() {
                sentinel.wire = None;
            }
            (sentinel.node.clone(), word)
        });
        let mut votes: BTreeMap<(u64, NodeAddress), usize> = BTreeMap::new();
        let mut trouble = NoPrimary::None;
        for (sentinel, word) in join_all(words).await {
            match word {
                Ok(Word::Primary(age, node)) => *votes.entry((age, node)).or_default() += 1,
                Ok(Word::Unknown) => trouble = NoPrimary::UnknownMaster(master.to_owned()),
                Err(_) if matches!(trouble, NoPrimary::UnknownMaster(_)) => {}
                Err(why) => trouble = NoPrimary::NoSentinel(sentinel, why),
            }
        }
        let best = votes
            .into_iter()
            .max_by_key(|((age, _), votes)| (*age, *votes));
        best.map(|((_, node), _)| node).ok_or(trouble)
    }

    /// The standbys of the master that one of the sentinels knows, those that are down too.
    pub(crate) async fn standbys(&mut self) -> Vec<NodeAddress> {
        for wire in self
            .all
            .iter()
            .filter_map(|sentinel| sentinel.wire.as_ref())
        {
            let asked = cmd("SENTINEL").arg("REPLICAS").arg(&self.master).take();
            if let Ok(Value::Array(all)) = wire.call_soon(&asked).await {
                return all.into_iter().filter_map(a_node).collect();
            }
        }
        Vec::new()
    }
}

impl Sentinel {
    async fn word(
        &mut self,
        dialer: &Dialer,
        login: &Login,
        master: &str,
    ) -> Result<Word, NoConnection> {
        let wire = match self.wire.take() {
            Some(wire) => wire,
            None => dialer.dial(&self.node, &self.host, login).await?,
        };
        // Kept even if this is dropped while it waits.
        let wire = self.wire.insert(wire);
        let address = cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(master)
            .take();
        let details = cmd("SENTINEL").arg("MASTER").arg(master).take();
        // In a failover the first one says the new primary before the second one does, and the
        // second one how young that is.
        let (address, details) = tokio::join!(wire.call_soon(&address), wire.call_soon(&details));
        let Ok(Some((host, port))) = from_redis_value::<Option<(String, u16)>>(address?) else {
            return Ok(Word::Unknown);
        };
        let age = details.ok().and_then(|details| {
            let fields: BTreeMap<String, String> = from_redis_value(details).ok()?;
            fields.get("config-epoch")?.parse().ok()
        });
        Ok(Word::Primary(
            age.unwrap_or_default(),
            NodeAddress { host, port },
        ))
    }
}

/// A node in a list of a sentinel.
fn a_node(value: Value) -> Option<NodeAddress> {
    let fields: BTreeMap<String, String> = from_redis_value(value).ok()?;
    Some(NodeAddress {
        host: fields.get("ip")?.clone(),
        port: fields.get("port")?.parse().ok()?,
    })
}
