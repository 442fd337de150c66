//! The customer's own endpoints: their paths and their actions. No route and no action of a
//! catalogue may have one of them.

/// An endpoint that answers a customer's question about its own account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    /// The quota in force, its use, and what is left.
    Quota,
    /// The counts of a month.
    Usage,
    /// The list of the months that are fixed.
    Statements,
    /// The statement of one month.
    Statement,
    /// The records of a month.
    Records,
    /// The account's licences for apps.
    Licences,
    /// A grant for a device of an app, or a trial.
    Authorize,
    /// The public keys of grants. Anybody may ask.
    Keys,
    /// Why a call was not let through.
    Decision,
}

/// Under these paths stand the statements, each by its month, and refusals by the ids of their calls.
const STATEMENTS: &str = "/v1/statements/";
const DECISIONS: &str = "/v1/decisions/";

/// Where the public keys of grants are looked for (RFC 8615, RFC 7517).
const KEYS: &str = "/.well-known/jwks.json";

impl Endpoint {
    /// Every endpoint that has an action.
    pub(crate) const ALL: [Self; 8] = [
        Self::Quota,
        Self::Usage,
        Self::Statements,
        Self::Statement,
        Self::Records,
        Self::Licences,
        Self::Authorize,
        Self::Decision,
    ];

    /// The endpoint of a path, and the rest of the path where that names something.
    pub(crate) fn of_path(path: &str) -> Option<(Self, Option<&str>)> {
        if path == KEYS {
            return Some((Self::Keys, None));
        }
        match path.strip_prefix("/v1/")? {
            "quota" => Some((Self::Quota, None)),
            "usage" => Some((Self::Usage, None)),
            "statements" => Some((Self::Statements, None)),
            "records" => Some((Self::Records, None)),
            "licences" => Some((Self::Licences, None)),
            "licences/authorize" => Some((Self::Authorize, None)),
            _ => {
                let of = |endpoint, under| Some((endpoint, Some(path.strip_prefix(under)?)));
                of(Self::Statement, STATEMENTS).or_else(|| of(Self::Decision, DECISIONS))
            }
        }
    }

    /// The endpoint that this action of the vendor's dialect asks.
    pub(crate) fn of_action(name: &[u8]) -> Option<Self> {
        let is_named = |endpoint: &Self| endpoint.action().as_bytes() == name;
        Self::ALL.into_iter().find(is_named)
    }

    /// The action, as `X-TC-Action` spells it.
    pub(crate) const fn action(self) -> &'static str {
        match self {
            Self::Quota => "DescribeQuota",
            Self::Usage => "DescribeUsage",
            Self::Statements => "DescribeStatements",
            Self::Statement => "DescribeStatement",
            Self::Records => "DescribeRecords",
            Self::Licences => "DescribeLicences",
            Self::Authorize => "AuthorizeLicence",
            Self::Keys => "",
            Self::Decision => "DescribeDecision",
        }
    }

    /// The name of the answer in the vendor's envelope.
    pub(crate) fn answer(self) -> &'static str {
        match self {
            Self::Authorize => "Grant",
            _ => self.action().trim_start_matches("Describe"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_path_is_one_of_the_list_and_every_other_is_a_call() {
        for (path, expected) in [
            ("/v1/quota", Some((Endpoint::Quota, None))),
            ("/v1/usage", Some((Endpoint::Usage, None))),
            ("/v1/statements", Some((Endpoint::Statements, None))),
            ("/v1/records", Some((Endpoint::Records, None))),
            (
                "/v1/statements/2026-11",
                Some((Endpoint::Statement, Some("2026-11"))),
            ),
            ("/v1/statements/", Some((Endpoint::Statement, Some("")))),
            ("/v1/licences", Some((Endpoint::Licences, None))),
            ("/v1/licences/authorize", Some((Endpoint::Authorize, None))),
            ("/.well-known/jwks.json", Some((Endpoint::Keys, None))),
            ("/.well-known/", None),
            (
                "/v1/decisions/00000000",
                Some((Endpoint::Decision, Some("00000000"))),
            ),
            ("/v1/decisions", None),
            ("/v1/quota/", None),
            ("/v1/statementsx", None),
            ("/v1/portrait/segment", None),
            ("/", None),
        ] {
            assert_eq!(Endpoint::of_path(path), expected, "{path}");
        }
        for endpoint in Endpoint::ALL {
            let found = Endpoint::of_action(endpoint.action().as_bytes());
            assert_eq!(found, Some(endpoint));
        }
        assert_eq!(Endpoint::of_action(b"DescribeSegmentationTask"), None);
        assert_eq!(Endpoint::of_action(b"describequota"), None);
    }
}
