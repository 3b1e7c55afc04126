//! Enumerations by name in JSON and YAML: `block`, not `2`.
//!
//! The name is the protobuf name without its prefix, in lower case.

use crate::v1;

macro_rules! by_name {
    ($module:ident, $type:ty, $prefix:literal) => {
        pub mod $module {
            use serde::{Deserialize, Deserializer, Serializer, de::Error};

            use super::*;

            pub fn name(value: i32) -> String {
                match <$type>::try_from(value) {
                    Ok(known) => known.as_str_name()[$prefix.len()..].to_ascii_lowercase(),
                    Err(_) => value.to_string(),
                }
            }

            pub fn parse(name: &str) -> Option<i32> {
                <$type>::from_str_name(&format!("{}{}", $prefix, name.to_ascii_uppercase())).map(|it| it as i32)
            }

            pub fn serialize<S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&name(*value))
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
                let text = String::deserialize(deserializer)?;
                parse(&text).ok_or_else(|| D::Error::custom(format!("unknown value {text:?}")))
            }
        }
    };
}

by_name!(pre_authentication, v1::PreAuthentication, "PRE_AUTHENTICATION_");
by_name!(host_header, v1::HostHeader, "HOST_HEADER_");
by_name!(same_site, v1::SameSite, "SAME_SITE_");
by_name!(translate, v1::Translate, "TRANSLATE_");
by_name!(header_action, v1::HeaderAction, "HEADER_ACTION_");
by_name!(certificate_source, v1::CertificateSource, "CERTIFICATE_SOURCE_");
by_name!(acme_method, v1::AcmeMethod, "ACME_METHOD_");
by_name!(claim, v1::Claim, "CLAIM_");
by_name!(policy_state, v1::PolicyState, "POLICY_STATE_");
by_name!(control, v1::Control, "CONTROL_");
by_name!(scope, v1::Scope, "SCOPE_");
by_name!(role, v1::Role, "ROLE_");
by_name!(proof, v1::Proof, "PROOF_");
by_name!(verdict, v1::Verdict, "VERDICT_");
by_name!(happened, v1::Happened, "HAPPENED_");
by_name!(key_purpose, v1::KeyPurpose, "KEY_PURPOSE_");
by_name!(key_holder, v1::KeyHolder, "KEY_HOLDER_");

/// A list of controls.
pub mod controls {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::control;

    pub fn serialize<S: Serializer>(values: &[i32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(|it| control::name(*it)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names
            .iter()
            .map(|name| control::parse(name).ok_or_else(|| D::Error::custom(format!("unknown control {name:?}"))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::v1;

    #[test]
    fn what_is_shown_has_names_for_numbers_and_nothing_that_is_hidden() {
        let key = v1::Key {
            id: "k".into(),
            purpose: v1::KeyPurpose::Session.into(),
            public_key: vec![1],
            ..Default::default()
        };
        let shown = serde_json::to_value(&key).unwrap();
        assert_eq!((shown["id"].as_str(), shown["purpose"].as_str()), (Some("k"), Some("session")));
        assert!(shown.get("public_key").is_none(), "{shown}");
        let policy = v1::Policy { require: vec![v1::Control::Mfa.into()], ..Default::default() };
        assert_eq!(serde_json::to_value(&policy).unwrap()["require"][0], "mfa");
        assert!(serde_json::from_str::<v1::Key>(r#"{"purpos":"session"}"#).is_err(), "a typing error is no field");
        assert_eq!(serde_json::from_str::<v1::Key>(r#"{"purpose":"session"}"#).unwrap().purpose, key.purpose);
    }
}
