//! Why a message is refused: one name for every cause, for the response's code detail and a counter.

use crate::http::StreamError;

macro_rules! refusals {
    ($($(#[doc = $doc:literal])* $variant:ident = $status:literal $detail:literal,)*) => {
        /// A cause to refuse a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Refusal {
            /// Every cause.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The status that a client gets.
            #[must_use]
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)*
                }
            }

            /// The cause's stable name.
            #[must_use]
            pub fn detail(self) -> &'static str {
                match self {
                    $(Self::$variant => $detail,)*
                }
            }
        }
    };
}

refusals! {
    /// More than one empty line before a request, or a start line that is none.
    StartLine = 400 "start_line",
    /// A method that is no token, or is unusually long.
    Method = 400 "method",
    /// A byte that a request target cannot have.
    Target = 400 "target",
    /// A target in a form that its method does not take.
    TargetForm = 400 "target_form",
    /// A target with a fragment.
    TargetFragment = 400 "target_fragment",
    /// Not HTTP/x.y.
    Version = 400 "version",
    /// Another version than 1.0 and 1.1.
    VersionUnsupported = 505 "version_unsupported",
    /// A status that is not three digits from 100 on.
    Status = 502 "status",
    /// A line feed without a carriage return.
    BareLf = 400 "bare_lf",
    /// A carriage return without a line feed.
    BareCr = 400 "bare_cr",
    /// A line that begins with white space.
    ObsFold = 400 "obs_fold",
    /// White space between a field's name and its colon.
    SpaceBeforeColon = 400 "space_before_colon",
    /// A field name that is no token.
    FieldName = 400 "field_name",
    /// A control character in a field value.
    FieldValue = 400 "field_value",
    /// No `host`.
    HostMissing = 400 "host_missing",
    /// More than one `host`.
    HostDuplicate = 400 "host_duplicate",
    /// A host that is no name or address with an optional port.
    HostInvalid = 400 "host_invalid",
    /// `host` and `:authority` that differ.
    HostMismatch = 400 "host_mismatch",
    /// Another scheme than `http` and `https`.
    Scheme = 400 "scheme",
    /// A `content-length` that is no number.
    ContentLength = 400 "content_length",
    /// More than one `content-length`, even when they agree.
    ContentLengthDuplicate = 400 "content_length_duplicate",
    /// A `transfer-encoding` that is not `chunked`, once.
    TransferEncoding = 400 "transfer_encoding",
    /// A `transfer-encoding` in HTTP/1.0.
    TransferEncodingVersion = 400 "transfer_encoding_version",
    /// Both `content-length` and `transfer-encoding`.
    FramingConflict = 400 "framing_conflict",
    /// CONNECT with a body.
    ConnectBody = 400 "connect_body",
    /// `connection` names a field that is not the sender's to remove, or too many.
    ConnectionNomination = 400 "connection_nomination",
    /// An expectation that is not `100-continue`.
    Expectation = 417 "expectation",
    /// A 101 that nobody asked for.
    UnexpectedUpgrade = 502 "unexpected_upgrade",
    /// A head with too many bytes.
    HeadersTooLarge = 431 "headers_too_large",
    /// A head with too many fields.
    TooManyHeaders = 431 "too_many_headers",
    /// A request target that is too long.
    PathTooLong = 414 "path_too_long",
}

impl Refusal {
    /// Whether a limit was passed, rather than the protocol broken.
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(self, Self::HeadersTooLarge | Self::TooManyHeaders | Self::PathTooLong)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.detail())
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for StreamError {
    fn from(refusal: Refusal) -> Self {
        if refusal.is_limit() { Self::Limit(refusal.detail()) } else { Self::Protocol(refusal.detail()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let mut names: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.detail()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Refusal::ALL.len());
    }
}
