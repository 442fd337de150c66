//! Why an app gets no grant (R19).

use std::fmt;

/// Why no grant is given out, or no trial. Its `Display` is a sentence for the client. It holds
/// nothing that the client sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LicenceRefusal {
    /// The account has no licence.
    None,
    /// The app's licence has ended.
    Expired,
    /// The app's licence begins later.
    NotBegun,
    /// The account or the licence key has licences for other apps.
    OtherPackage,
    /// The provider revoked the licences of the app.
    Revoked,
    /// All trials of the account are taken.
    TrialLimit,
    /// A licence key asks for a trial.
    NeedsAccount,
    /// Several gates without an outbox cannot count trials together.
    NoTrialsHere,
    /// No licences are sold here, or no key signs.
    NotSold,
    /// It is not known now who has which trial.
    Away,
    /// Too many requests from one address.
    TooMany,
}

#[cfg(test)]
impl LicenceRefusal {
    /// Every one.
    pub(crate) const ALL: [Self; 11] = [
        Self::None,
        Self::Expired,
        Self::NotBegun,
        Self::OtherPackage,
        Self::Revoked,
        Self::TrialLimit,
        Self::NeedsAccount,
        Self::NoTrialsHere,
        Self::NotSold,
        Self::Away,
        Self::TooMany,
    ];
}

impl fmt::Display for LicenceRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => {
                "the app has no licence: buy one for its package, or apply for a trial with the credential of the account"
            }
            Self::Expired => "the licence of the app has ended: buy one for its package",
            Self::NotBegun => {
                "the licence of the app has not begun: ask again when it has; a trial that has not begun was issued by a clock that was ahead: \
                 ask the provider"
            }
            Self::OtherPackage => {
                "the licences are of other apps: use the package that one was bought for, or buy one for this package"
            }
            Self::Revoked => "the licence of the app was revoked: ask the provider",
            Self::TrialLimit => {
                "all trials of the account were applied for, whatever became of them: buy a licence for the package"
            }
            Self::NeedsAccount => {
                "a licence key obtains grants and nothing else: apply for a trial with the credential of the account"
            }
            Self::NoTrialsHere => {
                "trials are not given out here, because this gate is one of several and has no outbox by which they count together: \
                 ask the provider"
            }
            Self::NotSold => "no grants of licences are given out here",
            Self::Away => "it cannot be said now who has which trial; ask again",
            Self::TooMany => "more than 50 requests a second for grants from one address",
        })
    }
}
