//! The fields `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
//!
//! Owns their form. Must never allocate for an answer: each answer of the plain dialect has them.

use crate::http::HeadWriter;
use crate::model::GroupId;
use crate::proxy::sentence::ceil_seconds;
use std::borrow::Cow;
use std::time::Duration;

/// Both fields of one policy, but for the numbers in them. The policy's name cannot end a line: it is
/// a group's id or one of ours.
pub(crate) struct RateLines {
    /// Up to the quota.
    begin: Cow<'static, str>,
    /// Between the quota and what is left of it.
    middle: Cow<'static, str>,
}

/// Those of the policy that holds an account's questions to the own endpoints. An underscore stands
/// in no group's id.
pub(super) const OWN_ENDPOINTS: RateLines = RateLines {
    begin: Cow::Borrowed("ratelimit-policy: \"own_endpoints\";q="),
    middle: Cow::Borrowed(";w=1\r\nratelimit: \"own_endpoints\";r="),
};

impl RateLines {
    /// Those of a group: its id is the policy's name.
    pub(super) fn of(group: &GroupId) -> Self {
        let group = group.as_str();
        Self {
            begin: format!("ratelimit-policy: \"{group}\";q=").into(),
            middle: format!(";w=1\r\nratelimit: \"{group}\";r=").into(),
        }
    }

    /// Writes the quota, what is left of it, and after how long there is more.
    pub(super) fn write(
        &self,
        lines: &mut HeadWriter,
        (quota, left): (u32, u32),
        reset: Option<Duration>,
    ) {
        let mut digits = [(); 3].map(|()| itoa::Buffer::new());
        let [quota_digits, left_digits, reset_digits] = &mut digits;
        let (quota, left) = (quota_digits.format(quota), left_digits.format(left));
        lines.own([&self.begin, quota, &self.middle, left]);
        if let Some(wait) = reset {
            lines.own([";t=", reset_digits.format(ceil_seconds(wait))]);
        }
        lines.own(["\r\n"]);
    }
}
