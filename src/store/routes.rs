//! Which connection leads to the primary of a bucket, on one runtime.
//!
//! Owns when the primary is sought. Must never keep a connection to a node that is none any more.

use crate::store::bucket::Bucket;
use crate::store::core::{Core, jitter};
use crate::store::line::Line;
use crate::store::options::{NodeAddress, Topology};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The primary is sought so often though nothing seems wrong: a primary that was away and came back
/// does not know that it is none any more.
const LOOK: Duration = Duration::from_secs(1);

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
        let seek = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        match &core.options.topology {
            Topology::Single => {
                let all: Vec<Bucket> = Bucket::all(core.options.buckets()).collect();
                let first = core.options.nodes.first();
                let primaries = first.map(|node| (node.clone(), all)).into_iter().collect();
                map.lock().lead_to(core, &seek, primaries);
            }
            Topology::Sentinel { .. } | Topology::Cluster => {
                task.spawn(keep_looking(core.clone(), seek, map.clone()));
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

async fn keep_looking(core: Arc<Core>, seek: Arc<Notify>, map: Arc<Mutex<Map>>) {
    let _ = (&core, &map);
    loop {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = seek.notified() => sleep(jitter()).await,
        }
    }
}

impl Map {
    fn lead_to(&mut self, core: &Arc<Core>, seek: &Arc<Notify>, primaries: Primaries) {
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
                    let (core, seek) = (core.clone(), seek.clone());
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
