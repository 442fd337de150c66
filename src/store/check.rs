//! Whether a store is fit to hold the windows, before the first call depends on it.
//!
//! Owns what a store must have, and the words that say what to do when it has not. Must never take
//! a doubt for a yes: a store that forgets or evicts a window refills it.

use crate::model::{Host, Utc};
use crate::store::bucket::Bucket;
use crate::store::check_error::{CheckError, CheckWarning, NodeFault};
use crate::store::cluster::{Cluster, primaries};
use crate::store::core::nonce;
use crate::store::dial::{Dialer, Login, NoConnection, Wire, shown};
use crate::store::fcall;
use crate::store::fitness;
use crate::store::options::{NodeAddress, StoreOptions, Topology};
use crate::store::question::{QuestionTerms, Said};
use crate::store::sentinel::{NoPrimary, Sentinels};
use redis::{Cmd, Value, cmd, from_redis_value};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Fewer nodes cannot lose one and go on with the fence.
const LEAST_NODES: usize = 3;
/// The oldest Redis with functions.
const LEAST_VERSION: u32 = 7;

/// A store that may be used.
#[derive(Debug)]
pub struct Checked {
    /// What is not as it should be, and does no harm to the cap.
    pub warnings: Vec<CheckWarning>,
    /// Each store that does not know its past grants nothing for so long.
    pub hold: Duration,
}

/// The nodes that must be looked at.
struct Nodes {
    /// Each with a bucket that it holds.
    primaries: Vec<(NodeAddress, Bucket)>,
    standbys: Vec<NodeAddress>,
}

/// Looks at each node of the store, loads the library on the primaries, and asks each twice: the
/// hold of a store that is new begins here.
///
/// # Errors
/// The first thing that makes the store unfit, with its remedy.
pub async fn check(options: &StoreOptions) -> Result<Checked, CheckError> {
    let dialer = Dialer::new(options)?;
    let mut warnings = Vec::new();
    let nodes = find(options, &dialer, &mut warnings).await?;
    let is_fenced = !matches!(options.topology, Topology::Single);
    let login = Login::to_nodes(options);
    for (node, bucket) in nodes.all() {
        let host = Host::new(node.host.clone(), node.port);
        let wire = match dialer.dial(node, &host, &login).await {
            Ok(wire) => wire,
            // A store that lost a standby is asked all the same, so it may be begun with.
            Err(why) if bucket.is_none() && may_be_down(&why) => {
                warnings.push(CheckWarning::StandbyAway(node.clone(), why.to_string()));
                continue;
            }
            Err(why) => return Err(CheckError::NoConnection(node.clone(), why)),
        };
        let fault = |fault| CheckError::Unfit(node.clone(), fault);
        check_version(&wire).await.map_err(fault)?;
        let settings = fitness::look(&wire, is_fenced).await.map_err(fault)?;
        if settings.is_persistent() {
            warnings.push(CheckWarning::Persistent(node.clone()));
        }
        if let Some(bucket) = bucket {
            check_function(&wire, options, bucket)
                .await
                .map_err(fault)?;
        }
    }
    Ok(Checked {
        warnings,
        hold: options.hold(),
    })
}

impl Nodes {
    fn all(&self) -> impl Iterator<Item = (&NodeAddress, Option<Bucket>)> {
        let primaries = self.primaries.iter();
        let primaries = primaries.map(|(node, bucket)| (node, Some(*bucket)));
        primaries.chain(self.standbys.iter().map(|node| (node, None)))
    }
}

/// Whether this is what a node that is down, or cut off, looks like.
fn may_be_down(why: &NoConnection) -> bool {
    matches!(
        why,
        NoConnection::Closed(_) | NoConnection::Silent | NoConnection::NoName(_)
    )
}

async fn find(
    options: &StoreOptions,
    dialer: &Dialer,
    warnings: &mut Vec<CheckWarning>,
) -> Result<Nodes, CheckError> {
    let first = Bucket::all(options.buckets()).next();
    let first = first.ok_or(CheckError::NoNode)?;
    let nodes = match &options.topology {
        Topology::Single => {
            let node = options.nodes.first().ok_or(CheckError::NoNode)?;
            return Ok(Nodes {
                primaries: vec![(node.clone(), first)],
                standbys: Vec::new(),
            });
        }
        Topology::Sentinel { .. } => {
            let mut sentinels = Sentinels::new(options);
            let primary = sentinels.primary(dialer).await.map_err(|why| match why {
                NoPrimary::NoSentinel(node, why) => CheckError::NoSentinel(node, why),
                NoPrimary::UnknownMaster(master) => CheckError::UnknownMaster(master),
                NoPrimary::None => CheckError::NoNode,
            })?;
            let mut standbys = sentinels.standbys().await;
            standbys.retain(|node| *node != primary);
            Nodes {
                primaries: vec![(primary, first)],
                standbys,
            }
        }
        Topology::Cluster => in_cluster(options, dialer, warnings).await?,
    };
    match nodes.all().count() {
        count if count < LEAST_NODES => Err(CheckError::TooFewNodes(count)),
        _ => Ok(nodes),
    }
}

async fn in_cluster(
    options: &StoreOptions,
    dialer: &Dialer,
    warnings: &mut Vec<CheckWarning>,
) -> Result<Nodes, CheckError> {
    if options.database != 0 {
        return Err(CheckError::DatabaseOfCluster(options.database));
    }
    let mut cluster = Cluster::new(options);
    let shards = cluster.shards(dialer).await;
    let shards = shards.map_err(|(node, why)| match why {
        NoConnection::Refused(said) if said.contains("cluster support disabled") => {
            CheckError::NoCluster(node)
        }
        why => CheckError::NoConnection(node, why),
    })?;
    let of = options.buckets();
    let holders = primaries(&shards, of);
    if holders.values().map(Vec::len).sum::<usize>() < usize::from(of) {
        return Err(CheckError::SlotsMissing);
    }
    let standbys = |primary: &NodeAddress| {
        let shard = shards.iter().find(|it| it.nodes.first() == Some(primary));
        shard.map_or(&[][..], |shard| shard.nodes.get(1..).unwrap_or_default())
    };
    let few = holders
        .keys()
        .filter(|node| standbys(node).len() < LEAST_NODES - 1);
    warnings.extend(few.cloned().map(CheckWarning::FewStandbys));
    let standbys: BTreeSet<NodeAddress> = holders.keys().flat_map(standbys).cloned().collect();
    let first = |(node, buckets): (NodeAddress, Vec<Bucket>)| Some((node, *buckets.first()?));
    Ok(Nodes {
        standbys: standbys.into_iter().collect(),
        primaries: holders.into_iter().filter_map(first).collect(),
    })
}

/// The greeting needs no right, and says who it is.
async fn check_version(wire: &Wire) -> Result<(), NodeFault> {
    let said = wire.call_soon(cmd("HELLO").arg(2)).await;
    let fields: BTreeMap<String, Value> = match said {
        Ok(value) => {
            let Value::Array(values) = value else {
                return Err(NodeFault::Unknown);
            };
            let names = values.iter().step_by(2).map(|name| match name {
                Value::BulkString(name) => String::from_utf8_lossy(name).into_owned(),
                _ => String::new(),
            });
            let values = values.iter().skip(1).step_by(2).cloned();
            names.zip(values).collect()
        }
        Err(NoConnection::Refused(why)) if why.to_lowercase().contains("unknown command") => {
            return Err(NodeFault::TooOld("older than 6".to_owned()));
        }
        Err(why) => return Err(NodeFault::Broken(why)),
    };
    let text = |name: &str| {
        fields
            .get(name)
            .and_then(|value| from_redis_value::<String>(value.clone()).ok())
    };
    let version = text("version").unwrap_or_default();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= LEAST_VERSION => Ok(()),
        Some(_) => Err(NodeFault::TooOld(shown(&version))),
        None => Err(NodeFault::Unknown),
    }
}

/// Loads the library, and asks for the epoch twice.
async fn check_function(
    wire: &Wire,
    options: &StoreOptions,
    bucket: Bucket,
) -> Result<(), NodeFault> {
    match wire.call_soon(&fcall::load()).await {
        Ok(_) => {}
        // Somebody loaded one a moment ago.
        Err(NoConnection::Refused(why)) if fcall::is_loaded_already(&why) => {
            fitness::look_at_library(wire).await?;
        }
        Err(NoConnection::Refused(why)) => return Err(NodeFault::refused("FUNCTION LOAD", why)),
        Err(why) => return Err(NodeFault::Broken(why)),
    }
    let terms = QuestionTerms {
        epoch: 0,
        deadline: Utc(0),
    };
    let nonce = nonce(&options.replica);
    let question = fcall::heartbeat();
    let ask = |number| fcall::command(bucket, &question, terms, &nonce, options.hold(), number);
    let first = epoch(wire, &ask(1), 1).await?;
    if epoch(wire, &ask(2), 2).await? != first {
        return Err(NodeFault::Forgets);
    }
    check_rights(wire, bucket).await
}

/// Runs what the function runs for a start, on a key that no window has: the rights of a user may be
/// enough for a heartbeat and too few for a start.
async fn check_rights(wire: &Wire, bucket: Bucket) -> Result<(), NodeFault> {
    let key = bucket.window_key("", 0);
    for (name, args) in fcall::COMMANDS_OF_A_START {
        let command = cmd(name).arg(&key).arg(args).take();
        match wire.call_soon(&command).await {
            Ok(_) => {}
            Err(NoConnection::Refused(why)) => return Err(NodeFault::refused(name, why)),
            Err(why) => return Err(NodeFault::Broken(why)),
        }
    }
    Ok(())
}

async fn epoch(wire: &Wire, question: &Cmd, number: i64) -> Result<i64, NodeFault> {
    match wire.call_soon(question).await {
        Ok(value) => match fcall::read(value, &fcall::heartbeat(), number) {
            Ok(
                Said::Granted { epoch, .. }
                | Said::Hold { epoch, .. }
                | Said::Epoch { epoch, .. }
                | Said::Late { epoch, .. },
            ) => Ok(epoch),
            Ok(Said::Newer) => Err(NodeFault::Newer),
            Err(_) => Err(NodeFault::Unknown),
        },
        Err(NoConnection::Refused(why)) => Err(NodeFault::refused("FCALL", why)),
        Err(why) => Err(NodeFault::Broken(why)),
    }
}
