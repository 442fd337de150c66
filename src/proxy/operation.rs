//! The operation that a call means, and whether the account may call it. Pure.
//!
//! # Decided
//! - **An action named by `X-TC-Action` must agree with the path**, unless that is `/`: else a free
//!   action's name would open a paid action's path behind the gate.

use crate::http::Fields;
use crate::http::h1::RequestHead;
use crate::http::names::X_TC_ACTION;
use crate::proxy::admission::Denied;
use crate::proxy::policy::{Operation, Policy};
use crate::proxy::refusal::Refusal;
use std::sync::Arc;

/// The operation that is called: by `X-TC-Action`, else by the route. When both name one they must
/// agree, or a free action's name would open a paid action's path.
pub(super) fn operation<'p>(
    policy: &'p Policy,
    head: &RequestHead,
) -> Result<&'p Arc<Operation>, Refusal> {
    let path = head.target.path();
    let by_route = || {
        policy
            .by_route(&head.method, path)
            .map_err(|allowed| match allowed.is_empty() {
                true => Refusal::PathUnknown,
                false => Refusal::Method { allowed },
            })
    };
    match head.fields.get(X_TC_ACTION) {
        None if path == "/" => Err(Refusal::ActionMissing),
        None => by_route(),
        Some(name) => {
            let named = std::str::from_utf8(name)
                .ok()
                .and_then(|name| policy.by_action(name));
            let named = named.ok_or(Refusal::ActionUnknown)?;
            if path != "/" && by_route()?.action != named.action {
                return Err(Refusal::ActionMismatch);
            }
            Ok(named)
        }
    }
}

/// Version and region, which only the vendor's dialect has (PROTOCOL §1).
pub(super) fn check_vendor_parameters(
    policy: &Policy,
    operation: &Operation,
    fields: &Fields,
) -> Result<(), Refusal> {
    check_version(policy, fields)?;
    if operation.regions.is_empty() {
        return Ok(());
    }
    match text(fields, "x-tc-region") {
        None => Err(Refusal::RegionMissing),
        Some("") => Err(Refusal::RegionEmpty),
        Some(region) if operation.regions.iter().any(|known| known == region) => Ok(()),
        Some(_) => Err(Refusal::RegionUnsupported),
    }
}

/// The version, which each action of the vendor's dialect has.
pub(super) fn check_version(policy: &Policy, fields: &Fields) -> Result<(), Refusal> {
    let version = text(fields, "x-tc-version").ok_or(Refusal::VersionMissing)?;
    match policy.catalog.versions.iter().any(|known| known == version) {
        true => Ok(()),
        false => Err(Refusal::VersionUnknown),
    }
}

fn text<'f>(fields: &'f Fields, name: &str) -> Option<&'f str> {
    let value = fields.get(name)?;
    Some(std::str::from_utf8(value).unwrap_or("?"))
}

/// The refusal for a call that its limiter does not admit.
pub(super) fn not_admitted(denied: Denied, operation: &Operation) -> Refusal {
    let group = operation.group.clone();
    match denied {
        Denied::NotOpened => Refusal::NotOpened,
        Denied::Stopped(stop) => Refusal::Stopped(stop),
        Denied::NoQuota { begins_in } => Refusal::NoQuota { group, begins_in },
        Denied::Throttled {
            quota,
            mode,
            retry_after,
        } => Refusal::Throttled {
            group,
            quota,
            mode,
            retry_after,
        },
    }
}
