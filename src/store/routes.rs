//! Which connection leads to the primary of a bucket, on one runtime.
//!
//! Owns when the primary is sought. Must never keep a connection to a node that is none any more.

use crate::store::bucket::Bucket;
use crate::store::cluster::{Cluster, primaries};
use crate::store::core::Core;
use crate::store::line::Line;
use crate::store::options::{NodeAddress, Topology};
use crate::store::seek::Seek;
use crate::store::sentinel::Sentinels;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The primary is sought so often though nothing seems wrong: a primary that was away and came back
/// does not know that it is none any more.
const LOOK: Duration = Duration::from_secs(1);

/// Not sooner after the last look, however many connections want one.
const PAUSE: Duration = Duration::from_millis(20);

/// The primaries, each with its buckets.
pub(crate) type Primaries = Vec<(NodeAddress, Vec<Bucket>)>;

/// Which connection leads to the primary of a bucket.
pub(crate) struct Routes {
    map: Arc<Mutex<Map>>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Map {
    primaries: Primaries,
    lines: Vec<Arc<Line>>,
    /// The line of each bucket.
    of_bucket: Vec<Option<Arc<Line>>>,
}

impl Routes {
    /// Begins to keep them on this runtime.
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        let map = Arc::new(Mutex::<Map>::default());
        let seek = Arc::new(Seek::new());
        let mut task = JoinSet::new();
        match &core.options.topology {
            Topology::Single => {
                let all: Vec<Bucket> = Bucket::all(core.options.buckets()).collect();
                let first = core.options.nodes.first();
                let primaries = first.map(|node| (node.clone(), all)).into_iter().collect();
                map.lock().lead_to(core, None, primaries);
            }
            Topology::Sentinel { .. } => {
                let finder = Finder::Sentinels(Sentinels::new(&core.options));
                task.spawn(keep_looking(core.clone(), finder, seek, map.clone()));
            }
            Topology::Cluster => {
                let finder = Finder::Cluster(Cluster::new(&core.options));
                task.spawn(keep_looking(core.clone(), finder, seek, map.clone()));
            }
        }
        Self { map, _task: task }
    }

    /// The connection to the primary of a bucket, as far as it is known.
    pub(crate) fn line(&self, bucket: Bucket) -> Option<Arc<Line>> {
        let map = self.map.lock();
        let line = map.of_bucket.get(usize::from(bucket.number()))?;
        line.clone()
    }
}

/// Whom to ask for the primaries.
enum Finder {
    Sentinels(Sentinels),
    Cluster(Cluster),
}

impl Finder {
    async fn primaries(&mut self, core: &Core) -> Result<Primaries, String> {
        let of = core.options.buckets();
        match self {
            Self::Sentinels(sentinels) => {
                let primary = sentinels.primary(&core.dialer).await;
                let primary = primary.map_err(|e| e.to_string())?;
                Ok(vec![(primary, Bucket::all(of).collect())])
            }
            Self::Cluster(cluster) => {
                let shards = cluster.shards(&core.dialer).await;
                let shards = shards.map_err(|(node, e)| format!("{node}: {e}"))?;
                Ok(primaries(&shards, of).into_iter().collect())
            }
        }
    }

    /// What was found does not work.
    fn distrust(&mut self) {
        match self {
            Self::Sentinels(_) => {}
            Self::Cluster(cluster) => cluster.ask_another(),
        }
    }
}

async fn keep_looking(core: Arc<Core>, mut finder: Finder, seek: Arc<Seek>, map: Arc<Mutex<Map>>) {
    // Stands on the board while no primary was ever found.
    let mut place = None;
    loop {
        let look = seek.begin();
        match finder.primaries(&core).await {
            Ok(primaries) => {
                if let Some(place) = place.take() {
                    core.board.leave(place);
                }
                map.lock().lead_to(&core, Some(&seek), primaries);
                seek.found(look);
            }
            Err(why) => {
                tracing::debug!("the primary of the store is not found: {why}");
                if map.lock().lines.is_empty()
                    && let Some(first) = core.options.nodes.first()
                {
                    let place = *place.get_or_insert_with(|| core.board.enter(first));
                    core.board.tell(place, Some(why));
                }
            }
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = seek.wanted() => {
                finder.distrust();
                sleep(PAUSE).await;
            }
        }
    }
}

impl Map {
    fn lead_to(&mut self, core: &Arc<Core>, seek: Option<&Arc<Seek>>, primaries: Primaries) {
        if self.primaries == primaries {
            return;
        }
        let lines = primaries.iter().map(|(node, buckets)| {
            let known = self.lines.iter().find(|line| line.node() == node);
            match known {
                Some(line) => {
                    line.set_buckets(buckets.clone());
                    line.clone()
                }
                None => {
                    let (core, seek) = (core.clone(), seek.cloned());
                    Arc::new(Line::new(core, node.clone(), buckets.clone(), seek))
                }
            }
        });
        let lines: Vec<Arc<Line>> = lines.collect();
        let mut of_bucket = vec![None; usize::from(core.options.buckets())];
        for (line, (_, buckets)) in lines.iter().zip(&primaries) {
            for bucket in buckets {
                if let Some(of_bucket) = of_bucket.get_mut(usize::from(bucket.number())) {
                    *of_bucket = Some(line.clone());
                }
            }
        }
        *self = Self {
            primaries,
            lines,
            of_bucket,
        };
    }
}
