//! Passwords: hashed with Argon2id (OWASP minimum: 19 MiB, 2 passes), then
//! sealed to identity. They are never stored, logged or sent on otherwise.

use runtime::hashing::{Area, Hashing, HashingError};
use thiserror::Error;

pub use runtime::hashing::PASSWORD_BYTES_MAX;

/// NIST SP 800-63B: length is what counts.
pub const PASSWORD_CHARS_MIN: usize = 10;

/// What a sealed password hash is sealed for.
pub const PURPOSE: &str = "password";
/// What a sealed TOTP secret is sealed for.
pub const TOTP_PURPOSE: &str = "totp";

#[derive(Debug, Error)]
pub enum PasswordError {
    #[error("a password has at least {PASSWORD_CHARS_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes")]
    Length,
    #[error(transparent)]
    Hashing(#[from] HashingError),
}

/// A PHC string, made here and now: for the one password of a first start.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    check_length(password)?;
    Ok(Area::default().hash(password.as_bytes())?)
}

/// A PHC string, made on the threads that hash.
pub async fn hash_on(hashing: &Hashing, password: String) -> Result<String, PasswordError> {
    check_length(&password)?;
    Ok(hashing.hash(password).await?)
}

fn check_length(password: &str) -> Result<(), PasswordError> {
    match password.chars().count() >= PASSWORD_CHARS_MIN && password.len() <= PASSWORD_BYTES_MAX {
        true => Ok(()),
        false => Err(PasswordError::Length),
    }
}

/// Words nobody chose: 24 characters of base32, about 120 bits.
pub fn generate() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let random: [u8; 24] = runtime::clock::random_bytes();
    let characters: Vec<char> = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect();
    characters.chunks(6).map(|part| part.iter().collect::<String>()).collect::<Vec<_>>().join("-")
}
