//! The secret with which a relay acts for an application at identity's token
//! endpoint: derived from what relays and identity share, one a client.

use aws_lc_rs::constant_time;
use runtime::secret::SharedSecret;

use crate::TokenFault;

pub fn client_secret(shared: &SharedSecret, client_id: &str) -> String {
    shared.tag("client", client_id)
}

/// Was the secret derived from one of the shared secrets, for this client?
pub fn check_client_secret(shared: &[SharedSecret], client_id: &str, presented: &str) -> Result<(), TokenFault> {
    let is_of = |shared: &SharedSecret| {
        let expected = client_secret(shared, client_id);
        constant_time::verify_slices_are_equal(expected.as_bytes(), presented.as_bytes()).is_ok()
    };
    match shared.iter().any(is_of) {
        true => Ok(()),
        false => Err(TokenFault::WrongSecret),
    }
}
