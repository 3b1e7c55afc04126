//! Public keys as JSON Web Keys (RFC 7517).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// An uncompressed P-256 point (4, x, y) that verifies ES256; none if it is no point.
pub fn p256(id: &str, point: &[u8]) -> Option<Value> {
    let coordinates = point.strip_prefix(&[4]).filter(|it| it.len() == 64)?;
    let (x, y) = coordinates.split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    Some(json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id, "x": x, "y": y }))
}
