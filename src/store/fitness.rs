//! What a node must have as long as it is asked, since the cap hangs on it.
//!
//! Owns the looks at its settings and at its library: before the first call, at each connection,
//! and again and again on it. Must never change anything there.

use crate::store::check_error::NodeFault;
use crate::store::dial::{NoConnection, Wire, shown};
use crate::store::fcall;
use redis::{cmd, from_redis_value};
use std::collections::BTreeMap;

/// A node is looked at so often: an operator may change its settings while it runs.
pub(crate) const LOOK: std::time::Duration = std::time::Duration::from_secs(10);

/// Looks at the settings and at the library, which may not be loaded yet.
///
/// # Errors
/// The first thing by which a quota may be exceeded.
pub(crate) async fn look(wire: &Wire, is_fenced: bool) -> Result<Settings, NodeFault> {
    let (settings, library) = tokio::join!(Settings::read(wire), look_at_library(wire));
    let settings = settings?;
    settings.check(is_fenced)?;
    library?;
    Ok(settings)
}

/// A library of our name decides the starts, so it must be ours.
pub(crate) async fn look_at_library(wire: &Wire) -> Result<(), NodeFault> {
    match wire.call_soon(&fcall::list()).await {
        Ok(listed) if fcall::is_other_library(&listed) => {
            Err(NodeFault::OtherLibrary("its code is another".to_owned()))
        }
        Ok(_) => Ok(()),
        Err(NoConnection::Refused(why)) => Err(NodeFault::refused("FUNCTION LIST", why)),
        Err(why) => Err(NodeFault::Broken(why)),
    }
}

/// What must be known of a node's settings.
pub(crate) struct Settings(BTreeMap<String, String>);

impl Settings {
    const NAMES: [&str; 5] = [
        "maxmemory-policy",
        "appendonly",
        "save",
        "min-replicas-to-write",
        "min-replicas-max-lag",
    ];

    async fn read(wire: &Wire) -> Result<Self, NodeFault> {
        let mut ask = cmd("CONFIG");
        ask.arg("GET").arg(&Self::NAMES);
        let said = wire.call_soon(&ask).await.map_err(|why| match why {
            // A managed store may not have the command at all.
            NoConnection::Refused(why) => NodeFault::MayNotReadConfig(why),
            why => NodeFault::Broken(why),
        })?;
        let settings = from_redis_value(said).map_err(|_| NodeFault::Unknown)?;
        Ok(Self(settings))
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn check(&self, is_fenced: bool) -> Result<(), NodeFault> {
        let policy = self.get("maxmemory-policy");
        if policy != "noeviction" {
            return Err(NodeFault::Evicts(shown(policy)));
        }
        for name in ["min-replicas-to-write", "min-replicas-max-lag"] {
            let value = self.get(name);
            // More standbys or a shorter lag cannot be asked for with sense; 0 is no fence.
            let is_right = match name {
                "min-replicas-to-write" => value.parse::<u32>().is_ok_and(|least| least >= 1),
                _ => value == "1",
            };
            if is_fenced && !is_right {
                return Err(NodeFault::NoFence(name, shown(value)));
            }
        }
        Ok(())
    }

    pub(crate) fn is_persistent(&self) -> bool {
        self.get("appendonly") == "yes" || !self.get("save").is_empty()
    }
}
