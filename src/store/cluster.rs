//! The nodes of a Cluster, and which of them holds which slots.
//!
//! Owns the reading of `CLUSTER SLOTS`. Must never follow a redirection with a question: what a
//! node says of another one only leads to a new look.

use crate::model::Host;
use crate::store::bucket::Bucket;
use crate::store::dial::{Dialer, Login, NoConnection, Wire};
use crate::store::options::{NodeAddress, StoreOptions};
use redis::{Value, cmd};
use std::collections::BTreeMap;

/// Slots that follow each other on one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    first: u16,
    last: u16,
    /// The primary, then its standbys.
    pub(crate) nodes: Vec<NodeAddress>,
}

/// The nodes of a Cluster, as one runtime asks them.
pub(crate) struct Cluster {
    login: Login,
    seeds: Vec<NodeAddress>,
    known: Vec<NodeAddress>,
    turn: usize,
    wire: Option<(NodeAddress, Wire)>,
}

impl Cluster {
    /// Opens nothing yet.
    pub(crate) fn new(options: &StoreOptions) -> Self {
        Self {
            login: Login::to_nodes(options),
            seeds: options.nodes.clone(),
            known: Vec::new(),
            turn: 0,
            wire: None,
        }
    }

    /// The shards, as the first node says them that can be asked.
    ///
    /// # Errors
    /// The trouble of the last one that was asked.
    pub(crate) async fn shards(
        &mut self,
        dialer: &Dialer,
    ) -> Result<Vec<Shard>, (NodeAddress, NoConnection)> {
        let mut candidates = self.known.clone();
        let seeds = self.seeds.iter();
        candidates.extend(seeds.filter(|seed| !self.known.contains(seed)).cloned());
        let mut trouble = None;
        for _ in 0..candidates.len() {
            let Some(node) = candidates.get(self.turn % candidates.len()) else {
                break;
            };
            match self.ask(dialer, node).await {
                Ok(shards) => {
                    let nodes = shards.iter().flat_map(|shard| &shard.nodes);
                    self.known = nodes.cloned().collect();
                    self.known.sort();
                    self.known.dedup();
                    return Ok(shards);
                }
                Err(why) => {
                    trouble = Some((node.clone(), why));
                    self.ask_another();
                }
            }
        }
        Err(trouble.unwrap_or_else(|| {
            let nobody = NodeAddress {
                host: String::new(),
                port: 0,
            };
            (nobody, NoConnection::Silent)
        }))
    }

    /// The next look asks another node: what this one says does not work.
    pub(crate) fn ask_another(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        self.wire = None;
    }

    async fn ask(
        &mut self,
        dialer: &Dialer,
        node: &NodeAddress,
    ) -> Result<Vec<Shard>, NoConnection> {
        let wire = match self.wire.take() {
            Some((known, wire)) if known == *node => wire,
            _ => {
                let host = Host::new(node.host.clone(), node.port);
                dialer.dial(node, &host, &self.login).await?
            }
        };
        let shards = shards(&wire, node).await?;
        self.wire = Some((node.clone(), wire));
        Ok(shards)
    }
}

/// What the node at the other end says.
async fn shards(wire: &Wire, asked: &NodeAddress) -> Result<Vec<Shard>, NoConnection> {
    let answer = wire.call_soon(cmd("CLUSTER").arg("SLOTS")).await?;
    let Value::Array(all) = answer else {
        return Err(NoConnection::Refused("CLUSTER SLOTS: no list".to_owned()));
    };
    Ok(all
        .into_iter()
        .filter_map(|one| shard(one, asked))
        .collect())
}

fn shard(value: Value, asked: &NodeAddress) -> Option<Shard> {
    let Value::Array(values) = value else {
        return None;
    };
    let [Value::Int(first), Value::Int(last), nodes @ ..] = values.as_slice() else {
        return None;
    };
    Some(Shard {
        first: u16::try_from(*first).ok()?,
        last: u16::try_from(*last).ok()?,
        nodes: nodes
            .iter()
            .filter_map(|node| a_node(node, asked))
            .collect(),
    })
}

/// A node without an address is where we asked, and one with `?` has not been met yet.
fn a_node(value: &Value, asked: &NodeAddress) -> Option<NodeAddress> {
    let Value::Array(values) = value else {
        return None;
    };
    let [host, Value::Int(port), ..] = values.as_slice() else {
        return None;
    };
    let host = match host {
        Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
        _ => String::new(),
    };
    let host = match host.as_str() {
        "" => asked.host.clone(),
        "?" => return None,
        _ => host,
    };
    let port = u16::try_from(*port).ok()?;
    Some(NodeAddress { host, port })
}

/// The buckets of each primary. A bucket whose slot nobody has is nobody's.
pub(crate) fn primaries(shards: &[Shard], of: u16) -> BTreeMap<NodeAddress, Vec<Bucket>> {
    let mut primaries: BTreeMap<NodeAddress, Vec<Bucket>> = BTreeMap::new();
    for bucket in Bucket::all(of) {
        let slot = bucket.slot();
        let holds = |shard: &&Shard| (shard.first..=shard.last).contains(&slot);
        let primary = shards.iter().find(holds).and_then(|it| it.nodes.first());
        if let Some(primary) = primary {
            primaries.entry(primary.clone()).or_default().push(bucket);
        }
    }
    primaries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reply: &str) -> Option<Shard> {
        let asked = NodeAddress {
            host: "seed".to_owned(),
            port: 1,
        };
        let value = redis::parse_redis_value(reply.as_bytes()).unwrap();
        shard(value, &asked)
    }

    #[test]
    fn slots_lead_to_the_primary_which_stands_first_and_strange_answers_to_nobody() {
        let node = |host: &str| format!("*3\r\n{host}:6379\r\n$1\r\nx\r\n");
        let shard = read(&format!(
            "*4\r\n:0\r\n:16383\r\n{}{}",
            node("$2\r\nn1\r\n"),
            node("$2\r\nn2\r\n")
        ))
        .unwrap();
        let of = primaries(std::slice::from_ref(&shard), 256);
        assert_eq!(of.len(), 1);
        assert_eq!(of[&shard.nodes[0]].len(), 256);
        assert_eq!(shard.nodes[0].to_string(), "n1:6379");
        for empty in ["$-1\r\n", "$0\r\n\r\n"] {
            let shard = read(&format!("*3\r\n:0\r\n:9\r\n{}", node(empty))).unwrap();
            assert_eq!(shard.nodes[0].to_string(), "seed:6379");
        }
        let unmet = read(&format!("*3\r\n:0\r\n:9\r\n{}", node("$1\r\n?\r\n"))).unwrap();
        assert_eq!(unmet.nodes, []);
        for strange in [
            "+OK\r\n",
            "*0\r\n",
            "*2\r\n:-1\r\n:9\r\n",
            "*2\r\n:0\r\n:70000\r\n",
        ] {
            assert_eq!(read(strange), None, "{strange:?}");
        }
    }
}
