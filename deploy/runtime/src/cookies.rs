//! Reading cookies of a request (RFC 6265, section 5.4).

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
