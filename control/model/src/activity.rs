//! The closed sets of words in ACTIVITY: outcomes of sign-ins, proofs, refusal
//! codes, events of connectors. Events carry them as text; each set is written
//! and read here and nowhere else.
//!
//! A newer release may have written a word this one does not know, so `parse`
//! answers `None` and the reader decides; the text itself is never lost.

use std::fmt;

/// An enum whose variants are words in events: written once, read once.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$of])* $variant,)+
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word in events, metrics and exports. Never changed or reused.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            pub fn parse(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                word.as_str().to_owned()
            }
        }
    };
}

words! {
    /// How an attempt to sign in ended.
    SignInOutcome {
        Success = "success",
        WrongPassword = "wrong_password",
        WrongCode = "wrong_code",
        /// Too many failed attempts before this one; nothing was checked.
        Throttled = "throttled",
        /// The proof was right and the account is disabled.
        Disabled = "disabled",
        /// A policy blocks the application for this user. Reserved: relays record blocks today.
        Blocked = "blocked",
        /// Too many passwords were being checked; this one was not.
        Busy = "busy",
        /// The proof was right and could not be recorded.
        Unavailable = "unavailable",
        /// An identity provider did not vouch for the user, or for nobody known here.
        ProviderRefused = "provider_refused",
    }
}

words! {
    /// A proof of identity, named as in RFC 8176 (`amr`).
    ProofMethod {
        Password = "pwd",
        OneTimeCode = "otp",
        /// An identity provider's word.
        Federated = "fed",
        /// And its word that there was a second factor.
        MultiFactor = "mfa",
    }
}

impl ProofMethod {
    /// Does it show a second factor beside a password or a provider's word?
    pub fn is_second_factor(self) -> bool {
        match self {
            Self::OneTimeCode | Self::MultiFactor => true,
            Self::Password | Self::Federated => false,
        }
    }
}

words! {
    /// What a relay reports of a connector.
    ConnectorEvent {
        Linked = "linked",
        Unlinked = "unlinked",
        /// The connector would not dial an origin. Reserved: no relay records it today.
        OriginRefused = "origin_refused",
    }
}

words! {
    /// Why a link between relay and connector ended.
    LinkEnd {
        /// The connection answers no HTTP/2 PING.
        NoKeepAlive = "no keep-alive",
        /// HTTP/2 or TLS failed.
        Broke = "broke",
        /// The connector closed it.
        Closed = "closed",
        /// A PING was not answered in time.
        Silent = "silent",
        /// The connector was revoked, or left its group.
        Revoked = "revoked",
        /// The relay gave it up: it had no stream left to hand a request to.
        NoStreamLeft = "no stream left",
        CertificateExpired = "certificate expired",
        RelayStopped = "relay stopped",
    }
}

words! {
    /// Why a request was not forwarded, or not to its end: the code in the access
    /// event, in the header `postern-refusal`, and in metrics.
    RefusalCode {
        BadRequest = "bad_request",
        HeadTooLarge = "head_too_large",
        UriTooLong = "uri_too_long",
        MethodNotAllowed = "method_not_allowed",
        Misdirected = "misdirected",
        UnknownHost = "unknown_host",
        NotPublished = "not_published",
        SignInRequired = "sign_in_required",
        MoreProofRequired = "more_proof_required",
        SignInFailed = "sign_in_failed",
        SignInUnavailable = "sign_in_unavailable",
        ClockWrong = "clock_wrong",
        NotAssigned = "not_assigned",
        ClientCertificateRequired = "client_certificate_required",
        BlockedByPolicy = "blocked_by_policy",
        TooManyRequests = "too_many_requests",
        ConfigurationStale = "configuration_stale",
        NotReady = "not_ready",
        Maintenance = "maintenance",
        NoConnector = "no_connector",
        Busy = "busy",
        LinkLost = "link_lost",
        OriginDns = "origin_dns",
        OriginConnect = "origin_connect",
        OriginTls = "origin_tls",
        OriginTimeout = "origin_timeout",
        OriginBadResponse = "origin_bad_response",
        OriginRefused = "origin_refused",
        SlowBody = "slow_body",
        /// Forwarded, and ended when the user's access ended. Never sent to the user.
        Cut = "cut",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways, and no two variants with the same word.
    macro_rules! every_word_is_read_as_it_is_written {
        ($($name:ident),+) => {
            $(for (n, word) in $name::ALL.iter().enumerate() {
                assert_eq!($name::parse(&word.to_string()), Some(*word));
                assert!($name::ALL[..n].iter().all(|it| it.as_str() != word.as_str()), "{word} is there twice");
            })+
        };
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        every_word_is_read_as_it_is_written!(SignInOutcome, ProofMethod, ConnectorEvent, LinkEnd, RefusalCode);
    }

    #[test]
    fn a_word_of_a_newer_release_is_unknown_and_no_other() {
        for word in ["", "Success", "success ", "passkey_missing"] {
            assert_eq!(SignInOutcome::parse(word), None);
        }
    }
}
