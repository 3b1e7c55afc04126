//! Keys everybody may know the public half of, and server certificates.

pub use crate::kinds::{AcmeMethod, Certificate, Key, KeyHolder, KeyPurpose, Source, in_use};
