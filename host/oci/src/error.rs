//! What goes wrong between here and a registry: the cause, and the next step.

use std::time::Duration;

use crate::reference::Digest;

/// A registry could not be used, or said something that is not so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection.
    #[error("{host} cannot be reached: {cause}")]
    Unreachable {
        /// Whom.
        host: String,
        /// Why.
        cause: String,
    },
    /// It took too long.
    #[error("{host} did not {what} within {within:?}")]
    Slow {
        /// Whom.
        host: String,
        /// What was waited for.
        what: &'static str,
        /// How long.
        within: Duration,
    },
    /// A redirect or a token service lies where only this machine, or its network, reaches.
    #[error("{host} sends to {target}, which is at {address}: a private address")]
    Private {
        /// Who said so.
        host: String,
        /// Where to.
        target: String,
        /// What that is.
        address: String,
    },
    /// A redirect or a token service that is refused for another reason.
    #[error("{host} sends to {target}: {why}")]
    Redirect {
        /// Who said so.
        host: String,
        /// Where to.
        target: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// 401 or 403.
    #[error("{host} refuses access to {what} ({status}): {why}")]
    Unauthorized {
        /// Who.
        host: String,
        /// To what.
        what: String,
        /// The status.
        status: u16,
        /// What is known about it.
        why: String,
    },
    /// 404.
    #[error("{host} has no {what}")]
    NotFound {
        /// Who.
        host: String,
        /// What.
        what: String,
    },
    /// 429, after trying again.
    #[error("{host} says that there were too many requests (429)")]
    TooMany {
        /// Who.
        host: String,
    },
    /// Any other status.
    #[error("{host} answers {status} for {what}{said}")]
    Status {
        /// Who.
        host: String,
        /// The status.
        status: u16,
        /// For what.
        what: String,
        /// What it said, if anything.
        said: String,
    },
    /// More bytes than are taken.
    #[error("{what} of {host} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Who.
        host: String,
        /// What.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// Other bytes than were named.
    #[error("{host} served other bytes for {what} than were asked for: {found} instead of {expected}")]
    Digest {
        /// Who.
        host: String,
        /// What.
        what: String,
        /// What they should be.
        expected: Digest,
        /// What they are.
        found: Digest,
    },
    /// Another number of bytes than was named.
    #[error("{host} served {found} bytes for {what}, and had said {expected}")]
    Size {
        /// Who.
        host: String,
        /// What.
        what: String,
        /// What it had said.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// What was served is not HTTP, not JSON or not what the specification says.
    #[error("{host} answered {what} with something that is none: {cause}")]
    Malformed {
        /// Who.
        host: String,
        /// What.
        what: String,
        /// Why.
        cause: String,
    },
    /// An artifact that is no filter.
    #[error("{reference} is no WebAssembly filter: {why}")]
    NotAFilter {
        /// Which.
        reference: String,
        /// Why.
        why: String,
    },
    /// No signature, or none by the key.
    #[error("{reference} is not signed by this key: {why}")]
    Signature {
        /// Which.
        reference: String,
        /// Why.
        why: String,
    },
    /// A file of credentials, or certificates.
    #[error("{file}: {cause}")]
    File {
        /// Which.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl Error {
    /// The next step.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "check the registry's name and port, and that it speaks TLS; one that speaks plain HTTP and is not on this machine needs `--insecure`"
            }
            Self::Slow { .. } => "try again; if the registry stays slow, pull the artifact where it is fast and use the file",
            Self::Private { .. } | Self::Redirect { .. } => {
                "this may be an attack through the registry; if it is meant so, name the registry by the place it redirects to"
            }
            Self::Unauthorized { .. } => {
                "log in with `docker login`, `podman login` or `skopeo login`, or set DOCKER_CONFIG or REGISTRY_AUTH_FILE"
            }
            Self::NotFound { .. } => "check repository and tag; some registries hide what needs a login",
            Self::TooMany { .. } => "wait, or log in: registries limit anonymous users most",
            Self::Status { .. } | Self::Malformed { .. } => "check that the name is a registry's, and try again: it may be a passing fault",
            Self::TooLarge { .. } => "check that the artifact is a filter; filters larger than the limit are refused on purpose",
            Self::Digest { .. } | Self::Size { .. } => {
                "do not use what was served: the registry, or something between, changes content; tell its operator"
            }
            Self::NotAFilter { .. } => "push it with `weir filter push`, or in one of the layouts that `weir filter pull --help` names",
            Self::Signature { .. } => {
                "check the key; whoever may sign does so with `weir filter push --sign KEY` or `cosign sign --key KEY`"
            }
            Self::File { .. } => "correct or remove the file",
        }
    }

    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::TooMany { .. } => true,
            Self::Status { status, .. } => matches!(status, 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}
