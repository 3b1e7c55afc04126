//! Why a sign-in with an identity provider fails. Operators see it in the log, by
//! its name in a metric, and with what to change at the provider or in its object
//! here; the user is told to try again or ask.

use prometheus_client::encoding::EncodeLabelSet;
use runtime::metrics::{Counter, Family, Metrics};
use thiserror::Error;
use tracing::warn;

macro_rules! faults {
    ($($variant:ident $name:literal $text:literal,)+) => {
        #[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
        pub enum UpstreamFault {
            $(#[error($text)] $variant,)+
        }

        impl UpstreamFault {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As the metric calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

faults! {
    Unreachable "unreachable" "the provider cannot be reached over TLS; check its address, and ca_pem if its authority is your own",
    Slow "slow" "the provider did not answer within 5 seconds",
    TooLarge "too_large" "the provider's answer has more than 256 KiB",
    Status "status" "the provider answered with an error or a redirect where a document is expected",
    NotJson "not_json" "the provider's answer is not the JSON that OpenID Connect describes",
    Issuer "issuer" "the discovery document names another issuer: copy its `issuer` to the letter",
    Endpoint "endpoint" "the discovery document lacks an endpoint, or names one that is not https",
    Denied "denied" "the provider refused; its log says why (is the user assigned to this client?)",
    Code "code" "the provider did not take the code: check client_id, the secret, and the redirect URI",
    Callback "callback" "the answer at the redirect URI lacks a code",
    WrongIssuer "wrong_issuer" "the answer at the redirect URI is of another provider (RFC 9207)",
    TokenTooLong "token_too_long" "the ID token has more than 64 KiB",
    TokenMalformed "token_malformed" "the ID token is no signed JWT, or lacks a claim it must have",
    TokenAlgorithm "token_algorithm" "the ID token is not signed with RS256, PS256, ES256, ES384 or EdDSA, or not as its key says",
    TokenKey "token_key" "the ID token names a key that the provider does not publish for signatures",
    TokenSignature "token_signature" "the signature of the ID token does not fit",
    TokenIssuer "token_issuer" "the ID token is of another issuer",
    TokenAudience "token_audience" "the ID token is for another client: check client_id",
    TokenParty "token_party" "the ID token was given to another client (azp)",
    TokenExpired "token_expired" "the ID token has expired: the clocks differ",
    TokenEarly "token_early" "the ID token is not valid yet: the clocks differ",
    TokenNonce "token_nonce" "the ID token belongs to another sign-in (nonce)",
    TokenAccess "token_access" "the ID token belongs to another access token (at_hash)",
    TokenSubject "token_subject" "the ID token has no subject, or one of more than 255 characters",
    TokenAge "token_age" "the provider did not ask the user again (auth_time) although it was told to (max_age)",
    UserInfoSubject "user_info_subject" "the user information is about somebody else than the ID token",
    NotLinked "not_linked" "nobody here is linked to this subject, and the provider may not create users (create_users)",
    Disabled "disabled" "the user is disabled here",
    NoUsername "no_username" "the claim named by username_claim is missing or no username",
    NameTaken "name_taken" "the username is somebody else's: link the identity by hand (postern set linked-identity)",
    NotRecorded "not_recorded" "no controller recorded the user",
}

/// Counts sign-ins with identity providers that fail.
#[derive(Clone, Debug, Default)]
pub struct UpstreamFaults(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    fault: &'static str,
}

impl UpstreamFaults {
    pub fn register(metrics: &Metrics) -> Self {
        let ours = Self::default();
        metrics.register("upstream_faults", "Sign-ins with identity providers that failed, and why", ours.0.clone());
        ours
    }

    /// Passes an outcome on, and tells the log and the metric of its fault.
    pub(crate) fn noted<T>(&self, provider: &str, outcome: Result<T, UpstreamFault>) -> Result<T, UpstreamFault> {
        outcome.inspect_err(|fault| {
            warn!(provider, fault = fault.name(), "{fault}");
            self.0.get_or_create(&Labels { fault: fault.name() }).inc();
        })
    }
}
