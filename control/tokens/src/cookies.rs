//! Cookies (RFC 6265): reading ours from a request, and the text that sets one.

use http::{HeaderMap, header};

/// One cookie by name. Two of the same name are none: somebody on a neighbouring
/// host tossed one in (attack class R7), and nobody can tell which is ours.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(it, _)| *it == name)
        .map(|(_, value)| value);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// How a cookie of ours travels. All are `Secure`, `HttpOnly` and of the whole host.
pub struct Attributes {
    pub same_site: &'static str,
    pub partitioned: bool,
    /// None: as long as the browser is open.
    pub life_s: Option<i64>,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { same_site: "Lax", partitioned: false, life_s: None }
    }
}

/// The value of `Set-Cookie`.
pub fn cookie_text(name: &str, value: &str, attributes: &Attributes) -> String {
    let life = attributes.life_s.map_or(String::new(), |it| format!("; Max-Age={it}"));
    let partitioned = if attributes.partitioned { "; Partitioned" } else { "" };
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={}{partitioned}{life}", attributes.same_site)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_that_came_twice_is_none() {
        let headers = |fields: &[&'static str]| {
            let fields = fields.iter().map(|it| (header::COOKIE, http::HeaderValue::from_static(it)));
            fields.collect::<HeaderMap>()
        };
        assert_eq!(cookie(&headers(&["a=1; sid=x; b=2"]), "sid"), Some("x"));
        assert_eq!(cookie(&headers(&["a=1", "sid=x=y"]), "sid"), Some("x=y"));
        assert_eq!(cookie(&headers(&["xsid=1; sid2=2; SID=3"]), "sid"), None);
        assert_eq!(cookie(&headers(&["sid=x; sid=y"]), "sid"), None);
        assert_eq!(cookie(&headers(&["sid=x", "sid=x"]), "sid"), None);
    }
}
