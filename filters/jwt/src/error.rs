//! Why a token is not accepted, in the words that Istio's users know.

macro_rules! errors {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// Why a token is not accepted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum TokenError { $($name),* }

        impl TokenError {
            /// For the client.
            pub(crate) fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

// In the order in which one says more than another: of several rules' errors, the last is told.
errors! {
    Missing = "Jwt is missing",
    UnknownIssuer = "Jwt issuer is not configured",
    TooLarge = "Jwt is too large",
    Repeated = "Jwt is given more than once",
    BadFormat = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
    HeaderBase64 = "Jwt header is an invalid Base64url encoded",
    HeaderJson = "Jwt header is an invalid JSON",
    HeaderAlgorithm = "Jwt header [alg] field is required and must be a string",
    AlgorithmUnsupported = "Jwt header [alg] is not supported",
    HeaderKid = "Jwt header [kid] field is not a string",
    HeaderCritical = "Jwt header [crit] is not supported",
    PayloadBase64 = "Jwt payload is an invalid Base64url encoded",
    PayloadJson = "Jwt payload is an invalid JSON",
    IssuerNotText = "Jwt payload [iss] field is not a string",
    SubjectNotText = "Jwt payload [sub] field is not a string",
    AudienceBad = "Jwt payload [aud] field is not a string or string list",
    ExpirationBad = "Jwt payload [exp] field is not a number",
    NotBeforeBad = "Jwt payload [nbf] field is not a number",
    IssuedAtBad = "Jwt payload [iat] field is not a number",
    SignatureBase64 = "Jwt signature is an invalid Base64url encoded",
    KeysUnavailable = "Jwks remote fetch is failed",
    NoKey = "Jwks doesn't have key to match kid or alg from Jwt",
    Unverified = "Jwt verification fails",
    NotYetValid = "Jwt not yet valid",
    Expired = "Jwt is expired",
    AudienceNotAllowed = "Audiences in Jwt are not allowed",
}

impl TokenError {
    /// A token that is good, but for somebody else, is forbidden.
    pub(crate) fn status(self) -> u16 {
        if self == Self::AudienceNotAllowed { 403 } else { 401 }
    }
}
