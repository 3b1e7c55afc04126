//! Passwords: hashed with Argon2id (OWASP minimum: 19 MiB, 2 passes), then
//! sealed to identity. They are never stored, logged or sent on otherwise.

use argon2::{Argon2, PasswordHasher};
use thiserror::Error;

/// NIST SP 800-63B: length is what counts.
pub const PASSWORD_CHARS_MIN: usize = 10;
pub const PASSWORD_BYTES_MAX: usize = 512;

/// What a sealed password hash is sealed for.
pub const PURPOSE: &str = "password";
/// What a sealed TOTP secret is sealed for.
pub const TOTP_PURPOSE: &str = "totp";

#[derive(Debug, Error)]
pub enum PasswordError {
    #[error("a password has at least {PASSWORD_CHARS_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes")]
    Length,
    #[error("the password cannot be hashed")]
    Hash,
}

/// A PHC string. Takes tens of milliseconds: call it on a blocking thread.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if password.chars().count() < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
        return Err(PasswordError::Length);
    }
    let hash = Argon2::default().hash_password(password.as_bytes()).map_err(|_| PasswordError::Hash)?;
    Ok(hash.to_string())
}

/// Words nobody chose: 24 characters of base32, about 120 bits.
pub fn generate() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let random: [u8; 24] = runtime::clock::random_bytes();
    let characters: Vec<char> = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
    characters.chunks(6).map(|part| part.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}
