//! Random text that nobody can guess, and its hash: states, nonces, the cookie
//! that binds a sign-in to a browser, PKCE challenges (RFC 7636).

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// 32 random bytes as 43 characters of base64url.
pub fn random_token() -> String {
    URL_SAFE_NO_PAD.encode(runtime::clock::random_bytes::<32>())
}

/// SHA-256 of a text, in base64url.
pub fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
}
